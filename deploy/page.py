"""The service in the page's container: everything but the calls, and finding a container for them."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import CheckpointError
from core.http.app import create_app
from core.plugin.discovery import object_candidate
from deploy.choices import Deployment
from deploy.ledger import Ledger
from deploy.records import Records
from deploy.settings import Settings, explained
from deploy.voice_index import IndexedEngine, VoiceIndex
from deploy.waking import Gpus, Waking, WakingPlugin

CALLS = "wss://*.modal.host"
"""Where Modal's tunnels are, for the page's security policy."""
REFRESH_S = 20.0
"""How old what the page sees of the Volume may be."""


async def page_app(
    settings: Settings,
    data: Path,
    deployment: Deployment,
    records: Records,
    gpus: Gpus,
    patience_s: float,
    refresh: Callable[[Settings], Awaitable[None]],
    calls: str = CALLS,
) -> Any:
    """The app. Raises ConfigError or PluginError where the settings are wrong, and EngineError without a checkpoint."""
    try:
        engine = IndexedEngine(VoiceIndex.read(data))
    except CheckpointError as error:
        raise explained(error) from error
    ledger = Ledger(records, "page")
    waking = Waking(deployment, records, ledger, gpus, patience_s)
    plugin = object_candidate("waking", WakingPlugin(waking, ledger, deployment))
    server = {"socket": calls, "host": "0.0.0.0"}  # noqa: S104 - everybody reaches it
    host = await settings.start_plugins("page", engine, [plugin], ledger, **server)
    app = create_app(host.config, engine, host)
    settings.refresh()  # settings that were left out are reported from now on

    async def refreshed() -> None:
        await refresh(settings)
        await waking.look()  # what was used meanwhile

    return FreshVolume(app, refreshed)


class FreshVolume:
    """ASGI middleware: a request finds what the Volume held at most REFRESH_S ago."""

    def __init__(
        self, app: ASGIApp, refresh: Callable[[], Awaitable[None]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app, self._refresh, self._clock = app, refresh, clock
        self._due = clock() + REFRESH_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and self._clock() >= self._due:
            self._due = self._clock() + REFRESH_S
            await self._refresh()
        await self._app(scope, receive, send)
