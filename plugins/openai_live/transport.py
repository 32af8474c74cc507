"""Carries a session over the WebSocket of a client of the Live API."""

import asyncio

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from core import (
    AgentText,
    CallEnded,
    CallerSound,
    ClientMessage,
    EndReason,
    Frame,
    Ready,
    ServerMessage,
    SessionControl,
    Transport,
)

from .events import OutputAudioDelta
from .live_session import LiveSession
from .outbox import Outbox
from .silence_gate import SilenceGate
from .start import Start

CLOSED = (OSError, RuntimeError, WebSocketDisconnect)
"""What sending on a closed socket raises."""
ABNORMAL_CLOSURE = 1006
MAX_REASON_BYTES = 123
"""What a close frame has room for (RFC 6455, 5.5)."""
CLOSED_BELOW: dict[int, EndReason] = {1007: "bad_message", 1009: "bad_message", 4004: "too_fast"}
"""Why a call ends whose socket the server itself closed, by the close code."""


async def receive(websocket: WebSocket) -> str | bytes:
    """The next message. Raises CallEnded when the client is gone."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        code = message.get("code") or ABNORMAL_CLOSURE
        raise CallEnded(CLOSED_BELOW.get(code, "left"), code)
    text: str | None = message.get("text")
    return text if text is not None else message.get("bytes") or b""


async def send(websocket: WebSocket, outbox: Outbox) -> None:
    """Send what waits. Raises CallEnded when the client is gone."""
    while outbox.messages:
        await send_text(websocket, outbox.messages.popleft())


async def send_text(websocket: WebSocket, text: str) -> None:
    """Send one message. Raises CallEnded when the client is gone."""
    try:
        await websocket.send_text(text)
    except CLOSED:
        raise CallEnded("left", ABNORMAL_CLOSURE) from None


async def close(websocket: WebSocket, code: int, reason: str) -> None:
    """Close the socket; the client may be gone already."""
    try:
        await websocket.close(code, reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore"))
    except CLOSED:
        pass


class LiveTransport(Transport):
    """The events of a LiveSession, and the agent's sound, on a WebSocket."""

    def __init__(
        self, websocket: WebSocket, start: Start, session: LiveSession, controls: dict[str, SessionControl]
    ) -> None:
        """`controls` has the control of each session that has begun, by its id; this takes its own out."""
        self.audio = f"{start.format.type.removeprefix('audio/')} {start.format.rate}"
        self._websocket = websocket
        self._session = session
        self._controls = controls
        self._writer = start.writer()
        self._gate = SilenceGate()
        self._encoder = msgspec.json.Encoder()
        self._sending = asyncio.Lock()

    async def receive(self) -> CallerSound | ClientMessage:
        """See Transport. What answers the last message goes out before the next is read."""
        await self.flush()
        return self._session.receive(await receive(self._websocket))

    def encode(self, frame: Frame) -> str:
        """See Transport."""
        sound = self._writer.write(self._gate.process(frame))
        return self._encoder.encode(OutputAudioDelta(sound)).decode()

    async def send_audio(self, sound: str) -> None:
        """See Transport."""
        async with self._sending:
            await send_text(self._websocket, sound)
        self._session.frame_sent()

    async def send_text(self, text: AgentText) -> None:
        """See Transport."""
        self._gate.text()
        self._session.agent_said(text)
        await self.flush()

    async def send_event(self, message: ServerMessage) -> None:
        """See Transport."""
        if isinstance(message, Ready):
            self._session.begin(message, self._controls.pop(message.session, None))
        else:
            self._session.tell(message)
        await self.flush()

    async def close(self, ended: CallEnded) -> None:
        """See Transport."""
        self._session.end(ended)
        try:
            await self.flush()
        except CallEnded:
            return
        await close(self._websocket, ended.code, ended.message)

    async def flush(self) -> None:
        """Send what the session has for the client. Raises CallEnded when it is gone."""
        async with self._sending:
            await send(self._websocket, self._session.outbox)
