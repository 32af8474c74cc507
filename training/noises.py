"""What sounds around a caller, made out of nothing: each kind as float32[count, samples] at 24 kHz, of unit power.

Every function takes a `torch.Generator`, whose device the sound is made on: the same seed gives the same sound. To
hear one at so many decibels of full scale, multiply by `10 ** (decibels / 20)`; music at -45 dB is soft. Training and
evaluation share them; evaluation has seeds of its own.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from core.engine.call import SAMPLE_RATE

Noise = Callable[[int, int, torch.Generator], Tensor]
CLICK_SECONDS = 0.02
SLOT = 240
"""Samples within which at most one click happens."""
CHORDS = ((0, 4, 7, 12), (5, 9, 12, 17), (7, 11, 14, 19), (9, 12, 16, 21), (2, 5, 9, 14), (4, 7, 11, 16))
"""Semitones of chords over a key's first note: tonic, subdominant, dominant, and the minor ones."""


def amplitude(decibels: Tensor) -> Tensor:
    """The factor of so many decibels."""
    factor: Tensor = 10 ** (decibels / 20)
    return factor


def uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """A random number for each row: float32[count, 1]."""
    return torch.empty(count, 1, device=generator.device).uniform_(low, high, generator=generator)


def unit(sound: Tensor) -> Tensor:
    """Each row with unit power; silence stays silence."""
    return sound / sound.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-9)


def white(count: int, samples: int, generator: torch.Generator) -> Tensor:
    """White noise."""
    return torch.randn(count, samples, device=generator.device, generator=generator)


def band(frequency: Tensor, low: Tensor | float, high: Tensor | float, order: int = 4) -> Tensor:
    """The response of a band pass with edges (-3 dB) in hertz, at each frequency: a Butterworth filter's magnitude."""
    above = (frequency.clamp(min=1e-3) / low) ** (2 * order)
    below = (frequency / high) ** (2 * order)
    return (above / (1 + above) / (1 + below)).sqrt()


def coloured(sound: Tensor, slope: Tensor | float, low: Tensor | float = 20.0, high: Tensor | float = 12e3) -> Tensor:
    """Sound whose power falls by `slope` powers of the frequency, within a band."""
    spectrum = torch.fft.rfft(sound)
    frequency = torch.linspace(0, SAMPLE_RATE / 2, spectrum.shape[1], device=sound.device)
    shape = (frequency.clamp(min=20) / 1000) ** (-slope / 2) * band(frequency, low, high)
    made: Tensor = torch.fft.irfft(spectrum * shape, n=sound.shape[1])
    return made


def wandering(count: int, samples: int, seconds: float, generator: torch.Generator) -> Tensor:
    """A slow random curve between 0 and 1, with a new value each so many seconds."""
    points = max(2, round(samples / SAMPLE_RATE / seconds) + 2)
    values = torch.rand(count, 1, points, device=generator.device, generator=generator)
    return torch.nn.functional.interpolate(values, samples, mode="linear", align_corners=True)[:, 0]


def steady(count: int, samples: int, generator: torch.Generator) -> Tensor:
    """A fan, a line: noise whose power falls by 0 to 2 powers of the frequency, chosen for each row."""
    return unit(coloured(white(count, samples, generator), uniform(count, 0, 2, generator)))


def clicks(count: int, samples: int, chance: Tensor, generator: torch.Generator) -> Tensor:
    """Short knocks. `chance`, float32[count, samples / SLOT], is how likely there is one in each slot."""
    device = generator.device
    happens = torch.rand(chance.shape, device=device, generator=generator) < chance
    strength = 0.3 + 0.7 * torch.rand(chance.shape, device=device, generator=generator)
    places = torch.randint(SLOT, chance.shape, device=device, generator=generator)
    places += SLOT * torch.arange(chance.shape[1], device=device)
    hits = torch.zeros(count, max(samples, chance.shape[1] * SLOT), device=device)
    hits = hits.scatter_(1, places, happens * strength)[:, :samples]
    length = int(CLICK_SECONDS * SAMPLE_RATE)
    decay = torch.exp(-torch.arange(length, device=device) / SAMPLE_RATE / uniform(count, 0.001, 0.004, generator))
    kernel = coloured(white(count, length, generator) * decay, 0.5, uniform(count, 200, 1500, generator), 9e3)
    whole = samples + length
    made: Tensor = torch.fft.irfft(torch.fft.rfft(hits, n=whole) * torch.fft.rfft(kernel, n=whole), n=whole)
    return made[:, :samples]


