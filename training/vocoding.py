"""Other synthesizers for the voices that there are: a sound's envelope, spoken anew by pulses and noise.

Voices differ by more than throat and pitch. A vocoder, as in the statistical synthesizers and in narrow-band telephony,
keeps the envelope of the spectrum alone and drives it with a train of pulses where a voice has a pitch, and with noise
elsewhere (Dudley, "Remaking speech", 1939). The pitch is where the cepstrum peaks (Noll, 1967), and need not be the
same in the copy.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from core.engine.call import SAMPLE_RATE
from training.formants import FAINT, HOP, WINDOW, as_loud, envelope_of
from training.noises import uniform, white

PITCHES = (65.0, 420.0)
"""Hertz: the pitches that are looked for."""
VOICED = 0.1
"""The height of a peak of the cepstrum, in nepers, from which on there is a pitch."""
MEDIAN = 7
"""Frames among which a pitch is the median, against leaps by an octave."""
RAISED, FLATTENED, WHISPERED = 0.35, 0.5, 0.06
"""By how much a pitch is raised or lowered, as a natural logarithm, at most; how flat the melody of the flattest
is; and the share of those who whisper."""


def vocoded(sound: Tensor, generator: torch.Generator) -> Tensor:
    """float32[batch, samples] spoken anew, each row at a pitch and with a melody of its own; as long and as loud."""
    batch, samples = sound.shape
    window = torch.hann_window(WINDOW, device=sound.device)
    magnitude = torch.stft(sound, WINDOW, HOP, window=window, return_complex=True).abs()
    period, voiced = pitch_of(magnitude)
    voiced &= uniform(batch, 0, 1, generator) >= WHISPERED
    count = voiced.sum(dim=1, keepdim=True).clamp(min=1)
    usual = ((period.log() * voiced).sum(dim=1, keepdim=True) / count).exp()
    flat = uniform(batch, 0, FLATTENED, generator)
    raised = uniform(batch, -RAISED, RAISED, generator).exp()
    pitch = SAMPLE_RATE / (period ** (1 - flat) * usual**flat) * raised
    pulses = pulse_train(by_sample(pitch, samples))
    hoarse = by_sample(1 - voiced.float(), samples)
    driven = pulses * (1 - hoarse) + white(batch, samples, generator) * hoarse
    excitation = torch.stft(driven, WINDOW, HOP, window=window, return_complex=True)
    made = excitation * envelope_of(magnitude).exp()
    return as_loud(torch.istft(made, WINDOW, HOP, window=window, length=samples), sound)


def pitch_of(magnitude: Tensor) -> tuple[Tensor, Tensor]:
    """Periods in samples and whether there are any, each `[batch, time]`, of a spectrum's `[batch, bins, time]`."""
    shortest, longest = (round(SAMPLE_RATE / pitch) for pitch in reversed(PITCHES))
    cepstrum = torch.fft.irfft(magnitude.clamp(min=FAINT).log(), dim=1)[:, shortest : longest + 1]
    height, place = cepstrum.max(dim=1)
    loud = magnitude.square().mean(dim=1)
    loud = loud > 1e-3 * loud.amax(dim=1, keepdim=True)
    period = F.pad((place + shortest).float()[:, None], (MEDIAN // 2, MEDIAN // 2), mode="replicate")[:, 0]
    return period.unfold(1, MEDIAN, 1).median(dim=2).values, (height > VOICED) & loud


def by_sample(values: Tensor, samples: int) -> Tensor:
    """`[batch, time]` of a spectrum's frames as `[batch, samples]`, on straight lines between them."""
    return F.interpolate(values[:, None], size=samples, mode="linear", align_corners=True)[:, 0]


def pulse_train(pitch: Tensor) -> Tensor:
    """A pulse at the begin of each period, of unit power on average; `pitch` is float32[batch, samples] in hertz."""
    turns = (pitch.double() / SAMPLE_RATE).cumsum(dim=1).floor()
    begins = F.pad(turns.diff(dim=1), (1, 0)) > 0
    return begins * (SAMPLE_RATE / pitch).sqrt()
