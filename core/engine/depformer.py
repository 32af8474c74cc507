"""Moshi's depformer: a small transformer over the codebooks of one frame, with matrices of its own for each of them.

It starts anew each frame and has no positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.engine.architecture import AGENT_CODEBOOKS, Architecture
from core.engine.linear import WeightFormat
from core.engine.transformer import Gating, Norm


class CodebookCache:
    """Queries, keys and values of one frame's codebooks so far."""

    def __init__(self) -> None:
        self._kept: dict[int, Tensor] = {}

    def of(self, layer: int, x: Tensor) -> Tensor:
        """What a layer keeps, `[batch, codebook, 3 * depformer_dim]`, made at first use to fit `x`, its input."""
        if layer not in self._kept:
            self._kept[layer] = torch.empty(len(x), AGENT_CODEBOOKS, 3 * x.shape[-1], device=x.device, dtype=x.dtype)
        return self._kept[layer]


class CodebookAttention(nn.Module):
    """Self-attention of a codebook to those before it, with its residual."""

    def __init__(self, dim: int, heads: int, held: WeightFormat) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = held.matrix(dim, 3 * dim, AGENT_CODEBOOKS)
        self.out_proj = held.matrix(dim, dim, AGENT_CODEBOOKS)

    def forward(self, x: Tensor, residual: Tensor, kept: Tensor, codebook: int) -> Tensor:
        self.in_proj(x, codebook, out=kept[:, codebook])
        if x.is_cuda:
            from core.engine.kernels.depformer import attend  # Triton comes with torch's CUDA builds only

            seen = attend(kept, codebook, self.heads)
        else:
            seen = attend_plainly(kept, codebook, self.heads)
        out: Tensor = self.out_proj(seen, codebook, residual=residual)
        return out


def attend_plainly(kept: Tensor, codebook: int, heads: int) -> Tensor:
    """What `codebook` sees of itself and those before it: `[batch, codebook, 3 * dim]` -> `[batch, dim]`."""
    so_far = kept[:, : codebook + 1].view(len(kept), codebook + 1, 3, heads, -1)
    query, key, value = so_far.permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(query[:, :, codebook:], key, value).flatten(1)


class DepformerLayer(nn.Module):
    """One layer of the depformer: norms are shared by the codebooks, matrices are not."""

    def __init__(self, architecture: Architecture, held: WeightFormat) -> None:
        super().__init__()
        dim, hidden = architecture.depformer_dim, architecture.depformer_hidden
        self.norm1 = Norm(dim, held)
        self.self_attn = CodebookAttention(dim, architecture.depformer_num_heads, held)
        self.norm2 = Norm(dim, held)
        self.gating = nn.ModuleList(Gating(dim, hidden, held) for _ in range(AGENT_CODEBOOKS))

    def forward(self, x: Tensor, kept: Tensor, codebook: int) -> Tensor:
        x = self.self_attn(self.norm1(x), x, kept, codebook)
        out: Tensor = self.gating[codebook](self.norm2(x), x)
        return out


class Depformer(nn.Module):
    """The layers of the depformer."""

    def __init__(self, architecture: Architecture, held: WeightFormat) -> None:
        super().__init__()
        count = architecture.depformer_num_layers
        self.layers = nn.ModuleList(DepformerLayer(architecture, held) for _ in range(count))

    def forward(self, x: Tensor, codebook: int, frame: CodebookCache) -> Tensor:
        """`x`: `[batch, depformer_dim]`, the input of `codebook`."""
        for number, layer in enumerate(self.layers):
            x = layer(x, frame.of(number, x), codebook)
        return x
