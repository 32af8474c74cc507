"""Opus packets to samples and back, by libopus, which lets go of Python's lock while it works.

Packets alone: `core.media.ogg` has the container. Neither object may be used by two threads at once.
"""

import numpy as np
import numpy.typing as npt
import opuslib_next
from opuslib_next.api import c_float_pointer
from opuslib_next.api.decoder import libopus_decode_float

from core.engine.call import SAMPLE_RATE
from core.errors import AudioError

LONGEST_PACKET = SAMPLE_RATE * 120 // 1000
"""Samples; an Opus packet holds at most 120 ms (RFC 6716, 3.2.5)."""
COMPLEXITY = 5
"""Of 0 to 10. A frame takes 0.5 ms of one core, where 9, libopus' own choice, takes 0.7."""


class OpusDecoder:
    """Decodes one stream of packets, mono or stereo, to mono at 24 kHz."""

    def __init__(self) -> None:
        self._decoder = opuslib_next.Decoder(SAMPLE_RATE, 1)
        self._samples = np.empty(LONGEST_PACKET, np.float32)
        self._pointer = self._samples.ctypes.data_as(c_float_pointer)

    def decode(self, packet: bytes) -> npt.NDArray[np.float32]:
        """The samples of one packet, float32[n] with n at most 2880. Raises AudioError when it is no Opus.

        By libopus' function: the library's method goes through a Python list of the samples, which takes as long as the
        decoding does.
        """
        state = self._decoder.decoder_state
        count = libopus_decode_float(state, packet, len(packet), self._pointer, LONGEST_PACKET, 0)
        if count < 0:
            raise AudioError(f"The audio is not valid Opus: {opuslib_next.OpusError(count)}.")
        return self._samples[:count].copy()


class OpusEncoder:
    """Encodes speech, mono at 24 kHz, as packets of a fixed duration."""

    def __init__(self) -> None:
        self._encoder = opuslib_next.Encoder(SAMPLE_RATE, 1, "voip")
        self._encoder.complexity = COMPLEXITY

    @property
    def lookahead(self) -> int:
        """Samples at 24 kHz by which the sound comes later than it went in; a player leaves out as many at first."""
        return int(self._encoder.lookahead)

    def encode(self, samples: npt.NDArray[np.float32]) -> bytes:
        """One packet of float32[n], finite and within -1 to 1; n is 60, 120, 240, 480, 960 or 1440."""
        return bytes(self._encoder.encode_float(samples.tobytes(), len(samples)))
