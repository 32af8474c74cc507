"""`serve`: opens the engine, prints what is served, and serves until it gets a signal."""

import socket
from collections.abc import Callable

import msgspec
from rich.console import Console
from starlette.applications import Starlette

from core.boot.check import require_protection
from core.boot.exit_deadline import EXIT_S, exit_within
from core.boot.local_engine import open_engine
from core.boot.remote_engine import RemoteEngine
from core.cli.standard_streams import lossy_standard_error
from core.engine.call import Engine
from core.events import OPERATOR
from core.http.app import create_app
from core.http.event_loop import run
from core.http.uvicorn_server import GracefulServer, bind
from core.plugin.host import PluginHost
from core.settings.config import Config
from core.settings.log import configure_logging, get_logger


def serve_until_stopped(config: Config) -> None:
    """Serve until Ctrl-C, SIGTERM or SIGHUP. Raises PersonaplexError when the service cannot start."""
    with lossy_standard_error(), bind(config.server) as listener:
        configure_logging(config.log)
        console = Console(stderr=True, highlight=False)
        host = PluginHost.load(config)
        require_protection(config.server, host.protected)
        engine = _open(config, lambda line: console.print(line, markup=False))
        try:
            run(_serve(create_app(config, engine, host), config, engine, host, listener, console))
        finally:
            engine.close()
        console.print("Stopped.")


def _open(config: Config, report: Callable[[str], None]) -> Engine:
    """The engine; where `server.role` is `page`, only its description, without downloading anything."""
    if config.server.role == "page":
        return RemoteEngine.find(msgspec.structs.replace(config.engine, offline=True), report)
    return open_engine(config.engine, report, config.session.longest_s)


async def _serve(
    app: Starlette, config: Config, engine: Engine, host: PluginHost, listener: socket.socket, console: Console
) -> None:
    async with app.router.lifespan_context(app):
        for fault in await host.faults():
            get_logger("service").warning("calls would be refused", problem=fault)
        personas = [persona.id for persona in await host.list_personas(OPERATOR)]
        lines = {
            "engine": f"{engine.info.name} on {engine.info.device}, callers at once: {engine.info.slots}",
            "": engine.info.notice,
            "voices": ", ".join(await host.list_voices()),
            "personas": ", ".join(personas),
            "plugins": ", ".join(info.name for info in host.describe() if info.state == "on"),
            "protection": "on" if host.protected else "none: everybody who reaches this address may call",
        }

        def announce() -> None:
            for name, text in lines.items():
                if text:
                    console.print(f"{name:>10}  {text}", markup=False, soft_wrap=True)
            console.print(f"PersonaPlex serves at {_address(listener)} (Ctrl-C ends it)", markup=False)

        await GracefulServer(app, config.server, announce, exit_within).serve(sockets=[listener])
    exit_within(EXIT_S)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
