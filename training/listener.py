"""A listener who learns from real speech which phonemes are said, and then has to understand what a codec makes of it.

Mel distances weigh every band and moment alike; what tells one word from another is a small part of them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.evaluation.voices import mel_filters
from training.pool import LABEL_SAMPLES
from training.spectra import FLOOR, features_apart, frozen, mel_spectrum

WINDOW, BANDS, HOP = 1024, 80, LABEL_SAMPLES // 2
"""The spectrogram it hears: samples to a window, mel bands, and samples from one window to the next."""
WIDTH, KERNEL, LAYERS = 256, 5, 5
"""Channels, taps and number of its convolutions, the second of which halves the rate. A label is told from 0.36 s."""


class Listener(nn.Module):
    """A phoneme recogniser of 1.4 M parameters: convolutions over a mel spectrogram."""

    filters: Tensor
    hann: Tensor

    def __init__(self, phones: int) -> None:
        super().__init__()
        self.register_buffer("filters", torch.from_numpy(mel_filters(WINDOW, BANDS)), persistent=False)
        self.register_buffer("hann", torch.hann_window(WINDOW), persistent=False)
        layers = []
        for number in range(LAYERS):
            stride = 2 if number == 1 else 1
            convolution = nn.Conv1d(WIDTH if number else BANDS, WIDTH, KERNEL, stride, padding=KERNEL // 2)
            layers.append(nn.Sequential(convolution, nn.GroupNorm(8, WIDTH), nn.GELU()))
        self.layers = nn.ModuleList(layers)
        self.phones = nn.Conv1d(WIDTH, phones, 1)

    def forward(self, sound: Tensor) -> tuple[Tensor, list[Tensor]]:
        """float32[batch, samples] -> logits, float32[batch, phones, samples / 480], and every layer's features."""
        mel = mel_spectrum(sound, self.hann, self.filters, HOP)[..., 1:]  # Every second stands amid a label.
        x = mel.clamp(min=FLOOR).log() / 2 + 2  # About zero, and of about unit size.
        features = []
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.device.type == "cuda", cache_enabled=False):
            for layer in self.layers:
                x = layer(x)
                features.append(x)
            return self.phones(x).float(), features


def listen(listener: Listener, real: Tensor, made: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What a listener learns from real sound, float32[batch, samples], and a codec from how its copy is heard.

    `labels` are the phonemes of the real sound, int64[batch, samples / 480]. Of the losses, `listener` is the
    listener's own. The others move only what made the copy: `misheard`, cross-entropy of the same labels, and `unlike`,
    how far the copy's features are from those of the real sound.
    """
    logits, features = listener(real)
    with frozen(listener):
        made_logits, made_features = listener(made)
    return {
        "listener": F.cross_entropy(logits, labels),
        "misheard": F.cross_entropy(made_logits, labels),
        "unlike": features_apart(features, made_features),
    }
