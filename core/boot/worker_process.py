"""A process that serves the sockets: `python -m core.boot.worker_process`, for the supervisor.

Workers share the listening socket: whichever has the fewest connections accepts the next.
"""

import asyncio
import os
import pickle
import signal
import socket
from types import FrameType
from typing import Any

from core.boot.check import require_protection
from core.boot.child_process import Orders, receive_orders, tidy_up
from core.boot.garbage import leave_out_what_stays
from core.boot.summary import summary, warn_of_faults
from core.errors import ConfigError, PersonaplexError
from core.http.app import create_app
from core.http.event_loop import run
from core.http.uvicorn_server import GracefulServer
from core.plugin.file_store import FileStore
from core.plugin.host import PluginHost
from core.session.call_service import GOODBYE_S, CallService
from core.settings.log import get_logger
from core.workers.call_relay import serve_relayed
from core.workers.fair_accept import FairAccept, WorkerLoads
from core.workers.messages import Broken, Settings, Started
from core.workers.paths import desk_socket, loads_file, metrics_folder, store_file
from core.workers.remote_engine import Desk, RemoteAdmission, RemoteEngine

METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client shares what the workers count, if it is set before the import."""
_log = get_logger("worker")


def main() -> None:
    """Run until the supervisor says stop."""
    orders = receive_orders("worker", grace_s=2 * GOODBYE_S)
    os.environ[METRICS] = str(metrics_folder(orders.folder))
    code = run(_serve(orders))
    tidy_up(orders)
    raise SystemExit(code)


class WorkerServer(GracefulServer):
    """A server that ends when the supervisor wants it."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """SIGTERM, once or more, lets calls end first. Ctrl-C and SIGHUP are the supervisor's to hear."""
        if sig == signal.SIGTERM:
            self.should_exit = True

    async def obey(self, desk: Desk) -> None:
        """Stop when the supervisor says so."""
        await desk.stopped
        self.should_exit = True
        await desk.at_once.wait()
        self.force_exit = True


async def _serve(orders: Orders) -> int:
    loop = asyncio.get_running_loop()
    _, desk = await loop.create_unix_connection(lambda: Desk(orders.number), desk_socket(orders.folder))
    try:
        await _serve_with(desk, orders)
    except PersonaplexError as error:
        problems = error.problems if isinstance(error, ConfigError) else (str(error),)
        desk.send(Broken(problems))
        await asyncio.sleep(0)  # for the write
        return 1
    finally:
        desk.close()
    return 0


async def _serve_with(desk: Desk, orders: Orders) -> None:
    config = orders.config
    host = PluginHost.load(config, shared=FileStore(store_file(orders.folder)))
    require_protection(config.server, host.protected)
    complete = asyncio.create_task(desk.complete.wait())
    either: list[asyncio.Future[Any]] = [complete, desk.stopped]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not complete.done():
        complete.cancel()
        return
    engine = RemoteEngine(desk, orders.folder, config.engine)
    app = create_app(config, engine, host, RemoteAdmission(desk, engine))
    async with app.router.lifespan_context(app):
        service: CallService = app.state.service
        service.reloader.on_applied = lambda applied: desk.send(Settings(pickle.dumps(applied)))
        await service.reloader.catch_up()
        await warn_of_faults(service.host)
        about = await summary(engine, service.host)
        listener = socket.socket(fileno=orders.listener)
        accept = FairAccept(WorkerLoads(loads_file(orders.folder), orders.number))
        server = WorkerServer(app, config.server, lambda: desk.send(Started(about)), accept=accept)
        obeying = asyncio.create_task(server.obey(desk))
        leave_out_what_stays()
        try:
            async with serve_relayed(service.dropped, orders.folder, orders.number):
                await server.serve(sockets=[listener])
        finally:
            obeying.cancel()
    engine.close()


if __name__ == "__main__":
    main()
