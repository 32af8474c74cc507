"""Mimi's transformers, with a ring of keys and values for each slot."""

from collections.abc import Callable

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
        attend = ring_attention(slots, active, position, angles.cos(), angles.sin(), self._weights.context)
        for cached, layer in zip(self._kv, self._weights.layers, strict=True):
            projected = fused_linear(x, layer.in_proj, bias=layer.in_bias, centred=True, epsilon=NORM_EPSILON)
            projected = projected.view(len(x), time, 3, self._weights.heads, self._head_dim)
            fused_linear(attend(projected, cached), layer.out_proj, residual=x, out=x)
            hidden = fused_linear(x, layer.linear1, bias=layer.bias1, centred=True, epsilon=NORM_EPSILON, gelu=True)
            fused_linear(hidden, layer.linear2, residual=x, out=x)
        self.position.index_add_(0, slots, active * time)

    def reset(self, chosen: Tensor) -> None:
        """Begin new streams in the slots where `chosen`, bool[slots], is true."""
        self.position.masked_fill_(chosen, 0)


def ring_attention(
    slots: Tensor, active: Tensor, position: Tensor, cos: Tensor, sin: Tensor, context: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """Do what `ReferenceRingAttention` does; on a GPU, in one launch for each layer."""
    if position.is_cuda:
        from core.engine.kernels import mimi as kernels  # Triton comes with torch's CUDA builds only

        return lambda projected, cached: kernels.ring_attention(projected, cached, slots, active, position, cos, sin)
    return ReferenceRingAttention(slots, active, position, cos, sin, context)


class ReferenceRingAttention:
    """Attention of a frame's times in plain torch: causal within the frame, and to what the ring holds of earlier ones.

    What is the same for all layers is computed once. `position`, int64[rows], is that of the frame's first time. `cos`
    and `sin` are `[rows, time, head_dim / 2]`. The frame overwrites the oldest times of the ring, to which it no longer
    attends.
    """

    def __init__(self, slots: Tensor, active: Tensor, position: Tensor, cos: Tensor, sin: Tensor, context: int) -> None:
        (rows, time), device = cos.shape[:2], position.device
        self._slots, self._active = slots, active
        self._cos, self._sin = cos[:, :, None, None], sin[:, :, None, None]
        # How long before the frame each place of the ring was written, counted from 0.
        age = (position[:, None] - 1 - torch.arange(context, device=device)) % context
        old = age < torch.clamp(position, max=context - time)[:, None]
        new = torch.ones(time, time, dtype=torch.bool, device=device).tril()
        visible = torch.cat([old[:, None].expand(rows, time, context), new.expand(rows, time, time)], dim=-1)
        self._mask = cos.new_zeros(visible.shape).masked_fill_(~visible, -torch.inf)[:, None]
        self._written = slots[active][:, None]
        self._places = ((position[:, None] + torch.arange(time, device=device)) % context)[active]

    def __call__(self, projected: Tensor, cached: Tensor) -> Tensor:
        """Attend in one layer: `[rows, time, 3, heads, head_dim]` -> `[rows, time, heads * head_dim]`.

        `cached`, `[2, slots, heads, context, head_dim]`, takes in the keys and values of the rows that are active.
        """
        query, key = rotate_pairs(projected[:, :, :2], self._cos, self._sin).permute(2, 0, 3, 1, 4)
        new = torch.stack([key, projected[:, :, 2].transpose(1, 2)])
        keys, values = torch.cat([cached[:, self._slots], new], dim=3)
        attended = F.scaled_dot_product_attention(query, keys, values, attn_mask=self._mask)
        cached[:, self._written, :, self._places] = new[:, self._active].permute(1, 3, 0, 2, 4)
        return attended.transpose(1, 2).flatten(2)
