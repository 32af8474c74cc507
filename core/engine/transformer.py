"""The layers of Moshi's language model, for inference only.

Parameters have the names that the checkpoint gives them, so that loading is a walk over `named_parameters()`.
"""

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from core.engine.architecture import Architecture
from core.engine.linear import WeightFormat, empty_parameter, has_one_position

NORM_EPSILON = 1e-8
"""The epsilon of `rms_norm_f32` in `moshi.modules.transformer`."""


class Attend(Protocol):
    """Attention of one forward pass over its KV cache.

    It applies the rotary embedding to a layer's queries and keys, caches keys and values, and attends.
    """

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Arguments and result are `[batch, heads, time, head_dim]`."""


class Norm(nn.Module):
    """Root-mean-square norm, computed in float32 whatever the dtype of its input."""

    def __init__(self, dim: int, weight_format: WeightFormat) -> None:
        super().__init__()
        self.alpha = empty_parameter(1, 1, dim, device=weight_format.device, dtype=weight_format.dtype)

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda and has_one_position(x):
            from core.engine.kernels.norm import rms_norm  # Triton comes with torch's CUDA builds only

            return rms_norm(x.contiguous(), self.alpha, NORM_EPSILON)
        return F.rms_norm(x, (x.shape[-1],), self.alpha.view(-1), NORM_EPSILON)


class Gating(nn.Module):
    """Feed-forward layer gated by SiLU, with its residual."""

    def __init__(self, dim: int, hidden: int, weight_format: WeightFormat) -> None:
        super().__init__()
        self.linear_in = weight_format.linear(dim, 2 * hidden)
        self.linear_out = weight_format.linear(hidden, dim)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        out: Tensor = self.linear_out(self.linear_in(x, gated=True), residual=residual)
        return out


class Attention(nn.Module):
    """Self-attention, with its residual."""

    def __init__(self, dim: int, heads: int, weight_format: WeightFormat) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = weight_format.linear(dim, 3 * dim)
        self.out_proj = weight_format.linear(dim, dim)

    def forward(self, x: Tensor, residual: Tensor, layer: int, attend: Attend) -> Tensor:
        batch, time, dim = x.shape
        projected = self.in_proj(x).view(batch, time, 3, self.heads, dim // self.heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        attended = attend(layer, query, key, value)
        out: Tensor = self.out_proj(attended.transpose(1, 2).reshape(batch, time, dim), residual=residual)
        return out


class Layer(nn.Module):
    """One layer of the transformer."""

    def __init__(self, architecture: Architecture, weight_format: WeightFormat) -> None:
        super().__init__()
        dim = architecture.dim
        self.norm1 = Norm(dim, weight_format)
        self.self_attn = Attention(dim, architecture.num_heads, weight_format)
        self.norm2 = Norm(dim, weight_format)
        self.gating = Gating(dim, architecture.hidden, weight_format)

    def forward(self, x: Tensor, layer: int, attend: Attend) -> Tensor:
        x = self.self_attn(self.norm1(x), x, layer, attend)
        out: Tensor = self.gating(self.norm2(x), x)
        return out


class Transformer(nn.Module):
    """The large transformer over time, all layers of it."""

    def __init__(self, architecture: Architecture, weight_format: WeightFormat) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(architecture, weight_format) for _ in range(architecture.num_layers))

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """Run `x`, `[batch, time, dim]`, through all layers; `attend` knows its positions."""
        for number, layer in enumerate(self.layers):
            x = layer(x, number, attend)
        return x
