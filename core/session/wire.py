"""One WebSocket as the session uses it: whole messages with their kind, and a time limit on each send."""

import asyncio
import time

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from core.errors import ProtocolError
from core.events import EndReason
from core.media.ogg import container_name
from core.session.call_end import CallEnded
from core.session.protocol import ClientMetadata, CloseCode, Kind, ServerMetadata

_json = msgspec.json.Encoder()
_CLOSED = (OSError, RuntimeError, WebSocketDisconnect)
"""What sending on a closed socket raises: the server, Starlette and its state check differ in it."""
MAX_REASON_BYTES = 123
"""What a close frame has room for (RFC 6455, 5.5)."""
IGNORED = 255
"""A kind that means nothing, for what is to be ignored."""
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
        self.metadata = metadata
        self._sending = asyncio.Lock()
        self._sending_since: float | None = None
        self._last_sent = time.monotonic()

    @property
    def quiet_s(self) -> float:
        """Seconds since anything was sent."""
        return time.monotonic() - self._last_sent

    async def receive(self) -> tuple[int, bytes]:
        """The next message: its kind and payload. Messages that are not meant for anybody have a kind that is unknown.

        NVIDIA's server ignores a text message and an empty one, so on its route they are. Raises CallEnded when the
        client left, and ProtocolError for a message that is none.
        """
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            code = message.get("code") or ABNORMAL_CLOSURE
            raise CallEnded(CLOSED_BELOW.get(code, "left"), code)
        data = message.get("bytes")
        if data:
            kind = data[0]
            if kind > Kind.PING and (name := container_name(data)):
                raise ProtocolError(
                    f"The first byte of each message must say its kind (1 for audio), but this one begins with {name}."
                )
            return kind, data[1:]
        if not self.metadata:
            return IGNORED, b""
        if data is None:
            raise ProtocolError("Messages must be binary, but a text message came. See the documentation of the wire.")
        raise ProtocolError("An empty message came; the first byte of each must say its kind.")

    async def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Send one message. Raises CallEnded when the client is gone; one that does not read ends `watch`."""
        async with self._sending:
            self._sending_since = time.monotonic()
            try:
                await self._websocket.send_bytes(bytes((kind,)) + payload)
            except _CLOSED:
                raise CallEnded("left", ABNORMAL_CLOSURE) from None
            finally:
                self._last_sent, self._sending_since = time.monotonic(), None

    async def watch(self) -> None:
        """Raise CallEnded when a send waits for too long: the client does not read. One watch for all sends, since a
        timeout around each costs more than the send itself."""
        while True:
            await asyncio.sleep(self._send_s / 2)
            if self._sending_since is not None and time.monotonic() - self._sending_since > self._send_s:
                raise CallEnded("slow", CloseCode.SLOW_READER, "Your connection is too slow for the audio.")

    async def send_metadata(self, message: ServerMetadata) -> None:
        """Send METADATA to a client that knows it; nothing to any other. Raises CallEnded as `send` does."""
        if self.metadata:
            await self.send(Kind.METADATA, _json.encode(message))

    async def answer_metadata(self, payload: bytes) -> None:
        """Answer a client's METADATA; types that the protocol does not have are ignored.

        Raises ProtocolError when it is not JSON, and CallEnded as `send` does.
        """
        if not self.metadata:
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
