"""Other throats for the voices that there are: formants moved without the pitch, by a filter for each moment.

A synthesizer's voices are few, and to raise one as a whole, as resampling does, moves pitch and formants together. Here
the spectrum's envelope, found by cepstral liftering (Oppenheim and Schafer), is stretched along the frequency, as in
vocal tract length perturbation (Jaitly and Hinton, 2013), and the sound filtered to have it; harmonics stay in place.
"""

import torch
from torch import Tensor

WINDOW, HOP = 1024, 256
LIFTERED = 56
"""Quefrencies in samples at 24 kHz that are the envelope's: less than a period of any pitch below 430 Hz."""
MOST = 2.3
"""By how much a filter may raise or lower anything, in nepers: 20 dB."""
FAINT = 1e-4
"""The magnitude under which there is nothing to be found."""


def stretched(sound: Tensor, factors: Tensor) -> Tensor:
    """float32[batch, samples], each row's formants `factors`, float32[batch], times as high; as long and as loud."""
    window = torch.hann_window(WINDOW, device=sound.device)
    spectrum = torch.stft(sound, WINDOW, HOP, window=window, return_complex=True)
    envelope = envelope_of(spectrum.abs())
    bins = envelope.shape[1]
    places = torch.arange(bins, device=sound.device) / factors[:, None]
    below = places.long().clamp(max=bins - 2)
    share = (places - below).clamp(0, 1)[..., None]
    wide = (-1, -1, envelope.shape[2])
    moved = torch.lerp(
        envelope.gather(1, below[..., None].expand(*wide)),
        envelope.gather(1, (below + 1)[..., None].expand(*wide)),
        share,
    )
    filtered = spectrum * (moved - envelope).clamp(-MOST, MOST).exp()
    return as_loud(torch.istft(filtered, WINDOW, HOP, window=window, length=sound.shape[1]), sound)


def as_loud(made: Tensor, sound: Tensor) -> Tensor:
    """float32[batch, samples], each row with the power that it has in `sound`."""
    power, before = made.square().mean(dim=1, keepdim=True), sound.square().mean(dim=1, keepdim=True)
    return made * (before / power.clamp(min=1e-12)).sqrt()


def envelope_of(magnitude: Tensor) -> Tensor:
    """The smooth part of the logarithm of float32[batch, bins, time]."""
    cepstrum = torch.fft.irfft(magnitude.clamp(min=FAINT).log(), dim=1)
    cepstrum[:, LIFTERED : cepstrum.shape[1] - LIFTERED + 1] = 0
    smooth: Tensor = torch.fft.rfft(cepstrum, dim=1).real
    return smooth
