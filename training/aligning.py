"""When the words of a line begin, for synthesizers that do not say so: as in another one's reading of the same line.

Two readings of one text are laid upon each other by dynamic time warping of their mel spectra (Sakoe and Chiba 1978).
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from core.engine.call import SAMPLE_RATE
from core.evaluation.speech import Samples
from core.evaluation.voices import mel_filters

HOP, WINDOW, BANDS = 480, 1024, 40
"""Samples from one spectrum to the next (20 ms) and in each, and its mel bands."""
_DIAGONAL, _DOWN, _RIGHT = 0, 1, 2


def aligned(one: Samples, begins: tuple[float, ...], other: Samples) -> tuple[float, ...]:
    """The seconds of `other` at which there is what `one` has at the seconds `begins`.

    Both are float32[samples] at 24 kHz.
    """
    path = _path(_distances(_spectra(one), _spectra(other)))
    frames = np.searchsorted(path[:, 0], [round(second * SAMPLE_RATE / HOP) for second in begins])
    there = path[np.minimum(frames, len(path) - 1), 1] * HOP / SAMPLE_RATE
    return tuple(float(second) for second in there)


@cache
def _filters() -> npt.NDArray[np.float32]:
    """float32[BANDS, WINDOW // 2 + 1], the same for all lines of a process."""
    return mel_filters(WINDOW, BANDS)


def _spectra(sound: Samples) -> npt.NDArray[np.float32]:
    """Log mel spectra, float32[frames, BANDS], each band with mean 0 and deviation 1 over the line."""
    padded = np.pad(sound, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * np.hanning(WINDOW).astype(np.float32)
    mel = np.abs(np.fft.rfft(frames)) @ _filters().T
    logs = np.log(np.maximum(mel, 1e-3))
    spectra: npt.NDArray[np.float32] = ((logs - logs.mean(0)) / (logs.std(0) + 1e-3)).astype(np.float32)
    return spectra


def _distances(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Between all spectra of one line and of the other, float32[frames, other's frames]."""
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * one @ other.T
    distances: npt.NDArray[np.float32] = np.sqrt(np.maximum(squares, 0))
    return distances


def _path(distances: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The cheapest way from one corner to the other, int64[steps, 2], computed diagonal by diagonal."""
    rows, columns = distances.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    came = np.zeros((rows + 1, columns + 1), dtype=np.int8)
    for diagonal in range(2, rows + columns + 1):
        row = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        column = diagonal - row
        ways = np.stack([total[row - 1, column - 1], total[row - 1, column], total[row, column - 1]])
        best = ways.argmin(0)
        total[row, column] = ways[best, np.arange(len(row))] + distances[row - 1, column - 1]
        came[row, column] = best
    path, place = [], (rows, columns)
    while place[0] and place[1]:
        path.append((place[0] - 1, place[1] - 1))
        way = came[place]
        place = place[0] - (way in (_DIAGONAL, _DOWN)), place[1] - (way in (_DIAGONAL, _RIGHT))
    return np.array(path[::-1])
