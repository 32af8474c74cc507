"""A process that serves one engine over sockets: `python -m core.boot.engine_process`, for the supervisor."""

import asyncio
import os
import pkgutil
import signal
from collections.abc import Callable

from core.boot.child_process import Orders, receive_orders, tidy_up
from core.boot.garbage import leave_out_what_stays
from core.engine.call import Engine
from core.errors import ConfigError, PersonaplexError
from core.settings.log import get_logger
from core.workers.engine_server import DeskLink, EngineServer
from core.workers.messages import Broken, Hello, Report
from core.workers.paths import desk_socket, engine_socket, voices_folder
from core.workers.voice_files import VoiceFiles

_log = get_logger("engine")


def main() -> None:
    """Run until the supervisor says stop."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # sent to all processes of a service at once, while calls still end
    orders = receive_orders("engine", grace_s=0)
    problem = asyncio.run(_serve(orders))
    tidy_up(orders)
    os._exit(1 if problem else 0)  # an engine that is stuck has a thread that does not end


async def _serve(orders: Orders) -> str:
    loop = asyncio.get_running_loop()
    _, desk = await loop.create_unix_connection(DeskLink, desk_socket(orders.folder))
    desk.send(Hello("engine", orders.number))

    def report(line: str) -> None:
        loop.call_soon_threadsafe(desk.send, Report(line))

    opening = asyncio.create_task(asyncio.to_thread(_open, orders, report))
    stopped = asyncio.create_task(desk.stopped.wait())
    await asyncio.wait([opening, stopped], return_when=asyncio.FIRST_COMPLETED)
    if not opening.done():
        os._exit(0)  # nobody waits for what is being loaded
    try:
        engine = opening.result()
    except PersonaplexError as error:
        return await _say_why(desk, error.problems if isinstance(error, ConfigError) else (str(error),))
    except Exception as error:
        _log.exception("the engine cannot be opened")
        return await _say_why(desk, (f"The engine cannot be opened: {type(error).__name__}: {error}",))
    server = EngineServer(engine, VoiceFiles(voices_folder(orders.folder)))
    path = engine_socket(orders.folder, orders.number)
    leave_out_what_stays()
    problem = await server.serve(desk, path)
    if problem:
        _log.error("the engine's process ends", problem=problem)
    else:
        engine.close()
    return problem


def _open(orders: Orders, report: Callable[[str], None]) -> Engine:
    config = orders.config
    factory: Callable[..., Engine] = pkgutil.resolve_name(orders.engine_factory)
    return factory(config.engine, report, config.session.longest_s, orders.carried)


async def _say_why(desk: DeskLink, problems: tuple[str, ...]) -> str:
    desk.send(Broken(problems))
    await asyncio.sleep(0)  # for the write
    desk.close()
    return " ".join(problems)


if __name__ == "__main__":
    main()
