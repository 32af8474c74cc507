"""One WebSocket as the session uses it: whole messages with their kind, and a time limit on each send."""

import asyncio
import time

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from core.errors import ProtocolError
from core.events import EndReason
from core.session.call_end import CallEnded
from core.session.protocol import ClientMetadata, CloseCode, Kind, ServerMetadata

_json = msgspec.json.Encoder()
_CLOSED = (OSError, RuntimeError, WebSocketDisconnect)
"""What sending on a closed socket raises: the server, Starlette and its state check differ in it."""
MAX_REASON_BYTES = 123
"""What a close frame has room for (RFC 6455, 5.5)."""
ABNORMAL_CLOSURE = 1006
"""The close code of a connection that broke (RFC 6455, 7.4.1); it is never sent."""
CLOSED_BELOW: dict[int, EndReason] = {
    CloseCode.TOO_BIG: "bad_message",
    CloseCode.NOT_TEXT: "bad_message",
    CloseCode.TOO_FAST: "too_fast",
}
"""Why a call ends whose socket the server closed below the session, by the close code."""


class Wire:
    """Sends and receives whole messages. Several tasks may send: their messages do not mix."""

    def __init__(self, websocket: WebSocket, send_s: float, metadata: bool) -> None:
        """`send_s`: how long a send may wait for the client to read. `metadata`: the client knows METADATA."""
        self._websocket = websocket
        self._send_s = send_s
        self._metadata = metadata
        self._sending = asyncio.Lock()
        self._last_sent = time.monotonic()

    @property
    def quiet_s(self) -> float:
        """Seconds since anything was sent."""
        return time.monotonic() - self._last_sent

    async def receive(self) -> tuple[int, bytes]:
        """The next message: its kind and payload.

        Raises CallEnded when the client left, and ProtocolError for a text message or an empty one.
        """
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            code = message.get("code") or ABNORMAL_CLOSURE
            raise CallEnded(CLOSED_BELOW.get(code, "left"), code)
        data = message.get("bytes")
        if data is None:
            raise ProtocolError("Messages must be binary, but a text message came. See the documentation of the wire.")
        if not data:
            raise ProtocolError("An empty message came; the first byte of each must say its kind.")
        return data[0], data[1:]

    async def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Send one message. Raises CallEnded when the client is gone or does not read."""
        try:
            async with asyncio.timeout(self._send_s), self._sending:
                await self._websocket.send_bytes(bytes([kind]) + payload)
                self._last_sent = time.monotonic()
        except TimeoutError:
            raise CallEnded("slow", CloseCode.SLOW_READER, "Your connection is too slow for the audio.") from None
        except _CLOSED:
            raise CallEnded("left", ABNORMAL_CLOSURE) from None

    async def send_metadata(self, message: ServerMetadata) -> None:
        """Send METADATA to a client that knows it; nothing to any other. Raises CallEnded as `send` does."""
        if self._metadata:
            await self.send(Kind.METADATA, _json.encode(message))

    async def answer_metadata(self, payload: bytes) -> None:
        """Answer a client's METADATA; types that the protocol does not have are ignored.

        Raises ProtocolError when it is not JSON, and CallEnded as `send` does.
        """
        if not self._metadata:
            return
        try:
            echo = msgspec.json.decode(payload, type=ClientMetadata)
        except msgspec.ValidationError:
            return
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ProtocolError("A METADATA message is not JSON.") from None
        await self.send_metadata(echo)

    async def close(self, end: CallEnded) -> None:
        """Send the reason as an ERROR message, then close. Never raises: the client may be gone, or not read."""
        try:
            async with asyncio.timeout(self._send_s):
                if end.message:
                    await self._websocket.send_bytes(bytes([Kind.ERROR]) + end.message.encode())
                reason = end.message.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
                await self._websocket.close(end.code, reason)
        except (TimeoutError, *_CLOSED):
            pass
