"""A decoder for Mimi's codes that makes spectra instead of samples: no layer of it upsamples sound by a stride.

Strided transposed convolutions, by which Mimi's own decoder comes from 25 Hz to 24 kHz, leave tones at multiples of
their rates (Pons et al., "Upsampling artifacts in neural audio synthesis", ICASSP 2021). This one does as Vocos does
(arXiv 2306.00814): a transformer at the rate of frames, ConvNeXt blocks at the rate of the spectra, magnitudes and
phases of overlapping windows, and the inverse Fourier transform of these.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from moshi.models.compression import MimiModel
from moshi.modules.transformer import ProjectedTransformer
from torch import Tensor, nn

from core.engine.call import FRAME_SAMPLES
from core.errors import CheckpointError

SECTION = "spectral"
"""The key of Mimi's config for a decoder's `SpectralShape`. A codec without it has Mimi's own decoder."""

LOUDEST = math.log(100.0)
"""The largest log magnitude; a sine of amplitude 1 has log 7.7 in the orthonormal transform of 960 samples."""
QUIET = -3.0
"""Log magnitudes before any training."""


@dataclass(frozen=True)
class SpectralShape:
    """The sizes of a `SpectralNetwork`.

    - `latent`: channels of the quantizer's output;
    - `dim`, `layers`, `heads`, `feedforward`, `context`: the transformer's, `context` in frames of 80 ms;
    - `blocks`, `hidden`, `kernel`: the ConvNeXt blocks', `kernel` in spectra;
    - `window`, `hop`: samples of a spectrum's window, and from one to the next;
    - `delay`: samples by which the sound comes after that whose codes are decoded, so that the windows that reach into
      a frame from before it hardly count.
    """

    latent: int = 128
    dim: int = 256
    layers: int = 2
    heads: int = 4
    feedforward: int = 512
    context: int = 24
    blocks: int = 8
    hidden: int = 512
    kernel: int = 7
    window: int = 960
    hop: int = 240
    delay: int = 480

    @property
    def spectra(self) -> int:
        """Spectra to a frame."""
        return FRAME_SAMPLES // self.hop

    @property
    def bins(self) -> int:
        """Frequencies of a spectrum."""
        return self.window // 2 + 1

    @classmethod
    def from_config(cls, config: Mapping[str, Any], source: str) -> "SpectralShape | None":
        """Read the section of Mimi's config, None where there is none; absent keys take the values above.

        Raises CheckpointError, naming `source` and the key, for what is no decoder of this kind.
        """
        if SECTION not in config:
            return None
        section, names = config[SECTION], [field.name for field in fields(cls)]
        if not isinstance(section, dict):
            raise CheckpointError(f"{source}: {SECTION} must be an object.")
        for key, size in section.items():
            if key not in names:
                raise CheckpointError(f"{source}: {SECTION}.{key} is not a key of such a decoder.")
            if type(size) is not int or size <= 0:
                raise CheckpointError(f"{source}: {SECTION}.{key} must be a positive whole number, not {size!r}.")
        shape = cls(**section)
        if shape.dim % (2 * shape.heads):
            raise CheckpointError(f"{source}: {SECTION}.dim must be an even multiple of heads.")
        if FRAME_SAMPLES % shape.hop or shape.window % shape.hop or shape.window < 2 * shape.hop:
            raise CheckpointError(f"{source}: {SECTION}.hop must divide a frame's {FRAME_SAMPLES} samples and window.")
        return shape


class SpectralBlock(nn.Module):
    """A causal ConvNeXt block (arXiv 2201.03545): `[batch, time, dim]` to the same."""

    def __init__(self, shape: SpectralShape) -> None:
        super().__init__()
        self.reach = shape.kernel - 1
        self.depthwise = nn.Conv1d(shape.dim, shape.dim, shape.kernel, groups=shape.dim)
        self.norm = nn.LayerNorm(shape.dim)
        self.widen = nn.Linear(shape.dim, shape.hidden)
        self.narrow = nn.Linear(shape.hidden, shape.dim)
        self.scale = nn.Parameter(torch.full((shape.dim,), 1.0 / shape.blocks))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.depthwise(F.pad(x.transpose(1, 2), (self.reach, 0))).transpose(1, 2)
        narrowed: Tensor = self.narrow(F.gelu(self.widen(self.norm(mixed))))
        return x + self.scale * narrowed


