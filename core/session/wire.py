"""One WebSocket as the session uses it: whole messages with their kind, and a time limit on each send."""

import asyncio
import time
from typing import Annotated, Any

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from core.errors import ProtocolError
from core.session.protocol import CloseCode, Kind

_json = msgspec.json.Encoder()
_GONE = (OSError, RuntimeError, WebSocketDisconnect)
"""What sending on a closed socket raises: the server, Starlette and its state check differ in it."""
_OURS: dict[int, str] = {
    CloseCode.TOO_BIG: "bad_message",
    CloseCode.NOT_TEXT: "bad_message",
    CloseCode.TOO_FAST: "too_fast",
}
"""Reasons of the closes that the server makes below a session: codes that a client has no use for."""
LONGEST_REASON = 123
"""Bytes that a close frame has room for (RFC 6455, 5.5)."""


class Hangup(Exception):  # noqa: N818 - an ending, not an error
    """The conversation is over. The first one raised in a session decides how it ends."""

    def __init__(self, reason: str, code: int, message: str = "") -> None:
        """`reason` is a word for logs and metrics; `message` tells the caller what happened, and what to do."""
        self.reason = reason
        self.code = code
        self.message = message
        super().__init__(reason)


class Echo(msgspec.Struct, tag="echo", tag_field="type"):
    """A client's METADATA that wants to come back at once, to measure the round trip."""

    id: Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Wire:
    """Sends and receives whole messages. Sends of several tasks do not mix."""

    def __init__(self, websocket: WebSocket, send_s: float, metadata: bool) -> None:
        """`send_s`: how long a send may wait for the client to read. `metadata`: the client knows kind 4."""
        self._websocket = websocket
        self._send_s = send_s
        self._metadata = metadata
        self._turn = asyncio.Lock()
        self._sent = time.monotonic()

    @property
    def quiet_s(self) -> float:
        """Seconds since anything was sent."""
        return time.monotonic() - self._sent

    async def receive(self) -> tuple[int, bytes]:
        """The next message: kind and payload. Raises Hangup when the client left or sent what is no message."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            code = message.get("code") or 1006
            raise Hangup(_OURS.get(code, "left"), code)
        data = message.get("bytes")
        if data is None:
            raise ProtocolError("Messages must be binary, but a text message came. See the documentation of the wire.")
        if not data:
            raise ProtocolError("An empty message came; the first byte of each must say its kind.")
        return data[0], data[1:]

    async def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Send one message. Raises Hangup when the client is gone or does not read."""
        try:
            async with asyncio.timeout(self._send_s), self._turn:
                await self._websocket.send_bytes(bytes([kind]) + payload)
                self._sent = time.monotonic()
        except TimeoutError:
            raise Hangup("slow", CloseCode.SLOW_READER, "Your connection is too slow for the audio.") from None
        except _GONE:
            raise Hangup("left", 1006) from None

    async def tell(self, type_: str, **values: Any) -> None:
        """Send METADATA to clients that know it; nothing to others."""
        if self._metadata:
            await self.send(Kind.METADATA, _json.encode({"type": type_, **values}))

    async def answer(self, payload: bytes) -> None:
        """Answer a client's METADATA. Raises ProtocolError when it is not JSON; what is unknown is ignored."""
        if not self._metadata:
            return
        try:
            echo = msgspec.json.decode(payload, type=Echo)
        except msgspec.ValidationError:
            return
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ProtocolError("A METADATA message is not JSON.") from None
        await self.tell("echo", id=echo.id)

    async def close(self, hangup: Hangup) -> None:
        """Say why, then close. Never raises: the client may be gone, or not read."""
        try:
            async with asyncio.timeout(self._send_s):
                if hangup.message:
                    await self._websocket.send_bytes(bytes([Kind.ERROR]) + hangup.message.encode())
                reason = hangup.message.encode()[:LONGEST_REASON].decode(errors="ignore")
                await self._websocket.close(hangup.code, reason)
        except (TimeoutError, *_GONE):
            pass
