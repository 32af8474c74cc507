"""Rotary position embedding (RoPE), as in `moshi.modules.rope`: pairs of neighbouring channels are rotated together."""

import math

import torch
from torch import Tensor

from core.engine.architecture import Architecture


class RotaryEmbedding:
    """The rotary embedding of some positions, computed once and shared by all layers of the transformer."""

    def __init__(self, positions: Tensor, architecture: Architecture) -> None:
        """`positions`: int64[batch, time]."""
        frequencies = rotary_frequencies(architecture.head_dim, architecture.max_period, positions.device)
        angles = positions.float()[:, None, :, None] * frequencies
        self.cos, self.sin = angles.cos(), angles.sin()

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate queries or keys, `[batch, heads, time, head_dim]`, in float32; the result has the dtype of `x`."""
        return rotate_pairs(x.float(), self.cos, self.sin).to(x.dtype)


def rotary_frequencies(width: int, max_period: float, device: torch.device) -> Tensor:
    """The angle by which each pair of `width` channels is rotated per position, float32[width / 2]."""
    pairs = torch.arange(width // 2, device=device, dtype=torch.float32)
    return torch.exp(pairs * (-math.log(max_period) * 2 / width))


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs of neighbouring channels of `[..., width]` by angles given as `[..., width / 2]`."""
    if not x.is_cuda:  # One multiplication of complex numbers: on a CPU, few operations count.
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * torch.complex(cos, sin)).flatten(-2)
    even, odd = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
