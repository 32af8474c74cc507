"""Everything one running app shares between its sessions, and how a socket becomes a session."""

import asyncio
import contextlib
import os
import secrets
from concurrent.futures import ThreadPoolExecutor

from starlette.responses import JSONResponse
from starlette.websockets import WebSocket

from core.admission import Admission
from core.config import Config
from core.engine.call import Engine
from core.events import SessionInfo
from core.plugins import PluginHost
from core.protocol import CloseCode
from core.request import RefusedError, resolve_request
from core.session import Session
from core.wire import Hangup, Wire

RICH_ROUTE = "/ws/chat"
"""Its clients know METADATA; those of NVIDIA's `/api/chat` do not."""
GOODBYE_S = 5.0
"""How long running calls have for their goodbye when the server stops."""


class Service:
    """One engine, its plugins, its queue and its sessions. Made by `create_app`; `start` and `stop` by its lifespan."""

    def __init__(self, config: Config, engine: Engine, host: PluginHost) -> None:
        self.config = config
        self.engine = engine
        self.host = host
        self.admission = Admission(engine, config.server.queue, config.server.queue_wait_s)
        self._coders = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="audio")
        self._sessions: set[Session] = set()
        self._nobody = asyncio.Event()
        """Set when the last session has ended."""
        self._goodbye: Hangup | None = None

    async def start(self) -> None:
        """Start the plugins. Raises PluginError or ConfigError, which must stop the boot."""
        await self.host.startup(self.engine)

    async def stop(self) -> None:
        """Say goodbye to those who still talk, then stop the plugins. The engine belongs to whoever opened it."""
        await self.say_goodbye()
        await self.host.shutdown()
        self._coders.shutdown(wait=False, cancel_futures=True)

    async def say_goodbye(self) -> None:
        """End every session with a message, and refuse new ones. Returns when they are gone, or after a few seconds."""
        self._goodbye = Hangup("shutdown", CloseCode.GOING_AWAY, "The server is shutting down. Call again in a minute.")
        for session in self._sessions:
            session.end(self._goodbye)
        if self._sessions:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nobody.wait(), GOODBYE_S)

    async def chat(self, websocket: WebSocket) -> None:
        """The endpoint of both WebSocket routes: refuse the request over HTTP, or accept it and talk."""
        try:
            if self._goodbye is not None:
                raise RefusedError(503, self._goodbye.message)
            request = await resolve_request(websocket, self.host, self.config.personas)
        except RefusedError as refusal:
            await websocket.send_denial_response(JSONResponse({"error": str(refusal)}, status_code=refusal.status))
            return
        await websocket.accept()
        route = websocket.url.path
        info = SessionInfo(
            id=secrets.token_hex(8),
            identity=request.identity,
            persona=request.persona.id,
            voice=request.persona.voice,
            route=route,
            address=websocket.client.host if websocket.client else "",
            audio=request.audio,
        )
        session = Session(
            info,
            request,
            Wire(websocket, self.config.session.send_s, metadata=route == RICH_ROUTE),
            admission=self.admission,
            host=self.host,
            engine=self.engine.info,
            coders=self._coders,
            config=self.config.session,
        )
        self._sessions.add(session)
        self._nobody.clear()
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
            if not self._sessions:
                self._nobody.set()
