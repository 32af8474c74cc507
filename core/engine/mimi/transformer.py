"""Mimi's transformers, with a ring of keys and values for each slot."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from core.engine.linear import fast_linear
from core.engine.mimi.weights import Layers

NORM_EPSILON = 1e-5
"""Of `nn.LayerNorm` in `moshi.modules.transformer`."""


class Transformer:
    """One of Mimi's transformers, and the keys and values of every slot: `[layer, 2, slot, head, time, width]`."""

    def __init__(self, weights: Layers, slots: int, device: torch.device) -> None:
        self._weights = weights
        dim = weights.layers[0].out_proj.shape[0]
        self._width = dim // weights.heads
        shape = (len(weights.layers), 2, slots, weights.heads, weights.context, self._width)
        self._kept = torch.zeros(shape, device=device)
        self.position = torch.zeros(slots, dtype=torch.int64, device=device)
        """Of the next time of each slot."""
        pairs = torch.arange(self._width // 2, dtype=torch.float32, device=device)
        self._frequencies = torch.exp(pairs * (-math.log(weights.max_period) * 2 / self._width))

    def run(self, x: Tensor, slots: Tensor, active: Tensor) -> None:
        """Change `x`, `[rows, time, dim]`, in place."""
        position, time = self.position[slots], x.shape[1]
        moments = position[:, None] + torch.arange(time, device=x.device)
        angles = moments[:, :, None].float() * self._frequencies
        cos, sin = angles.cos(), angles.sin()
        for kept, layer in zip(self._kept, self._weights.layers, strict=True):
            projected = fast_linear(x, layer.in_proj, bias=layer.in_bias, centred=True, epsilon=NORM_EPSILON)
            projected = projected.view(len(x), time, 3, self._weights.heads, self._width)
            seen = attend(projected, kept, slots, active, position, cos, sin)
            fast_linear(seen, layer.out_proj, residual=x, out=x)
            hidden = fast_linear(x, layer.linear1, bias=layer.bias1, centred=True, epsilon=NORM_EPSILON, gelu=True)
            fast_linear(hidden, layer.linear2, residual=x, out=x)
        self.position.index_add_(0, slots, active * time)

    def forget(self, chosen: Tensor) -> None:
        self.position.masked_fill_(chosen, 0)


def attend(
    projected: Tensor, kept: Tensor, slots: Tensor, active: Tensor, position: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    """What `attend_plainly` says, where that is fastest."""
    if projected.is_cuda:
        from core.engine.kernels import mimi as mimi_kernel  # Triton comes with torch's CUDA builds only

        return mimi_kernel.attend(projected, kept, slots, active, position, cos, sin)
    return attend_plainly(projected, kept, slots, active, position, cos, sin)


def attend_plainly(
    projected: Tensor, kept: Tensor, slots: Tensor, active: Tensor, position: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    """What a frame's times see: themselves, those before them in the frame, and as many before it as the ring holds.

    `projected`: `[rows, time, 3, heads, width]`; `kept`: `[2, slots, heads, context, width]`, which takes over the keys
    and values of the rows that are active; `position`: int64[rows]; `cos` and `sin`: `[rows, time, width / 2]`.
    Returns `[rows, time, heads * width]`. The frame falls on the ring's oldest times, which it no longer sees.
    """
    (rows, time), context = projected.shape[:2], kept.shape[3]
    query, key, value = projected.permute(2, 0, 3, 1, 4)
    query, key = (turned(each, cos[:, None], sin[:, None]) for each in (query, key))
    # How long before the frame each place of the ring was written, counted from 0.
    age = (position[:, None] - 1 - torch.arange(context, device=position.device)) % context
    old = age < torch.clamp(position, max=context - time)[:, None]
    new = torch.ones(time, time, dtype=torch.bool, device=position.device).tril()
    visible = torch.cat([old[:, None].expand(rows, time, context), new.expand(rows, time, time)], dim=-1)
    keys, values = (torch.cat([kept[kind, slots], each], dim=2) for kind, each in enumerate((key, value)))
    seen = F.scaled_dot_product_attention(query, keys, values, attn_mask=visible[:, None])
    places = ((position[:, None] + torch.arange(time, device=position.device)) % context)[active]
    kept[0, slots[active][:, None], :, places] = key[active].transpose(1, 2)
    kept[1, slots[active][:, None], :, places] = value[active].transpose(1, 2)
    return seen.transpose(1, 2).flatten(2)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding: pairs of neighbouring channels turn together."""
    even, odd = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
