"""What evaluation measures, on plain sound and text."""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from core.engine.call import FRAME_S, FRAME_SAMPLES, SAMPLE_RATE
from core.engine.spoken_numbers import spell_numbers
from training.spectra import mel_filters
from training.teachers import Samples

Activity = npt.NDArray[np.bool_]
"""For each frame of 80 ms, whether somebody speaks."""

LOUD = 0.01
"""Root mean square of a frame in which somebody speaks: 19 dB below the common loudness of speech."""
EARLY_S = 0.3
"""An answer may begin so long before the caller's last sound has died away."""
OVERLAP_S = 0.24
"""So much speech of the agent within the caller's is no talking over: an end that overlaps, a short sound."""
WINDOW, BANDS = 1024, 40
"""Of the mel spectrum that tells voices apart."""
PITCH_WINDOW = 1200
LAGS = (60, 400)
"""Samples of a pitch period: 400 Hz down to 60 Hz."""
PERIODIC = 0.5
"""Autocorrelation from which on a piece of sound has a pitch."""

SPELLINGS = {"ok": "okay", "mr": "mister", "mrs": "missis", "dr": "doctor", "til": "until", "goodbye": "good bye"}


def words_of(text: str) -> list[str]:
    """The words of a text as they sound: small, numbers spelt out, no marks."""
    text = re.sub(r"\b([ap])\.m\b\.?", r"\1m", text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").replace("-", " "))
    spoken = re.findall(r"[a-z0-9']+", spell_numbers(text).lower())
    return " ".join(SPELLINGS.get(word, word) for word in spoken).split()


def word_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """How many words must be put in, taken out or replaced to make what was heard out of what was said."""
    row = list(range(len(heard) + 1))
    for number, word in enumerate(said, 1):
        above = row
        row = [number]
        for column, other in enumerate(heard, 1):
            row.append(min(above[column] + 1, row[-1] + 1, above[column - 1] + (word != other)))
    return row[-1]


def mentions(text: str, name: str) -> bool:
    """Whether a text holds a name, word for word."""
    return f" {' '.join(words_of(name))} " in f" {' '.join(words_of(text))} "


def activity(pcm: Samples) -> Activity:
    """In which frames somebody speaks. What is loud for one frame only is a click; a rest of a frame is left out."""
    frames = pcm[: len(pcm) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    loud = np.sqrt((frames**2).mean(axis=1)) > LOUD
    beside = np.zeros_like(loud)
    beside[1:] |= loud[:-1]
    beside[:-1] |= loud[1:]
    active: Activity = loud & beside
    return active


def stretches(active: Activity, gap_s: float) -> list[tuple[int, int]]:
    """Where somebody speaks, as frames (begin, end); pauses shorter than `gap_s` are part of it."""
    found: list[tuple[int, int]] = []
    for frame in np.flatnonzero(active).tolist():
        if found and (frame - found[-1][1]) * FRAME_S < gap_s:
            found[-1] = found[-1][0], frame + 1
        else:
            found.append((frame, frame + 1))
    return found


def answer_delay(active: Activity, end: int, until: int) -> float | None:
    """Seconds from the caller's end, frame `end`, to where the agent begins to speak, before frame `until`.

    None where it does not, also where it has been speaking all along.
    """
    first = max(1, end - round(EARLY_S / FRAME_S))
    for frame in range(first, min(until, len(active))):
        if active[frame] and not active[frame - 1]:
            return max(0.0, (frame - end) * FRAME_S)
    return None


def is_talked_over(active: Activity, begin: int, end: int) -> bool:
    """Whether the agent speaks while the caller does, from frame `begin` to `end`."""
    return float(active[begin:end].sum()) * FRAME_S > OVERLAP_S


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
    sound = torch.from_numpy(pcm.astype(np.float32))
    spectrum = torch.stft(sound, WINDOW, WINDOW // 4, window=torch.hann_window(WINDOW), return_complex=True).abs()
    loud = spectrum[:, spectrum.pow(2).mean(dim=0).sqrt() > LOUD * (WINDOW * 3 / 8) ** 0.5]
    if not loud.shape[1]:
        return np.zeros(BANDS)
    logs = (mel_filters(WINDOW, BANDS) @ loud).clamp(min=1e-3).log().mean(dim=1).double().numpy()
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
