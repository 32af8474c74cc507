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

MOST_SAMPLES = 10 * SAMPLE_RATE
"""What one message may decode to. A few bytes of Opus can stand for many seconds; this bounds the memory they take."""
LARGEST_PACKET = 16 * 1024
"""An Opus packet of 120 ms at the highest rate has 7,650 bytes; what goes on for longer is not Opus."""

AudioFormat = Literal["opus", "pcm"]
Samples = npt.NDArray[np.float32]
"""float32[n], mono, 24 kHz, full scale at 1.0."""


class AudioReader(Protocol):
    """One side's audio: bytes in any chunking become samples."""

    def read(self, data: bytes) -> Samples:
        """The samples completed by `data`, maybe none. Raises AudioError; the reader is of no use after that."""


class AudioWriter(Protocol):
    """The counterpart: samples become bytes."""

    def write(self, samples: Samples) -> bytes:
        """The bytes completed by `samples`, maybe none."""


class PcmReader:
    """Signed 16-bit little-endian samples, mono, 24 kHz; a message holds whole samples."""

    def read(self, data: bytes) -> Samples:
        """See AudioReader."""
        if len(data) % 2:
            raise AudioError(f"PCM audio comes in whole 16-bit samples, but a message had {len(data)} bytes of it.")
        if len(data) > 2 * MOST_SAMPLES:
            raise _too_much()
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)


class PcmWriter:
    """The counterpart of PcmReader."""

    def write(self, samples: Samples) -> bytes:
        """See AudioWriter."""
        return (_tame(samples) * 32767).round().astype("<i2").tobytes()


class OpusReader:
    """An Ogg/Opus stream.

    Pages of another stream than the one last begun are dropped: at the start of a session they belong to an older
    connection. A page that begins a stream starts the decoder afresh.
    """

    def __init__(self) -> None:
        self._pages = PageReader()
        self._decoder: sphn.OpusStreamReader | None = None
        self._serial = 0
        self._packet = 0
        """Bytes so far of the packet that the last page left unfinished."""

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
            if samples > MOST_SAMPLES:
                raise _too_much()
        return np.concatenate(pieces)

    def _begin(self, page: Page) -> None:
        if not page.body.startswith(b"OpusHead"):
            raise AudioError("The audio is Ogg, but not Opus. Send Ogg/Opus, or connect with audio=pcm.")
        self._decoder = sphn.OpusStreamReader(SAMPLE_RATE)
        self._serial = page.serial
        self._packet = 0

    def _has_packets(self, page: Page) -> bool:
        """Whether there is something to decode. Raises AudioError for packets that must not reach the decoder: it makes
        5 s of sound of an empty one, and keeps one that never ends."""
        if not page.continues:
            self._packet = 0
        if self._packet == 0 and not any(page.lacing):
            return False
        for segment in page.lacing:
            self._packet += segment
            if self._packet > LARGEST_PACKET:
                raise AudioError(f"The audio has an Opus packet of more than {LARGEST_PACKET} bytes.")
            if self._packet == 0:
                raise AudioError("The audio has an Opus packet without content.")
            if segment < 255:
                self._packet = 0
        return True


class OpusWriter:
    """An Ogg/Opus stream of two 40 ms packets a frame, one page each."""

    def __init__(self) -> None:
        self._encoder = sphn.OpusStreamWriter(SAMPLE_RATE)

    def write(self, samples: Samples) -> bytes:
        """See AudioWriter."""
        return bytes(self._encoder.append_pcm(_tame(samples)))


class Framer:
    """Cuts samples into frames; keeps what does not fill one for the next time."""

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


def _tame(samples: Samples) -> Samples:
    """A plugin's transform may have left values that are no numbers or beyond full scale; coders need neither."""
    return np.clip(np.nan_to_num(samples), -1, 1).astype(np.float32, copy=False)


def _too_much() -> AudioError:
    return AudioError("A message held more than 10 s of audio. Send audio as it is spoken.")
