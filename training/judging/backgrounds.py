"""Sounds behind a caller that are nobody's speech: music, typing and an office."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.signal import butter, sosfilt

from core.engine.call import SAMPLE_RATE
from core.evaluation.speech import Samples

LENGTH_S = 20.0
"""A background is repeated after that."""
LEVELS_DB = {"music": -27.0, "typing": -30.0, "office": -27.0}
"""Root mean square of the whole sound, full scale 0 dB; speech has -24 dB."""
CHORDS = ((0, 4, 7, 11), (9, 12, 16, 19), (5, 9, 12, 16), (7, 11, 14, 17))
"""Semitones above the key: major seventh, relative minor, subdominant, dominant."""

Say = Callable[[str, int], Samples]
"""A text in the voice of a caller with a number."""


def background(kind: str, seed: int, say: Say) -> Samples:
    """A sound of its own for each seed, float32[480000] at 24 kHz. `say` speaks for the people of an office."""
    rng = np.random.default_rng(seed)
    sound = _office(rng, say) if kind == "office" else _MAKERS[kind](rng)
    level = np.sqrt((sound**2).mean())
    return np.asarray(np.clip(sound * 10 ** (LEVELS_DB[kind] / 20) / level, -0.9, 0.9), dtype=np.float32)


def _music(rng: np.random.Generator) -> Samples:
    """A piano-like instrument breaks four chords over a bass, with a soft drum."""
    sound = np.zeros(round(LENGTH_S * SAMPLE_RATE))
    beat = 60 / rng.uniform(80, 125)
    key = rng.uniform(50, 62)  # in MIDI numbers
    time = np.arange(round(1.5 * SAMPLE_RATE)) / SAMPLE_RATE
    for number in range(int((LENGTH_S - 2) / beat * 2)):
        at = round(number * beat / 2 * SAMPLE_RATE)
        chord = CHORDS[number // 8 % len(CHORDS)]
        pitches = [key + 12 + chord[int(rng.integers(len(chord)))]]
        pitches += [key - 12 + chord[0]] if number % 4 == 0 else []
        for pitch in pitches:
            frequency = 440 * 2 ** ((pitch - 69) / 12)
            tone = sum(
                np.sin(2 * np.pi * frequency * harmonic * time) * np.exp(-time * (2 + harmonic)) / harmonic
                for harmonic in range(1, 7)
            )
            sound[at : at + len(time)] += tone * np.minimum(1, time * 200)
        drum = rng.standard_normal(2400) * np.exp(-np.arange(2400) / 300)
        sound[at : at + 2400] += drum * (0.3 if number % 2 else 0.1)
    return sound.astype(np.float32)


def _typing(rng: np.random.Generator) -> Samples:
    """Keys in bursts of words; each is a click as it goes down and a softer one as it comes up."""
    count = round(LENGTH_S * SAMPLE_RATE)
    sound = np.zeros(count + 4 * SAMPLE_RATE)  # The last words may go on for so long.
    at = 0.1
    while at < LENGTH_S:
        for _ in range(int(rng.integers(3, 9))):
            for shift, loudness in ((0.0, 1.0), (rng.uniform(0.05, 0.09), 0.4)):
                begin = round((at + shift) * SAMPLE_RATE)
                length = round(rng.uniform(0.006, 0.015) * SAMPLE_RATE)
                click = rng.standard_normal(4 * length) * np.exp(-np.arange(4 * length) / length)
                sound[begin : begin + len(click)] += loudness * rng.uniform(0.5, 1) * click
            at += rng.uniform(0.09, 0.22)
        at += rng.uniform(0.15, 0.8)
    band = butter(2, (300, 6000), "bandpass", fs=SAMPLE_RATE, output="sos")
    return np.asarray(sosfilt(band, sound[:count]), dtype=np.float32)


def _office(rng: np.random.Generator, say: Say) -> Samples:
    """An air conditioner, and six people at the far end of an echoing room, of whom no word is understood."""
    count = round(LENGTH_S * SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequencies = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    air = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequencies, 40)), count)
    talk = np.zeros(count)
    for person in range(6):
        words = say("And so we said that it would be done by them if nobody else was there at all.", person)
        for at in range(
            int(rng.integers(0, SAMPLE_RATE)), count, len(words) + round(rng.uniform(0.5, 3) * SAMPLE_RATE)
        ):
            talk[at : at + len(words)] += words[: count - at]
    room = rng.standard_normal(round(0.7 * SAMPLE_RATE)) * np.exp(-np.arange(round(0.7 * SAMPLE_RATE)) / 4500)
    size = 2 * count
    echoed = np.fft.irfft(np.fft.rfft(talk, size) * np.fft.rfft(room, size), size)[:count]
    muffled = sosfilt(butter(2, 2500, fs=SAMPLE_RATE, output="sos"), echoed)
    return np.asarray(air / air.std() + muffled / muffled.std(), dtype=np.float32)


_MAKERS: Mapping[str, Callable[[np.random.Generator], Samples]] = {"music": _music, "typing": _typing}
