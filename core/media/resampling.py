"""Changes the sample rate of a live stream, piece by piece, with a short delay that never varies.

For whole files soxr is the better tool. Its stream works in blocks of an FFT, so it holds back 5 to 40 ms (at its low
quality) or 12 to 73 ms (at its high one), and gives its pieces unevenly; a telephone wants 160 samples every 20 ms.
"""

import math

import numpy as np
import numpy.typing as npt

HALF_WIDTH_S = 0.0025
"""Half the length of the filter, and so its delay."""
ATTENUATION_BETA = 7.0
"""Kaiser's beta: what would alias is 70 dB down (Kaiser and Schafer, 1980)."""
CUTOFF = 0.9
"""The middle of the filter's edge, as a part of the lower rate's band: 3.6 of the telephone's 4 kHz."""


class Resampler:
    """One direction of one stream: float32[n] at one rate becomes float32[n * to_rate / from_rate] at another.

    The samples are spread out to the rates' common multiple, go through a windowed-sinc low-pass filter, and every
    so-manieth is kept. What the filter needs of the last piece is carried over, so that the edges of pieces are not
    heard. A piece whose length times the ratio is a whole number gives exactly that many samples.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        """Rates in Hz. Equal ones pass the samples through as they are."""
        common = math.gcd(from_rate, to_rate)
        self._up, self._down = to_rate // common, from_rate // common
        self._kernel = _low_pass(from_rate * self._up, min(from_rate, to_rate)) * np.float32(self._up)
        self._before: npt.NDArray[np.float32] = np.zeros(len(self._kernel) - 1, np.float32)
        self._skip = 0
        """How many samples at the common rate lie before the next one that is kept."""

    def resample(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The next piece of the stream."""
        if self._up == self._down or not len(samples):
            return samples
        spread = np.zeros(len(self._before) + len(samples) * self._up, np.float32)
        spread[: len(self._before)] = self._before
        spread[len(self._before) :: self._up] = samples
        self._before = spread[-len(self._before) :].copy()
        filtered = np.convolve(spread, self._kernel, "valid")
        kept: npt.NDArray[np.float32] = filtered[self._skip :: self._down].astype(np.float32)
        self._skip = (self._skip - len(filtered)) % self._down
        return kept


def _low_pass(rate: int, lower_rate: int) -> npt.NDArray[np.float32]:
    """The coefficients of a linear-phase low-pass filter at `rate` that passes the band of `lower_rate`."""
    half = round(HALF_WIDTH_S * rate)
    cutoff = CUTOFF * lower_rate / rate
    window = np.kaiser(2 * half + 1, ATTENUATION_BETA)
    kernel = np.sinc(cutoff * np.arange(-half, half + 1)) * window
    coefficients: npt.NDArray[np.float32] = (kernel / kernel.sum()).astype(np.float32)
    return coefficients
