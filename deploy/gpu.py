"""The service in a container with the GPU: settings, plugins and app around an engine that is open already."""

import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from core.engine.call import Engine
from core.http.app import create_app
from core.plugin.discovery import object_candidate
from deploy.choices import CONTAINER_S, Deployment
from deploy.ledger import Ledger
from deploy.records import Records
from deploy.serving import PORT, Container, CountedCalls, serve_calls
from deploy.settings import Settings


async def serve(
    settings: Settings,
    engine: Engine,
    origin: str,
    deployment: Deployment,
    records: Records,
    forward: Callable[[int], AbstractAsyncContextManager[str]],
    refresh: Callable[[Settings], Awaitable[None]],
    commit: Callable[[], Awaitable[None]],
    call: str,
    port: int = PORT,
) -> None:
    """Serve calls to the page at `origin` until there are none: see `deploy.serving`. `call` is Modal's id of it.

    Raises ConfigError or PluginError where the settings are wrong, and EngineError when the engine failed.
    """
    counted, ledger = CountedCalls(), Ledger(records, os.environ.get("MODAL_TASK_ID", call))
    # Everybody comes from the address of Modal's relay, and strangers do not know where.
    server = {"host": "0.0.0.0", "port": port, "origins": (origin,), "connections_per_address": 0}  # noqa: S104
    host = await settings.start_plugins("gpu", engine, [object_candidate("counted_calls", counted)], ledger, **server)
    config = host.config
    app = create_app(config, engine, host)
    settings.refresh()  # settings that were left out are reported from now on

    async def refreshed() -> None:
        await refresh(settings)

    container = Container(call, deployment, records, ledger, forward, refreshed, commit)
    longest_s = config.server.queue_wait_s + config.session.prompt_s + config.session.max_s + config.server.drain_s
    await serve_calls(app, config.server, engine, counted, container, CONTAINER_S - longest_s - 60)
