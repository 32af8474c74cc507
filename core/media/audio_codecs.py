"""Audio on the wire: Ogg/Opus or s16le PCM, in and out, and the 80 ms frames between them.

A reader or writer serves one direction of one conversation. None of them is safe in two threads at once. Coding a frame
takes about a millisecond, so it belongs in a thread, never on the event loop.
"""

from collections.abc import Iterator
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import sphn

from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE, Frame
from core.errors import AudioError
from core.media.ogg import Page, PageReader

MAX_MESSAGE_SAMPLES = 10 * SAMPLE_RATE
"""What one message may decode to. A few bytes of Opus can stand for many seconds; this bounds the memory they take."""
MAX_PACKET_BYTES = 16 * 1024
"""An Opus packet of 120 ms at the highest rate has 7,650 bytes, so a longer one is not Opus."""

AudioFormat = Literal["opus", "pcm"]
Samples = npt.NDArray[np.float32]
"""float32[n], mono, 24 kHz, full scale at 1.0."""


class AudioReader(Protocol):
    """Decodes one side's audio: bytes in any chunking become samples."""

    def read(self, data: bytes) -> Samples:
        """The samples completed by `data`, maybe none. Raises AudioError, after which the reader must not be used."""


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


class PcmWriter:
    """Encodes signed 16-bit little-endian samples, mono, 24 kHz."""

    def write(self, samples: Samples) -> bytes:
        """See AudioWriter."""
        return (_finite_and_clipped(samples) * 32767).round().astype("<i2").tobytes()


class OpusReader:
    """Decodes an Ogg/Opus stream.

    Pages of any stream but the one that began last are dropped: at the start of a session they belong to an older
    connection. A page that begins a stream resets the decoder.
    """

    def __init__(self) -> None:
        self._pages = PageReader()
        self._decoder: sphn.OpusStreamReader | None = None
        self._serial = 0
        self._packet = 0
        """How many bytes the last page holds of a packet that continues on the next page."""

    def read(self, data: bytes) -> Samples:
        """See AudioReader."""
        pieces = [np.empty(0, np.float32)]
        samples = 0
        for page in self._pages.read(data):
            if page.begins:
                self._begin(page)
            if self._decoder is None or page.serial != self._serial or not self._has_packets(page):
                continue
            try:
                pieces.append(self._decoder.append_bytes(page.data))
            except ValueError as error:
                raise AudioError(f"The audio is not valid Ogg/Opus: {error}.") from None
            samples += len(pieces[-1])
            if samples > MAX_MESSAGE_SAMPLES:
                raise _message_too_long()
        return np.concatenate(pieces)

    def _begin(self, page: Page) -> None:
        if not page.body.startswith(b"OpusHead"):
            raise AudioError("The audio is Ogg, but not Opus. Send Ogg/Opus, or connect with audio=pcm.")
        self._decoder = sphn.OpusStreamReader(SAMPLE_RATE)
        self._serial = page.serial
        self._packet = 0

    def _has_packets(self, page: Page) -> bool:
        """Whether there is something to decode.

        Raises AudioError for packets that must not reach the decoder: it turns an empty one into 5 s of sound, and
        buffers one that never ends.
        """
        if not page.continues:
            self._packet = 0
        if self._packet == 0 and not any(page.lacing):
            return False
        for segment in page.lacing:
            self._packet += segment
            if self._packet > MAX_PACKET_BYTES:
                raise AudioError(f"The audio has an Opus packet of more than {MAX_PACKET_BYTES} bytes.")
            if self._packet == 0:
                raise AudioError("The audio has an Opus packet without content.")
            if segment < 255:
                self._packet = 0
        return True


class OpusWriter:
    """Encodes an Ogg/Opus stream: two packets of 40 ms for each frame, one page each."""

    def __init__(self) -> None:
        self._encoder = sphn.OpusStreamWriter(SAMPLE_RATE)

    def write(self, samples: Samples) -> bytes:
        """See AudioWriter."""
        return bytes(self._encoder.append_pcm(_finite_and_clipped(samples)))


class Framer:
    """Cuts samples into frames; the rest that does not fill a frame waits for the next samples."""

    def __init__(self) -> None:
        self._rest: Samples = np.empty(0, np.float32)

    def frames(self, samples: Samples) -> Iterator[Frame]:
        """The frames completed by `samples`, each float32[1920]."""
        self._rest = np.concatenate([self._rest, samples])
        whole = len(self._rest) // FRAME_SAMPLES * FRAME_SAMPLES
        frames, self._rest = self._rest[:whole], self._rest[whole:].copy()
        yield from frames.reshape(-1, FRAME_SAMPLES)


def open_reader(audio: AudioFormat) -> AudioReader:
    """A reader for one conversation."""
    return OpusReader() if audio == "opus" else PcmReader()


def open_writer(audio: AudioFormat) -> AudioWriter:
    """A writer for one conversation."""
    return OpusWriter() if audio == "opus" else PcmWriter()


def _finite_and_clipped(samples: Samples) -> Samples:
    """Encoders need finite samples within full scale, and what reaches them, a model's output or that of a plugin's
    transform, need not be either. The engine does the same for the other direction, where frames are pushed."""
    return np.clip(np.nan_to_num(samples), -1, 1).astype(np.float32, copy=False)


def _message_too_long() -> AudioError:
    return AudioError("A message held more than 10 s of audio. Send audio as it is spoken.")
