"""Mimi's transformers, with a ring of keys and values for each slot."""

import torch
import torch.nn.functional as F
from torch import Tensor

from core.engine.mimi.linear import fused_linear
from core.engine.mimi.weights import Layers
from core.engine.rotary import rotary_frequencies, rotate_pairs

NORM_EPSILON = 1e-5
"""The epsilon of `nn.LayerNorm` in `moshi.modules.transformer`."""


class Transformer:
    """One of Mimi's transformers, with its KV cache: `[layer, key or value, slot, head, time, head_dim]`."""

    def __init__(self, weights: Layers, slots: int, device: torch.device) -> None:
        self._weights = weights
        dim = weights.layers[0].out_proj.shape[0]
        self._head_dim = dim // weights.heads
        shape = (len(weights.layers), 2, slots, weights.heads, weights.context, self._head_dim)
        self._kv = torch.zeros(shape, device=device)
        self.position = torch.zeros(slots, dtype=torch.int64, device=device)
        """The position of each slot's next time."""
        self._frequencies = rotary_frequencies(self._head_dim, weights.max_period, device)

    def run(self, x: Tensor, slots: Tensor, active: Tensor) -> None:
        """Transform `x`, `[rows, time, dim]`, in place, and advance the slots of the rows that are active."""
        position, time = self.position[slots], x.shape[1]
        positions = position[:, None] + torch.arange(time, device=x.device)
        angles = positions[:, :, None].float() * self._frequencies
        cos, sin = angles.cos(), angles.sin()
        for cached, layer in zip(self._kv, self._weights.layers, strict=True):
            projected = fused_linear(x, layer.in_proj, bias=layer.in_bias, centred=True, epsilon=NORM_EPSILON)
            projected = projected.view(len(x), time, 3, self._weights.heads, self._head_dim)
            attended = ring_attention(projected, cached, slots, active, position, cos, sin)
            fused_linear(attended, layer.out_proj, residual=x, out=x)
            hidden = fused_linear(x, layer.linear1, bias=layer.bias1, centred=True, epsilon=NORM_EPSILON, gelu=True)
            fused_linear(hidden, layer.linear2, residual=x, out=x)
        self.position.index_add_(0, slots, active * time)

    def reset(self, chosen: Tensor) -> None:
        """Begin new streams in the slots where `chosen`, bool[slots], is true."""
        self.position.masked_fill_(chosen, 0)


def ring_attention(
    projected: Tensor, cached: Tensor, slots: Tensor, active: Tensor, position: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    """Compute what `reference_ring_attention` does; on a GPU, in one launch."""
    if projected.is_cuda:
        from core.engine.kernels import mimi as kernels  # Triton comes with torch's CUDA builds only

        return kernels.ring_attention(projected, cached, slots, active, position, cos, sin)
    return reference_ring_attention(projected, cached, slots, active, position, cos, sin)


def reference_ring_attention(
    projected: Tensor, cached: Tensor, slots: Tensor, active: Tensor, position: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    """Attention of a frame's times in plain torch: causal within the frame, and to what the ring holds of earlier ones.

    `projected` is `[rows, time, 3, heads, head_dim]`. `cached`, `[2, slots, heads, context, head_dim]`, takes in the
    keys and values of the rows that are active. `position`, int64[rows], is that of the frame's first time. `cos` and
    `sin` are `[rows, time, head_dim / 2]`. Returns `[rows, time, heads * head_dim]`. The frame overwrites the oldest
    times of the ring, to which it no longer attends.
    """
    (rows, time), context = projected.shape[:2], cached.shape[3]
    query, key, value = projected.permute(2, 0, 3, 1, 4)
    query, key = (rotate_pairs(each, cos[:, None], sin[:, None]) for each in (query, key))
    # How long before the frame each place of the ring was written, counted from 0.
    age = (position[:, None] - 1 - torch.arange(context, device=position.device)) % context
    old = age < torch.clamp(position, max=context - time)[:, None]
    new = torch.ones(time, time, dtype=torch.bool, device=position.device).tril()
    visible = torch.cat([old[:, None].expand(rows, time, context), new.expand(rows, time, time)], dim=-1)
    keys, values = (torch.cat([cached[kind, slots], each], dim=2) for kind, each in enumerate((key, value)))
    attended = F.scaled_dot_product_attention(query, keys, values, attn_mask=visible[:, None])
    places = ((position[:, None] + torch.arange(time, device=position.device)) % context)[active]
    cached[0, slots[active][:, None], :, places] = key[active].transpose(1, 2)
    cached[1, slots[active][:, None], :, places] = value[active].transpose(1, 2)
    return attended.transpose(1, 2).flatten(2)
