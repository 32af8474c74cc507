"""The layers of Moshi's language model, for inference only.

Parameters carry the names that the checkpoint gives them, so that loading is a walk over `named_parameters()`.
"""

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from core.engine.architecture import Architecture
from core.engine.linear import WeightFormat, empty, has_one_position

NORM_EPSILON = 1e-8
"""Of `rms_norm_f32` in `moshi.modules.transformer`."""


class Attend(Protocol):
    """Turns a layer's queries and keys to their positions, keeps keys and values, and lets the queries look at them."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """All `[batch, heads, time, head_dim]`, the result too."""


class Norm(nn.Module):
    """Root-mean-square norm, computed in float32 whatever the dtype."""

    def __init__(self, dim: int, held: WeightFormat) -> None:
        super().__init__()
        self.alpha = empty(1, 1, dim, device=held.device, dtype=held.dtype)

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda and has_one_position(x):
            from core.engine.kernels.norm import norm  # Triton comes with torch's CUDA builds only

            return norm(x.contiguous(), self.alpha, NORM_EPSILON)
        return F.rms_norm(x, (x.shape[-1],), self.alpha.view(-1), NORM_EPSILON)


class Gating(nn.Module):
    """Feed-forward layer gated by SiLU, with its residual."""

    def __init__(self, dim: int, hidden: int, held: WeightFormat) -> None:
        super().__init__()
        self.linear_in = held.matrix(dim, 2 * hidden)
        self.linear_out = held.matrix(hidden, dim)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        out: Tensor = self.linear_out(self.linear_in(x, gated=True), residual=residual)
        return out


class Attention(nn.Module):
    """Self-attention, with its residual."""

    def __init__(self, dim: int, heads: int, held: WeightFormat) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = held.matrix(dim, 3 * dim)
        self.out_proj = held.matrix(dim, dim)

    def forward(self, x: Tensor, residual: Tensor, layer: int, attend: Attend) -> Tensor:
        batch, time, dim = x.shape
        projected = self.in_proj(x).view(batch, time, 3, self.heads, dim // self.heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        seen = attend(layer, query, key, value)
        out: Tensor = self.out_proj(seen.transpose(1, 2).reshape(batch, time, dim), residual=residual)
        return out


class Layer(nn.Module):
    """One layer of the transformer."""

    def __init__(self, architecture: Architecture, held: WeightFormat) -> None:
        super().__init__()
        dim = architecture.dim
        self.norm1 = Norm(dim, held)
        self.self_attn = Attention(dim, architecture.num_heads, held)
        self.norm2 = Norm(dim, held)
        self.gating = Gating(dim, architecture.hidden, held)

    def forward(self, x: Tensor, layer: int, attend: Attend) -> Tensor:
        x = self.self_attn(self.norm1(x), x, layer, attend)
        out: Tensor = self.gating(self.norm2(x), x)
        return out


class Transformer(nn.Module):
    """The large transformer over time."""

    def __init__(self, architecture: Architecture, held: WeightFormat) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(architecture, held) for _ in range(architecture.num_layers))

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """`x`: `[batch, time, dim]`; `attend` knows the positions."""
        for number, layer in enumerate(self.layers):
            x = layer(x, number, attend)
        return x
