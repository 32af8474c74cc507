"""The WebSocket of `/ws/chat` and `/api/chat` as a session's transport: the wire protocol and the audio codecs."""

import time
from contextlib import suppress
from time import perf_counter
from typing import Protocol

from core.engine.call import Frame
from core.errors import ProtocolError
from core.media.audio_codecs import NO_SAMPLES, AudioFormat, open_reader, open_writer
from core.media.ogg import container_name
from core.plugin.acting import AgentText
from core.plugin.doors import CallEnded, CallerSound, ClientMessage, Transport
from core.plugin.server_messages import Ready, ServerMessage
from core.session.codec_threads import CodecThreads
from core.session.protocol import Kind, decode_metadata, encode_metadata

PING_S = 3.0
"""The longest silence on the wire: NVIDIA's client gives up after 10 s."""
TICK_S = 1.0
"""How often `keep_alive` is called."""
SMALL_MESSAGE_BYTES = 4096
"""A message up to this size is decoded on the event loop: 0.4 s of Opus at 64 kbit/s, or 85 ms of PCM."""
IGNORED = 255
"""A kind that means nothing, for what is to be ignored."""


class Socket(Protocol):
    """A client's WebSocket, which is open: a ClientSocket, or one that another process relays."""

    async def receive(self) -> str | bytes:
        """The next message. Raises CallEnded when the client is gone."""

    async def send(self, message: bytes) -> None:
        """Send a message. Raises CallEnded when the client is gone."""

    async def close(self, code: int, reason: str = "") -> None:
        """Close it, where the client has not done so."""


class WebSocketTransport(Transport):
    """Sends and receives whole messages, each with its kind."""

    def __init__(
        self, socket: Socket, audio: AudioFormat, threads: CodecThreads, *, metadata: bool, impatient: bool
    ) -> None:
        """`metadata`: the client knows METADATA. `impatient`: it wants to hear something also before the handshake.

        Before the handshake a client of `/api/chat` gets nothing, as from NVIDIA's server: many take the first message
        for the handshake. Only NVIDIA's web client is sent PING then, since it gives up after 10 s without a message.
        """
        self.audio = audio
        self._socket = socket
        self._threads = threads
        self._metadata = metadata
        self._pings = metadata or impatient
        self._reader, self._writer = open_reader(audio), open_writer(audio)
        self._overhead = 0
        self._listening = False
        """Whether the handshake has been sent, from when on the caller is heard."""
        self._last_sent = time.monotonic()

    async def receive(self) -> CallerSound | ClientMessage:
        """See Transport. Raises ProtocolError and AudioError for messages that are none."""
        kind, payload = await self._receive()
        if kind == Kind.AUDIO:
            return await self._sound(payload)
        if kind == Kind.METADATA and self._metadata:
            message = decode_metadata(payload)
            if isinstance(message, ClientMessage):
                return message
            await self._send(Kind.METADATA, encode_metadata(message))
        return ClientMessage(size=len(payload))

    async def _receive(self) -> tuple[int, bytes]:
        """The next message: its kind and payload. NVIDIA's server ignores a text message and an empty one, so on its
        route they are."""
        data = await self._socket.receive()
        if data and isinstance(data, bytes):
            kind = data[0]
            if kind > Kind.PING and (name := container_name(data)):
                raise ProtocolError(
                    f"The first byte of each message must say its kind (1 for audio), but this one begins with {name}."
                )
            return kind, data[1:]
        if not self._metadata:
            return IGNORED, b""
        if isinstance(data, str):
            raise ProtocolError("Messages must be binary, but a text message came. See the documentation of the wire.")
        raise ProtocolError("An empty message came; the first byte of each must say its kind.")

    async def _sound(self, payload: bytes) -> CallerSound:
        """Decode an AUDIO message. Of one that nobody hears only the state of its stream is kept: who waits costs no
        decoding, but may have sent the stream's beginning too early."""
        start = perf_counter()
        if not self._listening:
            self._reader.skip(payload)
            samples = NO_SAMPLES
        elif len(payload) <= SMALL_MESSAGE_BYTES:
            samples = self._reader.read(payload)
        else:
            samples = await self._threads.run(self._reader.read, payload)
        before, self._overhead = self._overhead, self._reader.overhead
        return CallerSound(samples, len(payload), self._overhead - before, (perf_counter() - start) * 1000)

    def encode(self, frame: Frame) -> bytes:
        """See Transport: the payload of an AUDIO message."""
        return self._writer.write(frame)

    async def send_audio(self, sound: bytes) -> None:
        """See Transport."""
        await self._send(Kind.AUDIO, sound)

    async def send_text(self, text: AgentText) -> None:
        """See Transport."""
        await self._send(Kind.TEXT, text.text.encode())

    async def send_event(self, message: ServerMessage) -> None:
        """See Transport. To a client that knows no METADATA only the handshake goes."""
        if self._metadata:
            await self._send(Kind.METADATA, encode_metadata(message))
        if isinstance(message, Ready):
            self._listening = self._pings = True  # before it is sent: the client's first audio may come at once
            await self._send(Kind.HANDSHAKE)

    async def keep_alive(self) -> None:
        """See Transport: a PING whenever nothing else was sent for long."""
        if self._pings and time.monotonic() - self._last_sent >= PING_S - TICK_S / 2:
            await self._send(Kind.PING)

    async def close(self, ended: CallEnded) -> None:
        """See Transport: the reason as an ERROR message, then the close."""
        if ended.message:
            with suppress(CallEnded):
                await self._socket.send(bytes([Kind.ERROR]) + ended.message.encode())
        await self._socket.close(ended.code, ended.message)

    async def _send(self, kind: Kind, payload: bytes = b"") -> None:
        """Send one message. Raises CallEnded when the client is gone."""
        try:
            await self._socket.send(bytes((kind,)) + payload)
        finally:
            self._last_sent = time.monotonic()
