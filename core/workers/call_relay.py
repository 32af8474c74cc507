"""A call whose client comes back to another worker than the one that has it: that worker relays the WebSocket.

The call stays where it is, with all its state. For each such connection there is one Unix socket, which closes with it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from core.errors import RefusedError
from core.session.call_service import CallService
from core.session.protocol import ABNORMAL_CLOSURE, CloseCode
from core.session.resumption import OVER, Pickup
from core.settings.log import get_logger
from core.workers import envelopes
from core.workers.envelopes import ENVELOPE, MESSAGE, SOCKET_BYTES
from core.workers.messages import Found, Message, NotFound, Resume, SocketClosed, SocketText
from core.workers.paths import calls_socket

FIND_S = 3.0
"""How long a worker may take to say whether a call is its own."""
_GONE = (OSError, EOFError, RuntimeError, WebSocketDisconnect)
"""What the end of either side raises."""
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

    async def receive(self) -> dict[str, Any]:
        """The next message of the client."""
        try:
            received = await self._pipe.receive()
        except _GONE:
            received = SocketClosed(ABNORMAL_CLOSURE, "")
        match received:
            case bytes():
                return {"type": "websocket.receive", "bytes": received}
            case SocketText():
                return {"type": "websocket.receive", "text": ""}
            case SocketClosed(code=code):
                return {"type": "websocket.disconnect", "code": code}
        raise RuntimeError(f"a relayed connection sent {type(received).__name__}")

    async def send_bytes(self, data: bytes) -> None:
        """Send a message to the client. Raises OSError when it is gone."""
        await self._pipe.send_bytes(data)

    async def close(self, code: int = CloseCode.NORMAL, reason: str | None = None) -> None:
        """Have the WebSocket closed. Raises OSError when it is gone."""
        await self._pipe.send(SocketClosed(code, reason or ""))


@asynccontextmanager
async def serve_relayed(service: CallService, folder: Path, worker: int) -> AsyncIterator[None]:
    """Let other workers reach the calls of this one while the context lasts."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pipe = _Pipe(reader, writer)
        try:
            await _serve(service, pipe)
        except (*_GONE, ValueError, msgspec.DecodeError) as error:
            _log.info("a relayed connection broke", error=type(error).__name__)
        finally:
            pipe.close()

    service.tokens.place = str(worker)
    service.others = OtherWorkers(folder, worker)
    server = await asyncio.start_unix_server(serve, calls_socket(folder, worker))
    try:
        yield
    finally:
        server.close()


async def _serve(service: CallService, pipe: _Pipe) -> None:
    """Carry on a call over what another worker relays."""
    async with asyncio.timeout(FIND_S):
        asked = await pipe.receive()
    if not isinstance(asked, Resume):
        raise ValueError("no call was asked for")
    pickup = asked.pickup
    try:
        call = service.claim(pickup)
    except RefusedError as refusal:
        await pipe.send(NotFound(refusal.status, refusal.reason, str(refusal)))
        return
    try:
        await pipe.send(Found())
    except OSError:
        call.give_back(pickup.token)
        raise
    await service.resume(call, pickup, RelayedSocket(pipe))


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
            ways: tuple[Callable[[WebSocket], Any], ...] = (self._up, self._down)
            tasks = [asyncio.create_task(way(websocket)) for way in ways]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._pipe.close()

    async def _up(self, websocket: WebSocket) -> None:
        """From the client to the call."""
        with contextlib.suppress(*_GONE):
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    await self._pipe.send(SocketClosed(message.get("code") or ABNORMAL_CLOSURE, ""))
                    return
                data = message.get("bytes")
                await (self._pipe.send(SocketText()) if data is None else self._pipe.send_bytes(data))

    async def _down(self, websocket: WebSocket) -> None:
        """From the call to the client. Where the worker that has the call dies, the connection breaks as its own do."""
        with contextlib.suppress(*_GONE):
            while True:
                received = await self._pipe.receive()
                if isinstance(received, bytes):
                    await websocket.send_bytes(received)
                elif isinstance(received, SocketClosed):
                    await websocket.close(received.code, received.reason)
                    return
