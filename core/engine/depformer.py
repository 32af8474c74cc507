"""Moshi's depformer: a small transformer over the codebooks of one frame, with separate matrices for each codebook.

It starts afresh at each frame and has no position embedding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.engine.architecture import AGENT_CODEBOOKS, Architecture
from core.engine.linear import WeightFormat
from core.engine.transformer import Gating, Norm


class CodebookCache:
    """The queries, keys and values of the codebooks of one frame that the depformer has computed so far."""

    def __init__(self) -> None:
        self._layers: dict[int, Tensor] = {}

    def layer(self, number: int, x: Tensor) -> Tensor:
        """One layer's cache, `[batch, codebook, 3 * depformer_dim]`, allocated at first use to fit its input `x`."""
        if number not in self._layers:
            shape = len(x), AGENT_CODEBOOKS, 3 * x.shape[-1]
            self._layers[number] = torch.empty(shape, device=x.device, dtype=x.dtype)
        return self._layers[number]


class CodebookAttention(nn.Module):
    """Causal self-attention over the codebooks of a frame, with its residual."""

    def __init__(self, dim: int, heads: int, weight_format: WeightFormat) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = weight_format.linear(dim, 3 * dim, AGENT_CODEBOOKS)
        self.out_proj = weight_format.linear(dim, dim, AGENT_CODEBOOKS)

    def forward(self, x: Tensor, residual: Tensor, cached: Tensor, codebook: int) -> Tensor:
        self.in_proj(x, codebook, out=cached[:, codebook])
        if x.is_cuda:
            from core.engine.kernels.depformer import codebook_attention  # Triton comes with CUDA builds only

            attended = codebook_attention(cached, codebook, self.heads)
        else:
            attended = reference_codebook_attention(cached, codebook, self.heads)
        out: Tensor = self.out_proj(attended, codebook, residual=residual)
        return out


def reference_codebook_attention(cached: Tensor, codebook: int, heads: int) -> Tensor:
    """Attention of `codebook` to itself and those before it: `[batch, codebook, 3 * dim]` -> `[batch, dim]`."""
    so_far = cached[:, : codebook + 1].view(len(cached), codebook + 1, 3, heads, -1)
    query, key, value = so_far.permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(query[:, :, codebook:], key, value).flatten(1)


class DepformerLayer(nn.Module):
    """One layer of the depformer: the codebooks share its norms, but not its matrices."""

    def __init__(self, architecture: Architecture, weight_format: WeightFormat) -> None:
        super().__init__()
        dim, hidden = architecture.depformer_dim, architecture.depformer_hidden
        self.norm1 = Norm(dim, weight_format)
        self.self_attn = CodebookAttention(dim, architecture.depformer_num_heads, weight_format)
        self.norm2 = Norm(dim, weight_format)
        self.gating = nn.ModuleList(Gating(dim, hidden, weight_format) for _ in range(AGENT_CODEBOOKS))

    def forward(self, x: Tensor, cached: Tensor, codebook: int) -> Tensor:
        x = self.self_attn(self.norm1(x), x, cached, codebook)
        out: Tensor = self.gating[codebook](self.norm2(x), x)
        return out


class Depformer(nn.Module):
    """All layers of the depformer."""

    def __init__(self, architecture: Architecture, weight_format: WeightFormat) -> None:
        super().__init__()
        count = architecture.depformer_num_layers
        self.layers = nn.ModuleList(DepformerLayer(architecture, weight_format) for _ in range(count))

    def forward(self, x: Tensor, codebook: int, cache: CodebookCache) -> Tensor:
        """Run one codebook, whose input is `x`, `[batch, depformer_dim]`; the codebooks before it are in `cache`."""
        for number, layer in enumerate(self.layers):
            x = layer(x, cache.layer(number, x), codebook)
        return x
