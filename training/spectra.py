"""How far apart two sounds are: mel spectra at several scales, and discriminators that learn to tell them apart.

The discriminators are EnCodec's of complex spectra (arXiv 2210.13438) and HiFi-GAN's of periods (arXiv 2010.05646),
both narrower.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from core.evaluation.voices import mel_filters

SAMPLE_RATE = 24_000
SCALES = ((128, 8), (256, 16), (512, 40), (1024, 80), (2048, 160), (4096, 320))
"""Window lengths, and how many mel bands each resolves. The longest tells a voice's harmonics apart up to 4 kHz."""
FLOOR = 1e-4


def mel_spectrum(sound: Tensor, hann: Tensor, filters: Tensor, hop: int) -> Tensor:
    """Magnitudes of float32[batch, samples], float32[batch, bands, 1 + samples // hop], number n around n * hop."""
    window = len(hann)
    spectrum = torch.stft(sound, window, hop, window=hann, return_complex=True, center=True)
    magnitude = (spectrum.real**2 + spectrum.imag**2 + 1e-9).sqrt() / window**0.5
    return torch.einsum("bft,mf->bmt", magnitude, filters)


class MelDistance(nn.Module):
    """Mean absolute difference of magnitudes and of log magnitudes, over all scales."""

    def __init__(self) -> None:
        super().__init__()
        for window, bands in SCALES:
            self.register_buffer(f"filters_{window}", torch.from_numpy(mel_filters(window, bands)), persistent=False)
            self.register_buffer(f"hann_{window}", torch.hann_window(window), persistent=False)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """float32[batch, samples] each -> a number."""
        total = one.new_zeros(())
        for window, _ in SCALES:
            a, b = self._mel(one, window), self._mel(other, window)
            logs = (a.clamp(min=FLOOR).log() - b.clamp(min=FLOOR).log()).abs().mean()
            total = total + logs + 2.0 * (a - b).abs().mean() / b.mean().clamp(min=1e-3)
        return total / len(SCALES)

    def _mel(self, sound: Tensor, window: int) -> Tensor:
        hann, filters = getattr(self, f"hann_{window}"), getattr(self, f"filters_{window}")
        return mel_spectrum(sound, hann, filters, window // 4)


LOUDNESS = 0.085
"""Root of the mean square of what the judges hear, about: that of the teachers' lines. They hear it at unit power."""


def wide_awake(judge: nn.Module) -> None:
    """Give a judge's convolutions weights that keep the power of what they pass on (He et al., arXiv 1502.01852).

    With PyTorch's own each passes on a third: a verdict then hardly depends on the sound, and takes thousands of steps
    to, while the one who is judged goes on as if nobody listened.
    """
    for module in judge.modules():
        if isinstance(module, nn.Conv2d):
            module.weight = torch.randn_like(module.weight) * (2 / module.weight[0].numel()) ** 0.5
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class ScaleDiscriminator(nn.Module):
    """Looks at one complex spectrogram: convolutions that widen in time, strided over frequency."""

    hann: Tensor

    def __init__(self, window: int, channels: int = 32) -> None:
        super().__init__()
        self.window = window
        self.register_buffer("hann", torch.hann_window(window), persistent=False)
        layers = [weight_norm(nn.Conv2d(2, channels, (3, 9), padding=(1, 4)))]
        for dilation in (1, 2, 4):
            layers.append(
                weight_norm(
                    nn.Conv2d(channels, channels, (3, 9), stride=(1, 2), dilation=(dilation, 1), padding=(dilation, 4))
                )
            )
        layers.append(weight_norm(nn.Conv2d(channels, channels, (3, 3), padding=(1, 1))))
        self.layers = nn.ModuleList(layers)
        self.judge = weight_norm(nn.Conv2d(channels, 1, (3, 3), padding=(1, 1)))

    def forward(self, sound: Tensor) -> tuple[Tensor, list[Tensor]]:
        """float32[batch, samples] -> the verdict's map, and every layer's features."""
        spectrum = torch.stft(
            sound.float(), self.window, self.window // 4, window=self.hann, normalized=True, return_complex=True
        )
        # Channels last in memory, as the GPU's convolutions of 16 bits want them.
        x = torch.view_as_real(spectrum).permute(0, 3, 2, 1).contiguous(memory_format=torch.channels_last)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.judge(x), features


class PeriodDiscriminator(nn.Module):
    """Looks at every `period`-th sample: convolutions along time, strided, the same for each phase of the period."""

    def __init__(self, period: int, channels: tuple[int, ...] = (32, 64, 128, 256)) -> None:
        super().__init__()
        self.period = period
        widths = pairwise((1, *channels))
        layers = [weight_norm(nn.Conv2d(one, other, (5, 1), stride=(3, 1), padding=(2, 0))) for one, other in widths]
        layers.append(weight_norm(nn.Conv2d(channels[-1], channels[-1], (5, 1), padding=(2, 0))))
        self.layers = nn.ModuleList(layers)
        self.judge = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, sound: Tensor) -> tuple[Tensor, list[Tensor]]:
        """float32[batch, samples] -> the verdict's map, and every layer's features."""
        samples = sound.shape[1] // self.period * self.period
        x = sound[:, :samples].reshape(len(sound), 1, -1, self.period).contiguous(memory_format=torch.channels_last)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            features.append(x)
        return self.judge(x), features


class Discriminators(nn.Module):
    """One for each window of a spectrum, and one for each period."""

    def __init__(
        self, windows: tuple[int, ...] = (512, 1024, 2048), periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    ) -> None:
        super().__init__()
        self.scales = nn.ModuleList(ScaleDiscriminator(window) for window in windows)
        self.periods = nn.ModuleList(PeriodDiscriminator(period) for period in periods)
        wide_awake(self)

    def forward(self, sound: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        sound = sound / LOUDNESS
        return [judge(sound) for judge in (*self.scales, *self.periods)]


def discriminator_loss(real: list[tuple[Tensor, list[Tensor]]], fake: list[tuple[Tensor, list[Tensor]]]) -> Tensor:
    """The hinge: real above one, made below minus one."""
    losses = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for (r, _), (f, _) in zip(real, fake, strict=True)]
    return torch.stack(losses).mean()


def generator_losses(
    real: list[tuple[Tensor, list[Tensor]]], fake: list[tuple[Tensor, list[Tensor]]]
) -> tuple[Tensor, Tensor]:
    """How far the made is from passing, and how far its features are from the real one's."""
    adversarial = torch.stack([F.relu(1 - f).mean() for f, _ in fake]).mean()
    matching = [features_apart(reals, fakes) for (_, reals), (_, fakes) in zip(real, fake, strict=True)]
    return adversarial, torch.stack(matching).mean()


def features_apart(real: Iterable[Tensor], made: Iterable[Tensor]) -> Tensor:
    """How far every layer's features of made sound are from those of real sound, as a share of the latter."""
    apart = [
        (m - r.detach()).abs().mean() / r.detach().abs().mean().clamp(min=1e-3) for r, m in zip(real, made, strict=True)
    ]
    return torch.stack(apart).mean()


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """What is computed inside teaches what is given to the module, and not the module."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
