"""The layers of Moshi's language model, for inference only.

Parameters carry the names that the checkpoint gives them, so that loading is a walk over `named_parameters()`.
"""

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from core.engine.architecture import AGENT_CODEBOOKS, Architecture
from core.engine.linear import WeightFormat, empty

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
        return F.rms_norm(x, (x.shape[-1],), self.alpha.view(-1), NORM_EPSILON)


class Gating(nn.Module):
    """Feed-forward layer gated by SiLU."""

    def __init__(self, dim: int, hidden: int, held: WeightFormat) -> None:
        super().__init__()
        self.linear_in = held.matrix(dim, 2 * hidden)
        self.linear_out = held.matrix(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.linear_in(x).chunk(2, dim=-1)
        out: Tensor = self.linear_out(F.silu(gate) * value)
        return out


class Attention(nn.Module):
    """Self-attention with one set of matrices a step: one step for the transformer, eight for the depformer."""

    def __init__(self, dim: int, heads: int, steps: int, held: WeightFormat) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = held.matrix(dim, 3 * dim, steps)
        self.out_proj = held.matrix(dim, dim, steps)

    def forward(self, x: Tensor, layer: int, attend: Attend, step: int = 0) -> Tensor:
        batch, time, dim = x.shape
        projected = self.in_proj(x, step).view(batch, time, 3, self.heads, dim // self.heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        seen = attend(layer, query, key, value)
        out: Tensor = self.out_proj(seen.transpose(1, 2).reshape(batch, time, dim), step)
        return out


class Layer(nn.Module):
    """One layer of the transformer."""

    def __init__(self, architecture: Architecture, held: WeightFormat) -> None:
        super().__init__()
        dim = architecture.dim
        self.norm1 = Norm(dim, held)
        self.self_attn = Attention(dim, architecture.num_heads, 1, held)
        self.norm2 = Norm(dim, held)
        self.gating = Gating(dim, architecture.hidden, held)

    def forward(self, x: Tensor, layer: int, attend: Attend) -> Tensor:
        x = x + self.self_attn(self.norm1(x), layer, attend)
        out: Tensor = x + self.gating(self.norm2(x))
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


class DepformerLayer(nn.Module):
    """One layer of the depformer: norms are shared by the steps, matrices are not."""

    def __init__(self, architecture: Architecture, held: WeightFormat) -> None:
        super().__init__()
        dim, steps = architecture.depformer_dim, AGENT_CODEBOOKS
        self.norm1 = Norm(dim, held)
        self.self_attn = Attention(dim, architecture.depformer_num_heads, steps, held)
        self.norm2 = Norm(dim, held)
        self.gating = nn.ModuleList(Gating(dim, architecture.depformer_hidden, held) for _ in range(steps))

    def forward(self, x: Tensor, layer: int, attend: Attend, step: int) -> Tensor:
        x = x + self.self_attn(self.norm1(x), layer, attend, step)
        out: Tensor = x + self.gating[step](self.norm2(x))
        return out


class Depformer(nn.Module):
    """The small transformer over the codebooks of one frame. It starts anew each frame and has no positions."""

    def __init__(self, architecture: Architecture, held: WeightFormat) -> None:
        super().__init__()
        count = architecture.depformer_num_layers
        self.layers = nn.ModuleList(DepformerLayer(architecture, held) for _ in range(count))

    def forward(self, x: Tensor, step: int, attend: Attend) -> Tensor:
        """`x`: `[batch, 1, depformer_dim]`, the input of codebook `step`."""
        for number, layer in enumerate(self.layers):
            x = layer(x, number, attend, step)
        return x