def typing(count: int, samples: int, generator: torch.Generator) -> Tensor:
    """Somebody types: bursts of 5 to 11 clicks a second, with rests between."""
    slots = -(-samples // SLOT)
    busy = wandering(count, slots * SLOT, 1.5, generator)[:, ::SLOT] > uniform(count, 0.2, 0.6, generator)
    keys = uniform(count, 5, 11, generator) * SLOT / SAMPLE_RATE
    return unit(clicks(count, samples, busy * keys, generator))


def music(count: int, samples: int, generator: torch.Generator) -> Tensor:
    """Soft music: a progression of four chords with bass and arpeggio, in half of the rows with drums."""
    device = generator.device
    time = torch.arange(samples, device=device) / SAMPLE_RATE
    beat = 60 / uniform(count, 66, 140, generator)
    key = 110 * 2 ** (torch.randint(12, (count, 1), device=device, generator=generator) / 12)
    order = torch.randint(len(CHORDS), (count, 4), device=device, generator=generator)
    chords = torch.tensor(CHORDS, device=device)[order]
    bright = uniform(count, 0.3, 0.8, generator)
    made = torch.zeros(count, samples, device=device)
    arpeggio = torch.randint(4, (count, 8), device=device, generator=generator)
    # Bass for each chord, a pad of three notes for each chord, and an arpeggio twice a beat.
    for voice, (beats, octave, loud) in enumerate(((4.0, 0.5, 0.8), *3 * ((4.0, 1.0, 0.35),), (0.5, 2.0, 0.6))):
        number = (time / (beats * beat)).long()
        since = time - number * beats * beat
        chord = (time / (4 * beat)).long() % 4
        note = arpeggio.gather(1, number % 8) if voice == 4 else torch.full_like(number, max(0, voice - 1))
        pitch = key * octave * 2 ** (chords.flatten(1).gather(1, 4 * chord + note) / 12)
        fading = torch.exp(-since / (0.9 * beats * beat)) * (since / 0.01).clamp(max=1)
        tone = sum(bright ** (h - 1) / h * torch.sin(2 * math.pi * h * pitch * since) for h in (1, 2, 3, 5))
        made += loud * fading * tone
    since = time % beat
    drums = torch.exp(-since / 0.05) * torch.sin(2 * math.pi * 60 * since) * 2
    drums = drums + torch.exp(-(time % (beat / 2)) / 0.02) * 0.4 * white(count, samples, generator)
    made += (uniform(count, 0, 1, generator) < 0.5) * drums
    return unit(made)


def murmur(count: int, samples: int, generator: torch.Generator) -> Tensor:
    """People too far away to be understood: noise of speech's spectrum, which comes and goes like syllables."""
    syllables = wandering(count, samples, 0.12, generator) ** 2 * wandering(count, samples, 1.5, generator)
    return unit(syllables * coloured(white(count, samples, generator), 1.0, 200, uniform(count, 1500, 3500, generator)))


def office(count: int, samples: int, generator: torch.Generator) -> Tensor:
    """An office: ventilation, murmur, keyboards and now and then a thing that is put down."""
    slots = -(-samples // SLOT)
    things = clicks(count, samples, torch.full((count, slots), 0.004, device=generator.device), generator)
    things = coloured(things, 1.0, 60, uniform(count, 1000, 4000, generator))
    air = unit(coloured(white(count, samples, generator), 1.5, 40, 4000))
    parts = (air, murmur(count, samples, generator), typing(count, samples, generator), unit(things))
    loud = [uniform(count, low, 1, generator) for low in (0.4, 0.0, 0.0, 0.0)]
    return unit(sum((level * part for level, part in zip(loud, parts, strict=True)), torch.zeros_like(air)))


def traffic(count: int, samples: int, generator: torch.Generator) -> Tensor:
    """A road: low noise that swells as cars pass by."""
    swell = 0.2 + wandering(count, samples, 2.5, generator) ** 2
    return unit(swell * coloured(white(count, samples, generator), 2.0, 30, uniform(count, 800, 3000, generator)))


def breath(count: int, samples: int, generator: torch.Generator) -> Tensor:
    """Breath and rubbing on a microphone, now and then."""
    comes = (wandering(count, samples, 0.3, generator) - 0.75).clamp(min=0)
    return unit(comes * coloured(white(count, samples, generator), uniform(count, 0, 2, generator), 100, 6000))


def hum(count: int, samples: int, generator: torch.Generator) -> Tensor:
    """The mains with harmonics, or a few steady tones."""
    device = generator.device
    time = torch.arange(samples, device=device) / SAMPLE_RATE
    mains = torch.where(uniform(count, 0, 1, generator) < 0.5, 50.0, 60.0)
    tones = uniform(count, 80, 980, generator)
    whistle = uniform(count, 0, 1, generator) < 0.4
    made = torch.zeros(count, samples, device=device)
    for harmonic in (1, 2, 3, 5):
        pitch = torch.where(whistle, tones * harmonic**0.6, mains * harmonic)
        made += uniform(count, 0, 1, generator) / harmonic * torch.sin(2 * math.pi * pitch * time)
    return unit(made)


def babble(sound: Tensor, generator: torch.Generator) -> Tensor:
    """Two to four other people, for each row of float32[batch, samples]: what other rows say, at other times."""
    batch, samples = sound.shape
    made = torch.zeros_like(sound)
    for voice in range(min(4, batch - 1)):
        row = 1 + int(torch.randint(max(1, batch - 1), (1,), device=generator.device, generator=generator))
        place = int(torch.randint(samples, (1,), device=generator.device, generator=generator))
        there = uniform(batch, 0, 1, generator) < (1.0 if voice < 2 else 0.5)
        made += there * sound.roll((row, place), dims=(0, 1))
    return unit(made)
