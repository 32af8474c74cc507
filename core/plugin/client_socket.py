"""A client's WebSocket as a transport uses it: what its messages and its end mean to a call."""

import asyncio
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from core.events import EndReason
from core.plugin.doors import CallEnded

MAX_REASON_BYTES = 123
"""What a close frame has room for (RFC 6455, 5.5)."""
ABNORMAL_CLOSURE = 1006
"""The close code of a connection that broke (RFC 6455, 7.4.1); it is never sent."""
CLOSED_BELOW: dict[int, EndReason] = {1007: "bad_message", 1009: "bad_message", 4004: "too_fast"}
"""Why a call ends whose socket the server closed below the session, by the close code."""
_CLOSED = (OSError, RuntimeError, WebSocketDisconnect)
"""What sending on a closed socket raises: the server, Starlette and its state check differ in it."""


class ClientSocket:
    """Receives and sends whole messages, text (`str`) or binary (`bytes`)."""

    def __init__(self, websocket: WebSocket) -> None:
        """`websocket` has been accepted."""
        self._websocket = websocket
        self._sending = asyncio.Lock()

    async def receive(self) -> str | bytes:
        """The next message. Raises CallEnded when the client is gone, or the server has closed the socket."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            code = message.get("code") or ABNORMAL_CLOSURE
            raise CallEnded(CLOSED_BELOW.get(code, "left"), code)
        text: str | None = message.get("text")
        data: bytes = message.get("bytes") or b""
        return data if text is None else text

    async def send(self, message: str | bytes) -> None:
        """Send a message. Several tasks may: their messages come one after another. Raises CallEnded when the client
        is gone."""
        async with self._sending:
            try:
                if isinstance(message, str):
                    await self._websocket.send_text(message)
                else:
                    await self._websocket.send_bytes(message)
            except _CLOSED:
                raise CallEnded("left", ABNORMAL_CLOSURE) from None

    async def close(self, code: int, reason: str = "") -> None:
        """Close it, where the client has not done so. What is too long of the reason is cut off."""
        with suppress(*_CLOSED):
            await self._websocket.close(code, reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore"))