class SpectralNetwork(nn.Module):
    """From the quantizer's vectors to sound, whole: what it makes of a frame depends on none after it."""

    hann: Tensor

    def __init__(self, shape: SpectralShape) -> None:
        super().__init__()
        self.shape = shape
        self.project = nn.Linear(shape.latent, shape.dim)
        self.transformer = ProjectedTransformer(
            shape.dim,
            (shape.dim,),
            shape.dim,
            num_heads=shape.heads,
            num_layers=shape.layers,
            dim_feedforward=shape.feedforward,
            causal=True,
            context=shape.context,
            layer_scale=0.1,
            gating="none",
            norm="layer_norm",
            positional_embedding="rope",
            max_period=10_000,
        )
        self.expand = nn.Linear(shape.dim, shape.spectra * shape.dim)
        self.blocks = nn.ModuleList(SpectralBlock(shape) for _ in range(shape.blocks))
        self.norm = nn.LayerNorm(shape.dim)
        self.spectrum = nn.Linear(shape.dim, 2 * shape.bins)
        self.register_buffer("hann", torch.hann_window(shape.window), persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        """Linear layers and convolutions begin as Vocos's do, and the sound as a murmur."""
        for module in (self.project, self.expand, self.spectrum, *self.blocks.modules()):
            if isinstance(module, nn.Linear | nn.Conv1d):
                nn.init.trunc_normal_(module.weight, std=0.02 if module is not self.expand else 0.06)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.spectrum.bias[: self.shape.bins] = QUIET

    def forward(self, latent: Tensor) -> Tensor:
        """float32[batch, frames, latent] -> float32[batch, frames * 1920], which is late by `shape.delay` samples."""
        (x,) = self.transformer(self.project(latent))
        x = self.expand(x).unflatten(2, (self.shape.spectra, -1)).flatten(1, 2)
        for block in self.blocks:
            x = block(x)
        with torch.autocast(x.device.type, enabled=False):  # Sound needs more than eight bits.
            return self.sound(self.spectrum(self.norm(x.float())))

    def sound(self, spectra: Tensor) -> Tensor:
        """Log magnitudes and phases, `[batch, time, 2 * bins]`, -> `[batch, time * hop]`, by adding what overlaps."""
        magnitude, phase = torch.split(spectra, self.shape.bins, dim=2)
        pieces = torch.fft.irfft(
            torch.polar(magnitude.clamp(max=LOUDEST).exp(), phase), n=self.shape.window, norm="ortho"
        )
        parts = (pieces * self.hann).unflatten(2, (-1, self.shape.hop))
        time = parts.shape[1]
        overlap = sum(
            (F.pad(parts[:, : time - n, n], (0, 0, n, 0)) for n in range(parts.shape[2])), parts.new_zeros(())
        )
        envelope = self.hann.square().view(-1, self.shape.hop).sum(0)
        return (overlap / envelope).flatten(1)


class SpectralMimi(MimiModel):
    """Mimi's encoder and quantizer with a `SpectralNetwork`, its module `spectral`, in place of Mimi's own decoder."""

    def __init__(self, mimi: MimiModel, spectral: SpectralNetwork) -> None:
        """Share the encoder and the quantizer of `mimi`, which must not be streaming."""
        super().__init__(
            mimi.encoder,
            nn.Identity(),
            mimi.quantizer,
            frame_rate=mimi.frame_rate,
            encoder_frame_rate=mimi.encoder_frame_rate,
            sample_rate=mimi.sample_rate,
            channels=mimi.channels,
            causal=True,
            resample_method="conv",
            encoder_transformer=mimi.encoder_transformer,
        )
        self.downsample = mimi.downsample
        del self.upsample
        self.spectral = spectral
        self.train(mimi.training)

    def decode(self, codes: Tensor) -> Tensor:
        """Decode whole, without streaming: int64[batch, 8, frames] -> float32[batch, 1, frames * 1920].

        The sound is late by the `delay` of the decoder's shape.
        """
        sound: Tensor = self.spectral(self.decode_latent(codes).transpose(1, 2))
        return sound[:, None]
