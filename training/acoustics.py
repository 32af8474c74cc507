"""Between a caller's lips and the codec: gain, rooms, noise, the agent's own echo, microphones and telephone lines.

Everything is batched over float32[batch, samples] at 24 kHz, on the device of the `torch.Generator` that decides; the
same seed gives the same sound. `around` is what training does; its parts are public, so that evaluation can have one
thing alone at a level of its choice: `echo(agent, delay, decibels, generator)`, `telephone(sound)`, `room(sound,
generator)`, and the noises of `training.noises`.
"""

import math
from collections.abc import Callable

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from core.engine.call import SAMPLE_RATE
from training.formants import stretched
from training.noises import (
    Noise,
    amplitude,
    babble,
    band,
    breath,
    hum,
    music,
    office,
    steady,
    traffic,
    typing,
    uniform,
    white,
)
from training.vocoding import vocoded

CLEAN = 0.4
"""The share of conversations in which the caller is heard as in a studio, but for the level, what is faint, the throat
and the vocoder."""
MUTED = 0.25
"""The share of callers whose microphone adds no noise of its own: most of these are perfectly silent between words."""
GAIN = (-20.0, 6.0)
"""Decibels by which callers' lines are louder than they were recorded."""
THROATS, THROAT = 0.4, (-0.17, 0.17)
"""The share of callers whose formants are others, and by which factor these are higher, as a natural logarithm."""
VOCODED = 0.25
"""The share of callers whom a vocoder speaks anew."""
FAINT = (-75.0, -50.0)
"""The noise of microphones, in decibels of full scale."""
NOISES: tuple[tuple[Noise, float, float, float], ...] = (
    (steady, 0.32, -35, -8),
    (music, 0.16, -35, -3),
    (typing, 0.10, -42, -20),
    (office, 0.10, -35, -12),
    (traffic, 0.07, -30, -8),
    (breath, 0.07, -35, -15),
    (hum, 0.06, -40, -18),
)
"""Kinds of noise: the share of the conversations that are not clean, and decibels beside the caller's voice."""
BABBLE, BABBLE_LEVEL = 0.12, (-35.0, -15.0)
ROOMS, TELEPHONES, DEVICES, CLIPPED, LOSSY = 0.45, 0.3, 0.3, 0.12, 0.12
"""Shares of the conversations that are not clean: rooms, telephone lines, other narrow bands, clipping, codecs."""
WORLDS = {
    "clean": CLEAN,
    "telephone": (1 - CLEAN) * TELEPHONES,
    "device": (1 - CLEAN) * DEVICES,
    "wide": (1 - CLEAN) * (1 - TELEPHONES - DEVICES),
}
"""Kinds of worlds, by the band that is heard, and their shares. All but `clean` may have rooms and noise."""
ECHOES = 0.35
"""The share of all conversations in which the agent hears itself."""
ECHO_LEVEL = (-30.0, -6.0)
ECHO_DELAY = (0.13, 0.38)
"""Seconds between the agent's codes and their echo. The engine's sound for a frame leaves when the caller's frame of
that number has come, so its echo begins a frame (0.08 s) later, and 0.05 to 0.3 s on its way."""
REVERBERATION = (0.15, 0.8)
"""Seconds in which a room's sound falls by 60 dB."""
DIRECT = (-3.0, 14.0)
"""Decibels of the direct sound over the reverberation."""
SPEECH = 0.08
"""The loudness of a voice, for callers who say nothing: -22 dB of full scale."""
_MU = 255.0


def loudness(sound: Tensor) -> Tensor:
    """The level of the voice of each row while it speaks, float32[batch, 1]; SPEECH where there is none."""
    active = sound.abs() > 0.002
    count = active.sum(dim=1, keepdim=True)
    level = ((sound.square() * active).sum(dim=1, keepdim=True) / count.clamp(min=1)).sqrt()
    return torch.where(count > 0, level, SPEECH)


def frequencies(bins: int, device: torch.device) -> Tensor:
    """The frequencies of a spectrum's bins in hertz."""
    return torch.linspace(0, SAMPLE_RATE / 2, bins, device=device)


