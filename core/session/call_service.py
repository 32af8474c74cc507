"""What all calls of one running app share, and how a WebSocket becomes a session."""

import asyncio
import contextlib
import os
import secrets

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from core.engine.call import Engine
from core.errors import RefusedError
from core.events import CallRefused, SessionInfo
from core.plugin.host import PluginHost
from core.plugin.reload import Reloader
from core.plugin.worker_threads import WorkerThreads
from core.session import call_end
from core.session.addresses import client_address
from core.session.admission import Admission, EngineAdmission
from core.session.chat_request import ChatRequest, resolve_request
from core.session.protocol import NVIDIA_ROUTE, OUR_ROUTE
from core.session.refusal import refuse
from core.session.session import Session
from core.session.wire import Wire
from core.settings.config import Config
from core.settings.log import get_logger

ROUTES = (OUR_ROUTE, NVIDIA_ROUTE)
CODING_S = 1.0
"""A thread that codes and transforms a frame for longer than this is lost; another takes its place."""
GOODBYE_S = 5.0
"""How long running calls have to end when the server stops."""
_log = get_logger("service")


class CallService:
    """Takes the calls of one app: an engine, its plugins, the queue and the sessions.

    Made by `create_app`, whose lifespan calls `start` and `stop`.
    """

    def __init__(self, config: Config, engine: Engine, host: PluginHost, admission: Admission | None = None) -> None:
        """`admission` None is a queue of this process before `engine`."""
        self.reloader = Reloader(host, engine)
        self.engine = engine
        self.admission = admission or EngineAdmission(engine, config.server)
        self._codec_threads = WorkerThreads("audio", min(8, os.cpu_count() or 1), replace_s=CODING_S)
        self._sessions: set[Session] = set()
        self._all_ended = asyncio.Event()
        """Set when the last session has ended."""
        self._drain_s = config.server.drain_s
        self.stopping = False
        """Whether no more calls are taken."""

    @property
    def host(self) -> PluginHost:
        """The plugins in force."""
        return self.reloader.host

    @property
    def config(self) -> Config:
        """The settings in force."""
        return self.host.config

    async def start(self) -> None:
        """Start the plugins. Raises PluginError or ConfigError, which must stop the boot."""
        await self.reloader.start()

    async def stop(self) -> None:
        """Wait for calls to end, end the others, then stop the plugins. The engine is closed by whoever opened it."""
        await self.drain()
        await self.end_calls()
        await self.reloader.stop()

    async def drain(self) -> None:
        """Refuse new calls, end those in the queue, and wait until the others have ended, or for `server.drain_s`."""
        self.stopping = True
        talking = [session for session in self._sessions if session.talking]
        for session in self._sessions.difference(talking):
            session.end(call_end.from_shutdown())
        if talking and self._drain_s:
            _log.info("waiting for calls to end", calls=len(talking), seconds=self._drain_s)
            warnings = (session.warn("shutdown", self._drain_s) for session in talking)
            await asyncio.gather(*warnings, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_ended.wait(), self._drain_s)

    async def end_calls(self) -> None:
        """Refuse new calls, and end every session with a message. Returns when all have ended, or after GOODBYE_S."""
        self.stopping = True
        for session in self._sessions:
            session.end(call_end.from_shutdown())
        if self._sessions:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_ended.wait(), GOODBYE_S)

    def refused(self, connection: HTTPConnection, refusal: RefusedError) -> None:
        """Report a call that was refused to the plugins; refusals of other requests are not reported."""
        route = connection.scope["path"]
        if route in ROUTES:
            self.host.service_event(CallRefused(refusal.reason, refusal.status, route, client_address(connection)))

    async def chat(self, websocket: WebSocket) -> None:
        """The endpoint of both WebSocket routes: refuse the request over HTTP, or accept it and converse."""
        async with self.reloader.call() as host:
            try:
                request = await self._resolve(websocket, host)
            except RefusedError as refusal:
                self.refused(websocket, refusal)
                await refuse(websocket.scope, websocket.receive, websocket.send, refusal)
            else:
                await self._converse(websocket, host, request)

    async def upgrade_required(self, request: Request) -> Response:
        """The endpoint of both routes for a request that is no WebSocket's. Raises RefusedError."""
        refusal = RefusedError(
            426,
            "This address takes calls over a WebSocket: connect with one (ws:// or wss://). Where you did, a proxy on "
            "the way has dropped the Upgrade header.",
            headers={"upgrade": "websocket", "connection": "upgrade"},
        )
        self.refused(request, refusal)
        raise refusal

    async def _resolve(self, websocket: WebSocket, host: PluginHost) -> ChatRequest:
        if self.stopping:
            raise RefusedError(503, call_end.from_shutdown().message, reason="shutdown")
        try:
            async with asyncio.timeout(host.config.session.auth_s):
                return await resolve_request(websocket, host, host.config.personas)
        except TimeoutError:
            raise RefusedError(503, "The service took too long to look you up. Try again.", reason="timeout") from None

    async def _converse(self, websocket: WebSocket, host: PluginHost, request: ChatRequest) -> None:
        config = host.config
        await websocket.accept()
        route = websocket.url.path
        info = SessionInfo(
            id=secrets.token_hex(8),
            identity=request.identity,
            persona=request.persona.id,
            voice=request.persona.voice,
            route=route,
            address=client_address(websocket),
            audio=request.audio,
        )
        session = Session(
            info,
            request,
            Wire(websocket, config.session.send_s, metadata=route == OUR_ROUTE),
            admission=self.admission,
            host=host,
            engine=self.engine.info,
            codec_threads=self._codec_threads,
            config=config.session,
        )
        self._sessions.add(session)
        self._all_ended.clear()
        if self.stopping:
            session.end(call_end.from_shutdown())
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
            if not self._sessions:
                self._all_ended.set()
