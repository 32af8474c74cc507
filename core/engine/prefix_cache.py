"""The prefix cache: prompts that have been prefilled, in host memory, least recently used out first."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from core.engine.architecture import Architecture

PAGE_POSITIONS = 16
"""Positions in a page, the unit in which the prefix cache allocates memory: 8 MiB for PersonaPlex in bfloat16."""


@dataclass(frozen=True)
class PrefixCacheEntry:
    """A prompt that has been prefilled: all that a slot needs to begin a conversation with it.

    `segments` hold the keys and values of consecutive positions, each `[layer, key or value, head, time, head_dim]` on
    any device. Together they have `length` positions, or a few more, which are zeros at the end. `hidden` is `[dim]`,
    the transformer's output at the last position.
    """

    segments: tuple[Tensor, ...]
    length: int
    hidden: Tensor


class PrefixCache:
    """Prefilled prompts in a fixed amount of host memory; the least recently used makes room for a new one.

    Where the device is a GPU this memory is pinned, all of it at the start: pinning takes longer than a prefill does.
    """

    def __init__(self, architecture: Architecture, budget: int, device: torch.device, dtype: torch.dtype) -> None:
        """`budget` is in bytes."""
        shape = (architecture.num_layers, 2, architecture.num_heads, PAGE_POSITIONS, architecture.head_dim)
        count = budget // (2 * architecture.num_layers * architecture.dim * PAGE_POSITIONS * dtype.itemsize)
        self._pages = torch.empty(count, *shape, dtype=dtype, pin_memory=device.type == "cuda")
        self._free = list(range(count))
        self._entries: OrderedDict[object, tuple[list[int], PrefixCacheEntry]] = OrderedDict()
        """Each entry with the numbers of its pages, the least recently used first."""

    def get(self, key: object) -> PrefixCacheEntry | None:
        """The entry cached under `key`, which counts as used, or None."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][1]

    def put(self, key: object, entry: PrefixCacheEntry) -> None:
        """Cache a freshly prefilled entry, unless it is larger than the whole cache."""
        needed = -(-entry.length // PAGE_POSITIONS)
        if needed > len(self._pages):
            return
        while len(self._free) < needed:
            _, (evicted, _) = self._entries.popitem(last=False)
            self._free += evicted
        numbers = [self._free.pop() for _ in range(needed)]
        for number, page in zip(numbers, pages_of(entry), strict=True):
            self._pages[number].copy_(page, non_blocking=True)
        segments = tuple(self._pages[number] for number in numbers)
        self._entries[key] = numbers, PrefixCacheEntry(segments, entry.length, entry.hidden)


def pages_of(entry: PrefixCacheEntry) -> Iterator[Tensor]:
    """The single segment of a fresh entry cut into pages, the last one padded with zeros."""
    (whole,) = entry.segments
    for start in range(0, entry.length, PAGE_POSITIONS):
        page = whole[:, :, :, start : start + PAGE_POSITIONS]
        yield F.pad(page, (0, 0, 0, PAGE_POSITIONS - page.shape[3])).contiguous()
