"""Which voice is heard: by pitch and spectrum."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from core.engine.call import SAMPLE_RATE
from core.evaluation.speech import LOUD, Samples

WINDOW, BANDS = 1024, 40
"""Of the mel spectrum that tells voices apart."""
PITCH_WINDOW = 1200
LAGS = (60, 400)
"""Samples of a pitch period: 400 Hz down to 60 Hz."""
PERIODIC = 0.5
"""Autocorrelation from which on a piece of sound has a pitch."""


def mel_filters(window: int, bands: int) -> npt.NDArray[np.float32]:
    """Triangles, evenly spaced on the mel scale from 0 Hz to the Nyquist frequency: float32[bands, window // 2 + 1]."""
    top = 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    bins = np.linspace(0, SAMPLE_RATE / 2, window // 2 + 1)
    rows = []
    for (low, middle), (_, high) in pairwise(pairwise(edges.tolist())):
        width = SAMPLE_RATE / window
        rising = (bins - low) / max(middle - low, width)
        falling = (high - bins) / max(high - middle, width)
        rows.append(np.minimum(rising, falling).clip(min=0))
    filters = np.stack(rows)
    return np.asarray(filters / filters.sum(axis=1, keepdims=True).clip(min=1e-6), dtype=np.float32)


def median_pitch(pcm: Samples) -> float:
    """Hz, float64; NaN where nothing has a pitch."""
    pieces = np.lib.stride_tricks.sliding_window_view(pcm, PITCH_WINDOW)[:: PITCH_WINDOW // 2]
    pieces = pieces[np.sqrt((pieces**2).mean(axis=1)) > LOUD]
    if not len(pieces):
        return float("nan")
    pieces = pieces - pieces.mean(axis=1, keepdims=True)
    spectrum = np.fft.rfft(pieces, 2 * PITCH_WINDOW)
    likeness = np.fft.irfft(np.abs(spectrum) ** 2)[:, : LAGS[1]]
    likeness /= likeness[:, :1]
    lags = likeness[:, LAGS[0] :].argmax(axis=1) + LAGS[0]
    voiced = likeness[np.arange(len(lags)), lags] > PERIODIC
    return float(np.median(SAMPLE_RATE / lags[voiced])) if voiced.any() else float("nan")


def mean_spectrum(pcm: Samples) -> npt.NDArray[np.float64]:
    """The mean logarithmic mel spectrum of what is loud, float64[40], level with zero; zeros where all is silent."""
    padded = np.pad(pcm, WINDOW // 2, mode="reflect")
    pieces = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[:: WINDOW // 4]
    spectrum = np.abs(np.fft.rfft(pieces * np.hanning(WINDOW + 1)[:-1]))
    loud = spectrum[np.sqrt((spectrum**2).mean(axis=1)) > LOUD * (WINDOW * 3 / 8) ** 0.5]
    if not len(loud):
        return np.zeros(BANDS)
    logs = np.log((loud @ mel_filters(WINDOW, BANDS).T).clip(min=1e-3)).mean(axis=0)
    return np.asarray(logs - logs.mean())


def told_apart(voices: Sequence[str], recordings: Sequence[Samples]) -> float | None:
    """The share of recordings that are nearest to their own voice's others, by pitch and spectrum alike.

    None with fewer than two voices, or where a voice has one recording only.
    """
    names = np.array(voices)
    kinds, counts = np.unique(names, return_counts=True)
    if len(kinds) < 2 or counts.min() < 2:
        return None
    pitches = np.nan_to_num(np.log([median_pitch(pcm) for pcm in recordings]))
    spectra = np.stack([mean_spectrum(pcm) for pcm in recordings])
    features = np.concatenate([pitches[:, None], spectra], axis=1)
    features = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-9)
    features[:, 0] *= BANDS**0.5
    right = 0
    for row, name in enumerate(names):
        others = np.arange(len(names)) != row
        means = np.stack([features[others & (names == kind)].mean(axis=0) for kind in kinds])
        right += kinds[np.linalg.norm(means - features[row], axis=1).argmin()] == name
    return float(right / len(names))
