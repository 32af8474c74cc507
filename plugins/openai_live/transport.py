"""Carries a session over the WebSocket of a client of the Live API."""

import msgspec

from core import (
    AgentText,
    CallEnded,
    CallerSound,
    ClientMessage,
    ClientSocket,
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


async def send_all(socket: ClientSocket, outbox: Outbox) -> None:
    """Send what waits. Raises CallEnded when the client is gone."""
    while outbox.messages:
        await socket.send(outbox.messages.popleft())


class LiveTransport(Transport):
    """The events of a LiveSession, and the agent's sound, on a WebSocket."""

    def __init__(
        self, socket: ClientSocket, start: Start, session: LiveSession, controls: dict[str, SessionControl]
    ) -> None:
        """`controls` has the control of each session that has begun, by its id; this takes its own out."""
        self.audio = f"{start.format.type.removeprefix('audio/')} {start.format.rate}"
        self._socket = socket
        self._session = session
        self._controls = controls
        self._writer = start.writer()
        self._gate = SilenceGate()
        self._encoder = msgspec.json.Encoder()

    async def receive(self) -> CallerSound | ClientMessage:
        """See Transport. What answers the last message goes out before the next is read."""
        await self.flush()
        return self._session.receive(await self._socket.receive())

    def encode(self, frame: Frame) -> str:
        """See Transport."""
        sound = self._writer.write(self._gate.process(frame))
        return self._encoder.encode(OutputAudioDelta(sound)).decode()

    async def send_audio(self, sound: str) -> None:
        """See Transport."""
        await self._socket.send(sound)
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
        await self._socket.close(ended.code, ended.message)

    async def flush(self) -> None:
        """Send what the session has for the client. Raises CallEnded when it is gone."""
        await send_all(self._socket, self._session.outbox)
