"""A service in one process: engine, sockets, plugins."""

import socket
from collections.abc import Callable

import msgspec
from starlette.applications import Starlette

from core.boot.check import require_protection
from core.boot.exit_deadline import EXIT_S, exit_within
from core.boot.garbage import leave_out_what_stays
from core.boot.local_engine import open_engine
from core.boot.page_engine import PageEngine
from core.boot.sizing import carried_callers, count_cores
from core.boot.summary import summary, warn_of_faults
from core.engine.call import Engine
from core.http.app import create_app
from core.http.event_loop import run
from core.http.uvicorn_server import GracefulServer
from core.plugin.host import PluginHost
from core.settings.config import Config

Announce = Callable[[dict[str, str]], None]
"""Told once, when callers can connect, with what the operator should know, by title."""


def serve_in_one_process(
    config: Config, listener: socket.socket, report: Callable[[str], None], announce: Announce
) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises PersonaplexError when the service cannot start."""
    host = PluginHost.load(config)
    require_protection(config.server, host.protected)
    engine = _open(config, report)
    try:
        run(_serve(create_app(config, engine, host), config, engine, host, listener, announce))
    finally:
        engine.close()


def _open(config: Config, report: Callable[[str], None]) -> Engine:
    """The engine; for a process with the page alone only what there is to know of it, without fetching anything."""
    if config.server.role == "page":
        return PageEngine.find(msgspec.structs.replace(config.engine, offline=True), report)
    carried = carried_callers(count_cores(), one_process=True)
    return open_engine(config.engine, report, config.session.longest_s, carried)


async def _serve(
    app: Starlette, config: Config, engine: Engine, host: PluginHost, listener: socket.socket, announce: Announce
) -> None:
    async with app.router.lifespan_context(app):
        await warn_of_faults(host)
        about = await summary(engine, host)
        leave_out_what_stays()
        server = GracefulServer(app, config.server, lambda: announce(about), exit_within)
        await server.serve(sockets=[listener])
    exit_within(EXIT_S)
