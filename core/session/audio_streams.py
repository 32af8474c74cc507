"""The two directions of a conversation's audio: bytes -> frames -> transforms, and frames -> transforms -> bytes.

Coding and transforms take milliseconds, so the session runs each step in a thread, one after another.
"""

from dataclasses import dataclass
from time import perf_counter

from core.engine.call import Frame
from core.media.audio_codecs import AudioFormat, Framer, open_reader, open_writer
from core.plugin.transforms import Chain, Times


@dataclass(frozen=True)
class DecodedMessage:
    """What one AUDIO message of the caller held."""

    samples: int
    """How many samples at 24 kHz it completed, also where they make no whole frame yet."""
    frames: tuple[tuple[Frame, Times], ...]
    """The frames it completed, each with the times its transforms took."""
    decode_ms: float


@dataclass(frozen=True)
class EncodedFrame:
    """One frame of the agent, as the payload of an AUDIO message."""

    data: bytes
    transforms: Times
    encode_ms: float


class CallerAudio:
    """From the socket to the engine."""

    def __init__(self, audio: AudioFormat, chain: Chain) -> None:
        self._reader = open_reader(audio)
        self._framer = Framer()
        self._chain = chain

    def decode(self, data: bytes, live: bool) -> DecodedMessage:
        """Decode a message. Raises AudioError.

        Before the handshake (`live` false) its samples are dropped; the state of its stream is kept, since a client may
        have sent the start of the stream too early.
        """
        start = perf_counter()
        samples = self._reader.read(data)
        decode_ms = _ms_since(start)
        if not live:
            return DecodedMessage(len(samples), (), decode_ms)
        frames = []
        for frame in self._framer.frames(samples):
            transformed = self._chain.process(frame)
            frames.append((transformed, self._chain.times))
        return DecodedMessage(len(samples), tuple(frames), decode_ms)


class AgentAudio:
    """From the engine to the socket."""

    def __init__(self, audio: AudioFormat, chain: Chain) -> None:
        self._writer = open_writer(audio)
        self._chain = chain

    def encode(self, frame: Frame) -> EncodedFrame:
        """Transform and encode a frame."""
        transformed = self._chain.process(frame)
        start = perf_counter()
        data = self._writer.write(transformed)
        return EncodedFrame(data, self._chain.times, _ms_since(start))


def _ms_since(start: float) -> float:
    return (perf_counter() - start) * 1000