def impulse_responses(count: int, generator: torch.Generator) -> Tensor:
    """Rooms: the direct sound, then noise that decays exponentially and loses its treble. float32[count, 0.8 s]."""
    length = int(REVERBERATION[1] * SAMPLE_RATE)
    time = torch.arange(length, device=generator.device) / SAMPLE_RATE
    lasts = uniform(count, *REVERBERATION, generator)
    begins = uniform(count, 0.001, 0.012, generator)
    tail = white(count, length, generator) * torch.exp(-math.log(1000) * time / lasts) * (time > begins)
    spectrum = torch.fft.rfft(tail)
    cut = uniform(count, 2500, 9000, generator)
    tail = torch.fft.irfft(spectrum * band(frequencies(spectrum.shape[1], tail.device), 60.0, cut, 1), n=length)
    wet = tail.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1e-9)
    tail = tail / wet / amplitude(uniform(count, *DIRECT, generator))
    tail[:, 0] += 1
    whole: Tensor = tail / tail.square().sum(dim=1, keepdim=True).sqrt()
    return whole


def room(sound: Tensor, generator: torch.Generator) -> Tensor:
    """Each row in a room of its own; the direct sound comes without delay."""
    responses = impulse_responses(len(sound), generator)
    whole = next_fast_len(sound.shape[1] + responses.shape[1], real=True)
    made: Tensor = torch.fft.irfft(torch.fft.rfft(sound, n=whole) * torch.fft.rfft(responses, n=whole), n=whole)
    return made[:, : sound.shape[1]]


def banded(sound: Tensor, low: Tensor | float, high: Tensor | float, order: int = 4) -> Tensor:
    """What a microphone or a line passes: the band between two frequencies (-3 dB), for all rows or each."""
    whole = next_fast_len(sound.shape[1], real=True)
    spectrum = torch.fft.rfft(sound, n=whole)
    made: Tensor = torch.fft.irfft(
        spectrum * band(frequencies(spectrum.shape[1], sound.device), low, high, order), n=whole
    )
    return made[:, : sound.shape[1]]


