"""A call whose client comes back to another worker than the one that has it: that worker relays the WebSocket.

The call stays where it is, with all its state. For each such connection there is one Unix socket, which closes with it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from starlette.websockets import WebSocket

from core.errors import RefusedError
from core.plugin.client_socket import ABNORMAL_CLOSURE, CLOSED_BELOW, ClientSocket
from core.plugin.doors import CallEnded
from core.session.dropped_calls import DroppedCalls
from core.session.resumption import OVER, Pickup
from core.settings.log import get_logger
from core.workers import envelopes
from core.workers.envelopes import ENVELOPE, MESSAGE, SOCKET_BYTES
from core.workers.messages import Found, Message, NotFound, Resume, SocketClosed, SocketText
from core.workers.paths import calls_socket

FIND_S = 3.0
"""How long a worker may take to say whether a call is its own."""
_GONE = (OSError, EOFError)
"""What the end of the other worker raises."""
_log = get_logger("relay")


class _Pipe:
    """One end of the Unix socket: whole messages and bytes, as fast as the other end takes them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def receive(self) -> Message | bytes:
        """The next message, or what goes over the WebSocket. Raises EOFError or OSError when the other end is gone."""
        length, kind = ENVELOPE.unpack(await self._reader.readexactly(ENVELOPE.size))
        body = await self._reader.readexactly(length)
        return envelopes.decode(memoryview(body)) if kind == MESSAGE else body

    async def send(self, message: Message) -> None:
        """Send a message. Raises OSError when the other end is gone."""
        self._writer.write(envelopes.encode(message))
        await self._writer.drain()

    async def send_bytes(self, data: bytes) -> None:
        """Send what goes over the WebSocket. Raises as `send`."""
        self._writer.write(ENVELOPE.pack(len(data), SOCKET_BYTES) + data)
        await self._writer.drain()

    def close(self) -> None:
        """End it; what was sent still goes out."""
        self._writer.close()


class RelayedSocket:
    """The client's WebSocket, for the worker that has the call. See `core.session.websocket_transport.Socket`."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe

    async def receive(self) -> str | bytes:
        """See there."""
        try:
            received = await self._pipe.receive()
        except _GONE:
            received = SocketClosed(ABNORMAL_CLOSURE, "")
        match received:
            case bytes():
                return received
            case SocketText():
                return ""
            case SocketClosed(code=code):
                raise CallEnded(CLOSED_BELOW.get(code, "left"), code)
        raise RuntimeError(f"a relayed connection sent {type(received).__name__}")

    async def send(self, message: bytes) -> None:
        """See there."""
        try:
            await self._pipe.send_bytes(message)
        except _GONE:
            raise CallEnded("left", ABNORMAL_CLOSURE) from None

    async def close(self, code: int, reason: str = "") -> None:
        """See there."""
        with contextlib.suppress(*_GONE):
            await self._pipe.send(SocketClosed(code, reason))


@asynccontextmanager
async def serve_relayed(calls: DroppedCalls, folder: Path, worker: int) -> AsyncIterator[None]:
    """Let other workers reach the calls of this one while the context lasts."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pipe = _Pipe(reader, writer)
        try:
            await _serve(calls, pipe)
        except (*_GONE, ValueError, msgspec.DecodeError) as error:
            _log.info("a relayed connection broke", error=type(error).__name__)
        finally:
            pipe.close()

    calls.tokens.place = str(worker)
    calls.others = OtherWorkers(folder, worker)
    server = await asyncio.start_unix_server(serve, calls_socket(folder, worker))
    try:
        yield
    finally:
        server.close()


async def _serve(calls: DroppedCalls, pipe: _Pipe) -> None:
    """Carry on a call over what another worker relays."""
    async with asyncio.timeout(FIND_S):
        asked = await pipe.receive()
    if not isinstance(asked, Resume):
        raise ValueError("no call was asked for")
    pickup = asked.pickup
    try:
        call = calls.claim(pickup)
    except RefusedError as refusal:
        await pipe.send(NotFound(refusal.status, refusal.reason, str(refusal)))
        return
    try:
        await pipe.send(Found())
    except OSError:
        call.give_back(pickup.token)
        raise
    await calls.resume(call, pickup, RelayedSocket(pipe))


class OtherWorkers:
    """See `core.session.resumption.OtherProcesses`."""

    def __init__(self, folder: Path, worker: int) -> None:
        self._folder = folder
        self.place = str(worker)

    async def find(self, place: str, pickup: Pickup) -> "RemoteDroppedCall":
        """See there."""
        if not (place.isascii() and place.isdigit() and len(place) < 10):
            raise RefusedError(410, OVER)
        try:
            async with asyncio.timeout(FIND_S):
                pipe = _Pipe(*await asyncio.open_unix_connection(calls_socket(self._folder, int(place))))
                try:
                    await pipe.send(Resume(pickup))
                    answer = await pipe.receive()
                except BaseException:
                    pipe.close()
                    raise
        except (OSError, EOFError):  # a worker that has died took its calls along; TimeoutError is an OSError
            raise RefusedError(410, OVER) from None
        if isinstance(answer, Found):
            return RemoteDroppedCall(pipe)
        pipe.close()
        if isinstance(answer, NotFound):
            raise RefusedError(answer.status, answer.message, reason=answer.reason)
        raise RefusedError(410, OVER)


class RemoteDroppedCall:
    """A call of another worker. See `core.session.resumption.DroppedCall`."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe

    async def carry(self, websocket: WebSocket) -> None:
        """See there."""
        try:
            await websocket.accept()
            socket = ClientSocket(websocket)
            tasks = [asyncio.create_task(way) for way in (self._up(socket), self._down(socket))]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._pipe.close()

    async def _up(self, socket: ClientSocket) -> None:
        """From the client to the call."""
        with contextlib.suppress(*_GONE):
            try:
                while True:
                    message = await socket.receive()
                    if isinstance(message, bytes):
                        await self._pipe.send_bytes(message)
                    else:
                        await self._pipe.send(SocketText())
            except CallEnded as ended:
                await self._pipe.send(SocketClosed(ended.code, ""))

    async def _down(self, socket: ClientSocket) -> None:
        """From the call to the client. Where the worker that has the call dies, the connection breaks as its own do."""
        with contextlib.suppress(CallEnded, *_GONE):
            while True:
                received = await self._pipe.receive()
                if isinstance(received, bytes):
                    await socket.send(received)
                elif isinstance(received, SocketClosed):
                    await socket.close(received.code, received.reason)
                    return
