"""Audio on the wire: Ogg/Opus or s16le PCM, in and out, and the 80 ms frames between them.

A reader or writer serves one direction of one conversation. None of them is safe in two threads at once. Encoding a
frame takes half a millisecond, so it belongs in a thread; decoding one takes a fifth of that.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE, Frame
from core.errors import AudioError
from core.media.ogg import OPUS_RATE, PacketReader, PageWriter
from core.media.opus import OpusDecoder, OpusEncoder

MAX_MESSAGE_SAMPLES = 10 * SAMPLE_RATE
"""What one message may decode to. A few bytes of Opus can stand for many seconds; this bounds the memory they take."""
PACKET_MS = 40
"""Of the packets that we send: two a frame."""
MIN_PACKET_SAMPLES = SAMPLE_RATE * 25 // 10_000
"""Samples in an Opus packet of 2.5 ms, the shortest there is. A page costs as much, however little it holds."""
STREAM_START_SAMPLES = FRAME_SAMPLES
"""What the start of a stream costs, in samples: a decoder is made for it."""

AudioFormat = Literal["opus", "pcm"]
Samples = npt.NDArray[np.float32]
"""float32[n], mono, 24 kHz, full scale at 1.0."""
NO_SAMPLES: Samples = np.empty(0, np.float32)


class AudioReader(Protocol):
    """Decodes one side's audio: bytes in any chunking become samples."""

    def read(self, data: bytes) -> Samples:
        """The samples completed by `data`, maybe none. Raises AudioError, after which the reader must not be used."""

    def skip(self, data: bytes) -> None:
        """Follow the stream without decoding, for sound that nobody will hear. Raises AudioError as `read` does."""

    @property
    def overhead(self) -> int:
        """What the stream has cost so far beside its sound, in samples of sound that would have cost as much."""


class AudioWriter(Protocol):
    """Encodes one side's audio: samples become bytes."""

    def write(self, samples: Samples) -> bytes:
        """The bytes completed by `samples`, maybe none."""


class PcmReader:
    """Decodes signed 16-bit little-endian samples, mono, 24 kHz; a message holds whole samples."""

    def read(self, data: bytes) -> Samples:
        """See AudioReader."""
        if len(data) % 2:
            raise AudioError(f"PCM audio comes in whole 16-bit samples, but a message had {len(data)} bytes of it.")
        if len(data) > 2 * MAX_MESSAGE_SAMPLES:
            raise _message_too_long()
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)

    def skip(self, data: bytes) -> None:
        """See AudioReader."""
        if len(data) % 2:
            self.read(data)

    @property
    def overhead(self) -> int:
        """See AudioReader."""
        return 0


class PcmWriter:
    """Encodes signed 16-bit little-endian samples, mono, 24 kHz."""

    def write(self, samples: Samples) -> bytes:
        """See AudioWriter."""
        return (_finite_and_clipped(samples) * 32767).round().astype("<i2").tobytes()


class OpusReader:
    """Decodes an Ogg/Opus stream, mono or stereo. A page that begins a stream resets the decoder."""

    def __init__(self) -> None:
        self._packets = PacketReader()
        self._decoder = OpusDecoder()
        self._streams = 0

    def read(self, data: bytes) -> Samples:
        """See AudioReader."""
        pieces: list[Samples] = []
        samples = 0
        for packet in self._packets.read(data):
            if self._packets.streams != self._streams:
                self._streams = self._packets.streams
                self._decoder = OpusDecoder()
            pieces.append(self._decoder.decode(packet))
            samples += len(pieces[-1])
            if samples > MAX_MESSAGE_SAMPLES:
                raise _message_too_long()
        return pieces[0] if len(pieces) == 1 else np.concatenate([*pieces, NO_SAMPLES])

    def skip(self, data: bytes) -> None:
        """See AudioReader."""
        for _packet in self._packets.read(data):
            pass

    @property
    def overhead(self) -> int:
        """See AudioReader."""
        return self._packets.pages * MIN_PACKET_SAMPLES + self._packets.streams * STREAM_START_SAMPLES


class OpusWriter:
    """Encodes an Ogg/Opus stream, one page a packet."""

    def __init__(self, packet_ms: int = PACKET_MS) -> None:
        """`packet_ms`: the sound in each packet, 10, 20, 40 or 60 ms."""
        self._packet_samples = SAMPLE_RATE * packet_ms // 1000
        self._encoder = OpusEncoder()
        self._pages = PageWriter(pre_skip=self._encoder.lookahead * OPUS_RATE // SAMPLE_RATE)
        self._rest: Samples = np.empty(0, np.float32)

    def write(self, samples: Samples) -> bytes:
        """See AudioWriter."""
        waiting = np.concatenate([self._rest, _finite_and_clipped(samples)])
        size = self._packet_samples
        whole = len(waiting) // size * size
        self._rest = waiting[whole:]
        packets = (self._encoder.encode(packet) for packet in waiting[:whole].reshape(-1, size))
        return b"".join(self._pages.write(packet, size * OPUS_RATE // SAMPLE_RATE) for packet in packets)


class Framer:
    """Cuts samples into frames; the rest that does not fill a frame waits for the next samples."""

    def __init__(self) -> None:
        self._pieces: list[Samples] = []
        self._waiting = 0
        """Samples in the pieces, less than a frame."""

    def frames(self, samples: Samples) -> Sequence[Frame]:
        """The frames completed by `samples`, each float32[1920]."""
        self._pieces.append(samples)
        self._waiting += len(samples)
        if self._waiting < FRAME_SAMPLES:
            return ()
        together = np.concatenate(self._pieces)
        whole = self._waiting // FRAME_SAMPLES * FRAME_SAMPLES
        self._pieces = [together[whole:].copy()]
        self._waiting -= whole
        return list(together[:whole].reshape(-1, FRAME_SAMPLES))


def open_reader(audio: AudioFormat) -> AudioReader:
    """A reader for one conversation."""
    return OpusReader() if audio == "opus" else PcmReader()


def open_writer(audio: AudioFormat, packet_ms: int = PACKET_MS) -> AudioWriter:
    """A writer for one conversation. `packet_ms` is for Opus alone."""
    return OpusWriter(packet_ms) if audio == "opus" else PcmWriter()


def _finite_and_clipped(samples: Samples) -> Samples:
    """Encoders need finite samples within full scale, and what reaches them, a model's output or that of a plugin's
    transform, need not be either. The engine does the same for the other direction, where frames are pushed."""
    return np.clip(np.nan_to_num(samples), -1, 1).astype(np.float32, copy=False)


def _message_too_long() -> AudioError:
    return AudioError("A message held more than 10 s of audio. Send audio as it is spoken.")
