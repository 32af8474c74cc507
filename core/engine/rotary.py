"""Rotary position embedding (RoPE), as in `moshi.modules.rope`."""

import math

import torch
from torch import Tensor

from core.engine.architecture import Architecture


class Rotation:
    """Rotary embedding of some positions, shared by all layers: pairs of neighbouring channels turn together."""

    def __init__(self, positions: Tensor, architecture: Architecture) -> None:
        """`positions`: int64[batch, time]."""
        width = architecture.head_dim
        pairs = torch.arange(width // 2, device=positions.device, dtype=torch.float32)
        frequencies = torch.exp(pairs * (-math.log(architecture.max_period) * 2 / width))
        angles = positions.float()[:, None, :, None] * frequencies
        self.cos, self.sin = angles.cos(), angles.sin()

    def __call__(self, x: Tensor) -> Tensor:
        """Turn `[batch, heads, time, head_dim]`."""
        even, odd = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1)
        turned = [even * self.cos - odd * self.sin, even * self.sin + odd * self.cos]
        return torch.stack(turned, dim=-1).flatten(-2).to(x.dtype)
