"""What all calls of one running app share, and how a request becomes a session, whichever door it comes by."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from core.engine.call import Engine
from core.errors import ProtocolError, RefusedError
from core.events import CallRefused, Identity, SessionEnded, SessionInfo
from core.plugin.client_socket import ClientSocket
from core.plugin.doors import CallRequest, Transport
from core.plugin.host import PluginHost
from core.plugin.reload import Reloader
from core.session import call_end
from core.session.addresses import client_address
from core.session.admission import Admission, EngineAdmission
from core.session.chat_request import ResolvedRequest, authenticate, is_web_client, parse_query, resolve_request
from core.session.codec_threads import CodecThreads
from core.session.dropped_calls import DroppedCalls
from core.session.protocol import NVIDIA_ROUTE, OUR_ROUTE
from core.session.refusal import refuse
from core.session.resumable_transport import ResumableTransport
from core.session.resumption import DroppedCall, Pickup
from core.session.session import Session
from core.session.websocket_transport import WebSocketTransport
from core.settings.config import Config
from core.settings.log import get_logger

ROUTES = (OUR_ROUTE, NVIDIA_ROUTE)
GOODBYE_S = 5.0
"""How long running calls have to end when the server stops."""
_log = get_logger("service")


class CallService:
    """Takes the calls of one app: an engine, its plugins, the queue and the sessions. To plugins it is `Calls`.

    Made by `create_app`, whose lifespan calls `start` and `stop`.
    """

    def __init__(self, config: Config, engine: Engine, host: PluginHost, admission: Admission | None = None) -> None:
        """`admission` None is a queue of this process before `engine`."""
        self.reloader = Reloader(host, engine, calls=None if config.server.role == "page" else self)
        self.engine = engine
        self.admission = admission or EngineAdmission(engine, config.server)
        self._codec_threads = CodecThreads()
        self._sessions: set[Session] = set()
        self._holding: set[asyncio.Task[None]] = set()
        """The tasks of sessions that may outlive their connections."""
        self.dropped = DroppedCalls(self._codec_threads, self._changed)
        self._all_ended = asyncio.Event()
        """Set while there is no session."""
        self._all_ended.set()
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
        for holding in self._holding:
            holding.cancel()
        await asyncio.gather(*self._holding, return_exceptions=True)
        await self.reloader.stop()

    async def drain(self) -> None:
        """Refuse new calls, end those that wait in the queue or for their client, and wait until the others have ended,
        or for `server.drain_s`."""
        self.stopping = self.dropped.closed = True
        talking = [session for session in self._sessions if session.talking and not session.away]
        for session in talking:
            session.keep_no_more()
        for session in self._sessions.difference(talking):
            session.end(call_end.from_shutdown())
        count = len(talking) + self.dropped.relayed
        if count and self._drain_s:
            _log.info("waiting for calls to end", calls=count, seconds=self._drain_s)
            warnings = (session.warn("shutdown", self._drain_s) for session in talking)
            await asyncio.gather(*warnings, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_ended.wait(), self._drain_s)

    async def end_calls(self) -> None:
        """Refuse new calls, and end every session with a message. Returns when all have ended, or after GOODBYE_S."""
        self.stopping = self.dropped.closed = True
        for session in self._sessions:
            session.end(call_end.from_shutdown())
        if not self._all_ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_ended.wait(), GOODBYE_S)

    def refused(self, connection: HTTPConnection, refusal: RefusedError) -> None:
        """Report a call that was refused to the plugins; refusals of other requests are not reported."""
        if connection.scope["path"] in ROUTES:
            self._report(connection, refusal)

    async def chat(self, websocket: WebSocket) -> None:
        """The endpoint of both WebSocket routes: refuse the request over HTTP, or accept it and converse."""
        async with self.reloader.call() as host:
            call: ResolvedCall | DroppedCall
            try:
                async with self._looking_up(host):
                    identity = await authenticate(websocket, host)
                    query = parse_query(websocket.query_params)
                    ours = websocket.url.path == OUR_ROUTE
                    if ours and query.resume:
                        call = await self.dropped.find(Pickup(query.resume, identity.name, query.audio, query.words))
                    else:
                        call = await self._accept(websocket, query, identity, host)
            except RefusedError as refusal:
                self.refused(websocket, refusal)
                await refuse(websocket.scope, websocket.receive, websocket.send, refusal)
                return
            if not isinstance(call, ResolvedCall):
                await call.carry(websocket)
                return
            await websocket.accept()
            impatient = is_web_client(websocket)
            transport = WebSocketTransport(
                ClientSocket(websocket), query.audio, self._codec_threads, metadata=ours, impatient=impatient
            )
            if ours and host.config.session.resume_s:
                await self._hold_beyond(call, transport, identity, host.config.session.resume_s)
            else:
                await call.run(transport)

    async def _hold_beyond(
        self, call: "ResolvedCall", transport: WebSocketTransport, identity: Identity, resume_s: float
    ) -> None:
        """Hold a session that may outlive this connection."""
        resumable = ResumableTransport(transport.audio, identity.name, self.dropped.tokens, resume_s)

        async def hold() -> None:
            try:
                await call.run(resumable)
            except Exception:  # nobody waits for this task
                _log.exception("a session failed")
            finally:
                resumable.release()

        holding = asyncio.create_task(hold(), name="session")
        self._holding.add(holding)
        holding.add_done_callback(self._holding.discard)
        await resumable.carry(transport)

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

    @property
    def private(self) -> bool:
        """See `core.plugin.doors.Calls`."""
        return self.host.private

    async def voices(self) -> Sequence[str]:
        """See `core.plugin.doors.Calls`."""
        async with self.reloader.call() as host:
            return await host.list_voices()

    async def accept(self, connection: HTTPConnection | None, request: CallRequest) -> "ResolvedCall":
        """See `core.plugin.doors.Calls`."""
        async with self.reloader.call() as host:
            try:
                async with self._looking_up(host):
                    identity = request.identity or await _caller_of(connection, host)
                    return await self._accept(connection, request, identity, host)
            except RefusedError as refusal:
                self._report(connection, refusal)
                raise

    async def converse(
        self, connection: HTTPConnection | None, request: CallRequest, transport: Transport
    ) -> SessionEnded:
        """See `core.plugin.doors.Calls`."""
        return await (await self.accept(connection, request)).run(transport)

    async def hold(self, call: "ResolvedCall", transport: Transport) -> SessionEnded:
        """Hold the session of a call that was accepted. Returns how it ended."""
        async with self.reloader.call() as host:
            resolved = call.request
            info = SessionInfo(
                id=secrets.token_hex(8),
                identity=resolved.identity,
                persona=resolved.persona.id,
                voice=resolved.persona.voice,
                route=transport.route or call.path,
                address=call.address,
                audio=transport.audio,
            )
            session = Session(
                info,
                resolved,
                transport,
                admission=self.admission,
                host=host,
                engine=self.engine.info,
                threads=self._codec_threads,
                config=host.config.session,
            )
            self._sessions.add(session)
            self._changed()
            if self.stopping:
                session.end(call_end.from_shutdown())
            try:
                return await session.run()
            finally:
                self._sessions.discard(session)
                self._changed()

    @asynccontextmanager
    async def _looking_up(self, host: PluginHost) -> AsyncIterator[None]:
        """Around what finds out who calls, and what for. Raises RefusedError where that takes too long."""
        if self.stopping:
            raise RefusedError(503, call_end.from_shutdown().message, reason="shutdown")
        try:
            async with asyncio.timeout(host.config.session.auth_s):
                yield
        except TimeoutError:
            raise RefusedError(503, "The service took too long to look you up. Try again.", reason="timeout") from None
        except ProtocolError as error:
            raise RefusedError(400, str(error)) from None

    async def _accept(
        self, connection: HTTPConnection | None, request: CallRequest, identity: Identity, host: PluginHost
    ) -> "ResolvedCall":
        resolved = await resolve_request(request, identity, host)
        if connection is None:
            return ResolvedCall(self, resolved, "", request.address)
        return ResolvedCall(self, resolved, connection.url.path, client_address(connection))

    def _changed(self) -> None:
        if self._sessions or self.dropped.relayed:
            self._all_ended.clear()
        else:
            self._all_ended.set()

    def _report(self, connection: HTTPConnection | None, refusal: RefusedError) -> None:
        path, address = ("", "") if connection is None else (connection.scope["path"], client_address(connection))
        refused = CallRefused(refusal.reason, refusal.status, path, address, refusal.setting)
        self.host.service_event(refused)


@dataclass(frozen=True, eq=False)
class ResolvedCall:
    """See `core.plugin.doors.AcceptedCall`."""

    service: CallService
    request: ResolvedRequest
    path: str
    """Of the request that it came by; "" where there was none."""
    address: str

    async def run(self, transport: Transport) -> SessionEnded:
        """See `core.plugin.doors.AcceptedCall`. Raises TypeError for what is no Transport."""
        if not isinstance(transport, Transport):
            raise TypeError(f"A call runs over a core.Transport, not over {type(transport).__name__}.")
        return await self.service.hold(self, transport)


async def _caller_of(connection: HTTPConnection | None, host: PluginHost) -> Identity:
    """Who is calling over a door. Raises RefusedError."""
    if connection is None:
        raise RefusedError(401, "Nobody says who is calling: a door without a connection has to.")
    known = getattr(connection.state, "identity", None)  # found before a plugin's route was reached: a ticket is used
    return known if isinstance(known, Identity) else await authenticate(connection, host)
