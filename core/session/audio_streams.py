"""The two directions of a conversation's audio: bytes -> frames -> transforms, and frames -> transforms -> bytes.

Where a step runs is chosen by what it costs. To decode a packet of 20 ms takes 30 us, less than a hop to a thread, so
it is done on the event loop; a frame's transforms and its encoding take from half a millisecond on, so they run in a
thread, with one hop for both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from core.engine.call import Frame
from core.media.audio_codecs import AudioFormat, Framer, open_reader, open_writer
from core.plugin.transforms import Chain, Times

SMALL_MESSAGE_BYTES = 4096
"""A message up to this size is decoded on the event loop: 0.4 s of Opus at 64 kbit/s, or 85 ms of PCM."""


@dataclass(frozen=True)
class DecodedMessage:
    """What one AUDIO message of the caller held."""

    samples: int
    """How many samples at 24 kHz it completed, also where they make no whole frame yet."""
    overhead: int
    """What the message cost beside its sound, in samples that would have cost as much."""
    frames: Sequence[Frame]
    """The frames it completed, not transformed yet."""
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
        self._overhead = 0

    @property
    def running(self) -> str:
        """The plugin whose transform is processing a frame now, or ""."""
        return self._chain.running

    @property
    def transforms(self) -> bool:
        """Whether frames have to go through `transform`."""
        return bool(self._chain.plugins)

    def decode(self, data: bytes) -> DecodedMessage:
        """Decode a message. Raises AudioError."""
        start = perf_counter()
        samples = self._reader.read(data)
        frames = self._framer.frames(samples)
        return DecodedMessage(len(samples), self._new_overhead(), frames, (perf_counter() - start) * 1000)

    def skip(self, data: bytes) -> int:
        """Take a message that nobody hears, such as before the handshake: only the state of its stream is kept, since
        a client may have sent the stream's beginning too early. Returns its overhead; raises AudioError."""
        self._reader.skip(data)
        return self._new_overhead()

    def transform(self, frame: Frame) -> tuple[Frame, Times]:
        """Put a frame through the transforms; the time each took."""
        return self._chain.process(frame), self._chain.times

    def _new_overhead(self) -> int:
        before, self._overhead = self._overhead, self._reader.overhead
        return self._overhead - before


class AgentAudio:
    """From the engine to the socket."""

    def __init__(self, audio: AudioFormat, chain: Chain) -> None:
        self._writer = open_writer(audio)
        self._chain = chain

    @property
    def running(self) -> str:
        """The plugin whose transform is processing a frame now, or ""."""
        return self._chain.running

    def encode(self, frame: Frame) -> EncodedFrame:
        """Transform and encode a frame."""
        transformed = self._chain.process(frame)
        start = perf_counter()
        data = self._writer.write(transformed)
        return EncodedFrame(data, self._chain.times, (perf_counter() - start) * 1000)
