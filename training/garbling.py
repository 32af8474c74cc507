"""Speech that nobody understands, so that an agent learns to ask again. Sound is float32[samples]."""

import random

import numpy as np

from core.engine.call import SAMPLE_RATE
from core.evaluation.speech import Samples

SIGNAL_TO_NOISE = (-3.0, 3.0)
"""Decibels of the speech over the noise that drowns it."""
MUFFLED = 400.0
"""Hertz above which a wall lets nothing through."""
SYLLABLE = 0.12
"""Seconds of speech that come or are lost as a whole."""


def garbled(sound: Samples, other: Samples, rng: random.Random) -> Samples:
    """Speech made unintelligible in one of five ways, one of them `other` speech at the same time."""
    ways = (
        lambda: drowned(sound, rng),
        lambda: sound[::-1],
        lambda: muffled(sound),
        lambda: torn(sound, rng),
        lambda: crossed(sound, other),
    )
    return rng.choice(ways)()


def drowned(sound: Samples, rng: random.Random) -> Samples:
    """In a noise as loud as the voice."""
    noise = np.random.default_rng(rng.randrange(2**32)).standard_normal(len(sound), dtype=np.float32)
    noise = (noise + np.roll(noise, 1) + np.roll(noise, 2)) / np.float32(1.75)
    level = np.sqrt(np.mean(np.square(sound))) / 10 ** (rng.uniform(*SIGNAL_TO_NOISE) / 20)
    return sound + np.float32(level) * noise


def muffled(sound: Samples) -> Samples:
    """Through a wall."""
    spectrum = np.fft.rfft(sound)
    frequency = np.linspace(0, SAMPLE_RATE / 2, len(spectrum))
    return np.fft.irfft(spectrum / (1 + (frequency / MUFFLED) ** 6), n=len(sound)).astype(np.float32)


def torn(sound: Samples, rng: random.Random) -> Samples:
    """With more than half of it lost on the way."""
    length = int(SYLLABLE * SAMPLE_RATE)
    comes = np.array([rng.random() < 0.4 for _ in range(-(-len(sound) // length))], dtype=np.float32)
    return sound * np.repeat(comes, length)[: len(sound)]


def crossed(sound: Samples, other: Samples) -> Samples:
    """At the same time as somebody as loud."""
    level = np.sqrt(np.mean(np.square(sound)) / max(1e-9, float(np.mean(np.square(other)))))
    return sound + np.resize(other, len(sound)) * np.float32(level)
