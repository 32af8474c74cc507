"""The calls that lost their connections: finding them when their clients come back, here or in another process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.websockets import WebSocket

from core.errors import RefusedError
from core.plugin.client_socket import ClientSocket
from core.session import call_end
from core.session.codec_threads import CodecThreads
from core.session.resumable_transport import ResumableTransport
from core.session.resumption import DroppedCall, OtherProcesses, Pickup, ResumeTokens, place_of
from core.session.websocket_transport import Socket, WebSocketTransport


class DroppedCalls:
    """Part of a CallService. Belongs to its event loop."""

    def __init__(self, threads: CodecThreads, relayed_changed: Callable[[], None]) -> None:
        """`threads` code audio; `relayed_changed` is called when `relayed` is another number."""
        self.tokens = ResumeTokens()
        self.others: OtherProcesses | None = None
        """Where calls may be that are to be picked up here; None where this process is the only one."""
        self.relayed = 0
        """How many connections are here whose calls are in other processes."""
        self.closed = False
        """Whether nobody may come back any more."""
        self._threads = threads
        self._relayed_changed = relayed_changed

    async def find(self, pickup: Pickup) -> DroppedCall:
        """The call that a client wants to pick up again, in whichever process of the service it is. Raises
        RefusedError."""
        place = place_of(pickup.token)
        if self.others is not None and place != self.others.place:
            return _Relayed(self, await self.others.find(place, pickup))
        return _Here(self, self.claim(pickup), pickup)

    def claim(self, pickup: Pickup) -> ResumableTransport:
        """The same for a call of this process, whose token is used with it. Raises RefusedError."""
        if self.closed:
            raise RefusedError(503, call_end.from_shutdown().message, reason="shutdown")
        return self.tokens.claim(pickup.token, pickup.identity)

    async def resume(self, call: ResumableTransport, pickup: Pickup, socket: Socket) -> None:
        """Carry on a call that was claimed, over a socket that is open. Returns when either has ended."""
        transport = WebSocketTransport(socket, pickup.audio, self._threads, metadata=True, impatient=False)
        await call.carry(transport, pickup)

    @contextmanager
    def relaying(self) -> Iterator[None]:
        """Around a connection whose call is in another process."""
        self.relayed += 1
        self._relayed_changed()
        try:
            yield
        finally:
            self.relayed -= 1
            self._relayed_changed()


@dataclass(frozen=True, eq=False)
class _Here:
    """A call of this process. See `core.session.resumption.DroppedCall`."""

    calls: DroppedCalls
    call: ResumableTransport
    pickup: Pickup

    async def carry(self, websocket: WebSocket) -> None:
        """See there."""
        try:
            await websocket.accept()
        except BaseException:
            self.call.give_back(self.pickup.token)
            raise
        await self.calls.resume(self.call, self.pickup, ClientSocket(websocket))


@dataclass(frozen=True, eq=False)
class _Relayed:
    """A call of another process, whose connection is waited for like one of this process's calls. See there, too."""

    calls: DroppedCalls
    call: DroppedCall

    async def carry(self, websocket: WebSocket) -> None:
        """See there."""
        with self.calls.relaying():
            await self.call.carry(websocket)