def telephone(sound: Tensor) -> Tensor:
    """A telephone line: 300 to 3400 Hz, at 8 kHz in 8 bits of mu-law (ITU-T G.711)."""
    third = next_fast_len(-(-sound.shape[1] // 3), real=True)
    spectrum = torch.fft.rfft(sound, n=3 * third)
    passed = band(frequencies(spectrum.shape[1], sound.device), 300.0, 3400.0, 10)
    kept = third // 2 + 1
    narrow = torch.fft.irfft((spectrum * passed)[:, :kept], n=third) / 3
    squeezed = torch.log1p(_MU * narrow.clamp(-1, 1).abs()) / math.log1p(_MU)
    squeezed = (squeezed * 127).round() / 127
    narrow = narrow.sign() * torch.expm1(squeezed * math.log1p(_MU)) / _MU
    wide = torch.zeros_like(spectrum)
    wide[:, :kept] = 3 * torch.fft.rfft(narrow, n=third)
    made: Tensor = torch.fft.irfft(wide, n=3 * third)
    return made[:, : sound.shape[1]]


def clipped(sound: Tensor, generator: torch.Generator) -> Tensor:
    """A microphone that is too loud: peaks are cut off at a sixth to two thirds of the loudest."""
    peak = sound.abs().amax(dim=1, keepdim=True).clamp(min=1e-4)
    most = peak * uniform(len(sound), 0.16, 0.66, generator)
    return sound.clamp(-most, most)


def lossy(sound: Tensor, generator: torch.Generator) -> Tensor:
    """A frugal codec: what is faint beside the loudest of its frame is gone, the rest a little wrong."""
    window = torch.hann_window(512, device=sound.device)
    spectrum = torch.stft(sound, 512, 128, window=window, return_complex=True)
    power = spectrum.abs()
    faint = power < power.amax(dim=1, keepdim=True) * amplitude(uniform(len(sound), -38, -24, generator))[:, :, None]
    wrong = 1 + 0.25 * torch.randn(power.shape, device=sound.device, generator=generator)
    return torch.istft(spectrum * wrong * ~faint, 512, 128, window=window, length=sound.shape[1])


def echo(agent: Tensor, delay: Tensor | float, decibels: Tensor | float, generator: torch.Generator) -> Tensor:
    """What the caller's microphone hears of the agent, float32[batch, samples], who sounds like `agent`.

    It comes `delay` seconds later, give or take 2 ms, out of a small loudspeaker and through a room, `decibels` (say,
    -10) louder than the agent is.
    """
    batch, samples = agent.shape
    driven = torch.where(uniform(batch, 0, 1, generator) < 0.3, torch.tanh(3 * agent) / 3, agent)
    low, high = uniform(batch, 80, 400, generator), uniform(batch, 2000, 9000, generator)
    coloured = banded(room(driven, generator), low, high, 2)
    wanted, made = (sound.square().mean(dim=1, keepdim=True).sqrt() for sound in (agent, coloured))
    coloured = coloured * wanted / made.clamp(min=1e-9)
    places = torch.arange(samples, device=agent.device)
    drift = torch.sin(2 * math.pi * (places / SAMPLE_RATE / 20 + uniform(batch, 0, 1, generator)))
    late = (SAMPLE_RATE * (delay + 0.002 * drift)).long()
    places = places - late
    return torch.where(places >= 0, coloured.gather(1, places.clamp(min=0)), 0) * 10 ** (decibels / 20)


def around(callers: Tensor, agents: Tensor, generator: torch.Generator, kinds: Tensor | None = None) -> Tensor:
    """What the agent hears of callers who speak as float32[batch, samples], each in a world of its own.

    `agents`, of the same shape, is what their loudspeakers play; rows of nothing but zeros give no echo. `kinds`,
    int64[batch], are the places of the worlds among WORLDS, drawn by their shares when left out.
    """
    batch = len(callers)

    def some(share: float) -> Tensor:
        return uniform(batch, 0, 1, generator)[:, 0] < share

    if kinds is None:
        shares = torch.tensor(tuple(WORLDS.values()), device=callers.device)
        kinds = torch.multinomial(shares, batch, replacement=True, generator=generator)
    clean, telephoned, narrow, _ = (kinds == kind for kind in range(len(WORLDS)))
    worldly = ~clean
    factors = uniform(batch, *THROAT, generator)[:, 0].exp()
    dry = callers * amplitude(uniform(batch, *GAIN, generator))
    dry = applied(dry, some(VOCODED), lambda part, _: vocoded(part, generator))
    dry = applied(dry, some(THROATS), lambda part, rows: stretched(part, factors[rows]))
    sound = applied(dry.clone(), worldly & some(ROOMS), lambda part, _: room(part, generator))
    beside = 20 * loudness(dry).log10()
    for kind, share, least, most in NOISES:
        level = amplitude(beside + uniform(batch, least, most, generator))
        sound = applied(sound, worldly & some(share), partly(kind, level, generator))
    sound = applied(sound, ~some(MUTED), partly(steady, amplitude(uniform(batch, *FAINT, generator)), generator))
    people = worldly & some(BABBLE)
    if batch > 1 and people.any():
        level = amplitude(beside + uniform(batch, *BABBLE_LEVEL, generator))
        sound += people[:, None] * level * babble(dry, generator)
    delay, level = uniform(batch, *ECHO_DELAY, generator), uniform(batch, *ECHO_LEVEL, generator)
    sound = applied(
        sound,
        (agents != 0).any(dim=1),
        lambda part, rows: part + echo(agents[rows], delay[rows], level[rows], generator),
    )
    sound = applied(sound, worldly & some(CLIPPED), lambda part, _: clipped(part, generator))
    sound = applied(sound, worldly & some(LOSSY), lambda part, _: lossy(part, generator))
    sound = applied(sound, telephoned, lambda part, _: telephone(part))
    low, high = uniform(batch, 60, 350, generator), uniform(batch, 3000, 9000, generator)
    sound = applied(sound, narrow, lambda part, rows: banded(part, low[rows], high[rows], 2))
    return sound.clamp(-1, 1)


def partly(kind: Noise, level: Tensor, generator: torch.Generator) -> Callable[[Tensor, Tensor], Tensor]:
    """Adds noise, at each row's level, float32[batch, 1], where it is applied."""
    return lambda part, rows: part + level[rows] * kind(len(part), part.shape[1], generator)


def applied(sound: Tensor, where: Tensor, effect: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`sound` with an effect on the rows of which `where`, bool[batch], is true; it gets these, and their numbers."""
    rows = where.nonzero()[:, 0]
    if len(rows):
        sound[rows] = effect(sound[rows], rows)
    return sound
