"""Keys and values that the transformer looks back at: a ring for every slot, and a prompt's while it is read."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from core.engine.architecture import Architecture
from core.engine.snapshot import Snapshot


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


class SlotCache:
    """A ring of `context` frames for each of `slots`: `[layer, key or value, slot, head, frame, head_dim]`.

    Position p lies at p % context, so a frame's write falls on the one that has just left the window.
    """

    def __init__(self, architecture: Architecture, slots: int, device: torch.device, dtype: torch.dtype) -> None:
        self.architecture = architecture
        heads, context = architecture.num_heads, architecture.context
        shape = (architecture.num_layers, 2, slots, heads, context, architecture.head_dim)
        self.kept = torch.zeros(shape, device=device, dtype=dtype)

    @staticmethod
    def bytes_per_slot(architecture: Architecture, dtype: torch.dtype) -> int:
        """What one full window takes: 1.46 GiB for PersonaPlex in bfloat16."""
        return 2 * architecture.num_layers * architecture.dim * architecture.context * dtype.itemsize

    def at(self, positions: Tensor) -> "SlotView | KernelView":
        """Ready to attend from `positions`: int64[slots], one new frame a slot."""
        rotation = Rotation(positions[:, None], self.architecture)
        return (KernelView if self.kept.is_cuda else SlotView)(self.kept, positions, rotation)

    def load(self, slot: int, prompt: Snapshot) -> None:
        """Begin a slot with a prompt's keys and values."""
        start = 0
        for piece in prompt.pieces:
            room = self.kept[:, :, slot, :, start : start + piece.shape[3]]
            room.copy_(piece[:, :, :, : room.shape[3]], non_blocking=True)
            start += piece.shape[3]


class SlotView:
    """Attention of one new frame in every slot, in plain torch: reads whole windows, and masks what is not there."""

    def __init__(self, kept: Tensor, positions: Tensor, rotation: Rotation) -> None:
        self._kept, self._rotation = kept, rotation
        slots, context = len(positions), kept.shape[4]
        self._slots = torch.arange(slots, device=kept.device)
        self._places = positions % context
        age = (positions[:, None] - torch.arange(context, device=kept.device)) % context
        self._visible = (age <= positions[:, None])[:, None, None]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = self._kept[layer]
        keys[self._slots, :, self._places] = self._rotation(key)[:, :, 0]
        values[self._slots, :, self._places] = value[:, :, 0]
        return F.scaled_dot_product_attention(self._rotation(query), keys, values, attn_mask=self._visible)


class KernelView:
    """The same on a CUDA card, reading only the frames that each call has used."""

    def __init__(self, kept: Tensor, positions: Tensor, rotation: Rotation) -> None:
        self._kept, self._positions, self._rotation = kept, positions, rotation

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        from core.engine.attention_kernel import attend_new_frame  # Triton comes with torch's CUDA builds only

        return attend_new_frame(query, key, value, self._kept[layer], self._positions, self._rotation)


class PromptCache:
    """Keys and values of one prompt, filled piece by piece: `kept` is `[layer, 2, head, time, head_dim]`."""

    def __init__(self, architecture: Architecture, length: int, device: torch.device, dtype: torch.dtype) -> None:
        self.architecture = architecture
        shape = (architecture.num_layers, 2, architecture.num_heads, length, architecture.head_dim)
        self.kept = torch.empty(shape, device=device, dtype=dtype)
        self._filled = 0

    def piece(self, count: int) -> "PieceView":
        """Ready to attend from the next `count` positions."""
        self._filled += count
        return PieceView(self, self._filled - count, self._filled)


class PieceView:
    """Attention of a prompt's next positions, from `start` to before `end`."""

    def __init__(self, cache: PromptCache, start: int, end: int) -> None:
        self._kept, self._start, self._end = cache.kept, start, end
        positions = torch.arange(start, end, device=cache.kept.device)
        self._rotation = Rotation(positions[None], cache.architecture)
        self._visible = torch.ones(end - start, end, dtype=torch.bool, device=positions.device).tril(start)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = self._kept[layer]
        keys[:, self._start : self._end] = self._rotation(key)[0]
        values[:, self._start : self._end] = value[0]
        seen = keys[None, :, : self._end], values[None, :, : self._end]
        return F.scaled_dot_product_attention(self._rotation(query), *seen, attn_mask=self._visible)
