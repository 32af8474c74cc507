"""Keys and values that the transformer looks back at: a ring for every slot, and a prompt's while it is prepared."""

import torch
import torch.nn.functional as F
from torch import Tensor

from core.engine.architecture import Architecture
from core.engine.snapshot import Snapshot


class SlotCache:
    """A ring of `context` frames for each of `slots`: `[layer, key or value, slot, head, frame, head_dim]`.

    Position p lies at p % context, so a frame's write falls on the one that has just left the window.
    """

    def __init__(self, architecture: Architecture, slots: int, device: torch.device, dtype: torch.dtype) -> None:
        self.context = architecture.context
        shape = (architecture.num_layers, 2, slots, architecture.num_heads, self.context, architecture.head_dim)
        self.kept = torch.zeros(shape, device=device, dtype=dtype)
        self._slots = torch.arange(slots, device=device)
        self._places = torch.arange(self.context, device=device)

    @staticmethod
    def bytes_per_slot(architecture: Architecture, dtype: torch.dtype) -> int:
        """What one full window takes: 1.46 GiB for PersonaPlex in bfloat16."""
        return 2 * architecture.num_layers * architecture.dim * architecture.context * dtype.itemsize

    def at(self, positions: Tensor) -> "SlotView":
        """Ready to attend from `positions`: int64[slots], one new frame a slot."""
        age = (positions[:, None] - self._places) % self.context
        return SlotView(self.kept, self._slots, positions % self.context, (age <= positions[:, None])[:, None, None])

    def load(self, slot: int, prompt: Snapshot) -> None:
        """Begin a slot with a prompt's keys and values."""
        start = 0
        for piece in prompt.pieces:
            room = self.kept[:, :, slot, :, start : start + piece.shape[3]]
            room.copy_(piece[:, :, :, : room.shape[3]], non_blocking=True)
            start += piece.shape[3]


class SlotView:
    """Attention of one new frame in every slot."""

    def __init__(self, kept: Tensor, slots: Tensor, places: Tensor, visible: Tensor) -> None:
        self._kept, self._slots, self._places, self._visible = kept, slots, places, visible

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = self._kept[layer]
        keys[self._slots, :, self._places] = key[:, :, 0]
        values[self._slots, :, self._places] = value[:, :, 0]
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=self._visible)


class PromptCache:
    """Keys and values of one prompt, filled piece by piece: `kept` is `[layer, 2, head, time, head_dim]`."""

    def __init__(self, architecture: Architecture, length: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (architecture.num_layers, 2, architecture.num_heads, length, architecture.head_dim)
        self.kept = torch.empty(shape, device=device, dtype=dtype)
        self.filled = 0

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        start, end = self.filled, self.filled + query.shape[2]
        keys, values = self.kept[layer]
        keys[:, start:end] = key[0]
        values[:, start:end] = value[0]
        visible = torch.ones(end - start, end, dtype=torch.bool, device=query.device).tril(start)
        return F.scaled_dot_product_attention(query, keys[None, :, :end], values[None, :, :end], attn_mask=visible)

    def advance(self, count: int) -> None:
        """All layers have seen the next `count` positions."""
        self.filled += count
