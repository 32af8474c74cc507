"""From one sample rate to another without moving sound in time, as `sphn.resample` does by up to 25 ms."""

import math

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

STEP = 50
"""Rates are rounded to multiples of so many Hz, that the filters stay short."""


def resample(pcm: npt.NDArray[np.float32], source: float, target: float) -> npt.NDArray[np.float32]:
    """float32[samples] at `source` Hz to float32[samples] at `target` Hz; what sounds at a second stays there."""
    up, down = round(target / STEP), round(source / STEP)
    shared = math.gcd(up, down)
    return np.asarray(resample_poly(pcm, up // shared, down // shared), dtype=np.float32)
