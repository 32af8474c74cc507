"""Raw audio as other services' sockets carry it: 16-bit PCM and the telephone's G.711, at any of the usual rates.

G.711 is a table of 256 values in one direction and of 65,536 in the other. libsndfile, which reads and writes it, gives
both.
"""

import io
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import soundfile

from core.engine.call import SAMPLE_RATE
from core.errors import AudioError
from core.media.audio_codecs import MAX_MESSAGE_SAMPLES, PcmReader, PcmWriter, Samples
from core.media.resampling import Resampler

RawEncoding = Literal["pcm", "mulaw", "alaw"]
"""`pcm` is signed 16-bit little-endian; `mulaw` and `alaw` are those of ITU-T G.711, a byte a sample. All are mono."""
_SUBTYPES = {"mulaw": "ULAW", "alaw": "ALAW"}


class RawAudioReader:
    """Decodes one side of a conversation: bytes become samples at 24 kHz."""

    def __init__(self, encoding: RawEncoding, rate: int) -> None:
        """`rate` in Hz."""
        self._encoding = encoding
        self._rate = rate
        self._pcm = PcmReader()
        self._resampler = Resampler(rate, SAMPLE_RATE)
        if encoding != "pcm":
            _table_of_values(encoding)

    def read(self, data: bytes) -> Samples:
        """float32[n], mono, 24 kHz, full scale at 1.0. Raises AudioError for half a sample, and for more than 10 s."""
        size = 2 if self._encoding == "pcm" else 1
        if len(data) // size * SAMPLE_RATE > MAX_MESSAGE_SAMPLES * self._rate:
            raise AudioError("A message held more than 10 s of audio. Send audio as it is spoken.")
        if self._encoding == "pcm":
            return self._resampler.resample(self._pcm.read(data))
        values = _table_of_values(self._encoding)
        return self._resampler.resample(values[np.frombuffer(data, np.uint8)])


class RawAudioWriter:
    """Encodes one side of a conversation: samples at 24 kHz become bytes."""

    def __init__(self, encoding: RawEncoding, rate: int) -> None:
        """`rate` in Hz."""
        self._encoding = encoding
        self._pcm = PcmWriter()
        self._resampler = Resampler(SAMPLE_RATE, rate)
        if encoding != "pcm":
            _table_of_codes(encoding)

    def write(self, samples: Samples) -> bytes:
        """The bytes of float32[n], mono, 24 kHz; what is beyond full scale is clipped."""
        pcm = self._pcm.write(self._resampler.resample(samples))
        if self._encoding == "pcm":
            return pcm
        codes: npt.NDArray[np.uint8] = _table_of_codes(self._encoding)[np.frombuffer(pcm, "<u2")]
        return codes.tobytes()


@cache
def _table_of_values(encoding: RawEncoding) -> npt.NDArray[np.float32]:
    """float32[256]: the sample that each byte stands for."""
    codes = io.BytesIO(bytes(range(256)))
    layout: dict[str, Any] = {"format": "RAW", "subtype": _SUBTYPES[encoding], "channels": 1, "samplerate": 8000}
    values, _ = soundfile.read(codes, dtype="int16", **layout)
    table: npt.NDArray[np.float32] = values.astype(np.float32) / np.float32(32768)
    return table


@cache
def _table_of_codes(encoding: RawEncoding) -> npt.NDArray[np.uint8]:
    """uint8[65536]: the byte for each 16-bit sample, by the sample's bits as an unsigned number."""
    codes = io.BytesIO()
    samples = np.arange(65536, dtype=np.uint16).view(np.int16)
    soundfile.write(codes, samples, 8000, format="RAW", subtype=_SUBTYPES[encoding])
    return np.frombuffer(codes.getvalue(), np.uint8)
