"""Prompts that have been read, and the memory that keeps the latest of them."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from core.engine.architecture import Architecture

BLOCK = 16
"""Positions that are kept in one piece: 8 MiB for PersonaPlex."""


@dataclass(frozen=True)
class Snapshot:
    """A prompt that has been read: what a slot needs to begin with it.

    `pieces` follow each other, each `[layer, key or value, head, time, head_dim]` on any device; together they have
    `length` positions or, zeros at the end, a few more. `hidden` is `[dim]`, the transformer's output at the last one.
    """

    pieces: tuple[Tensor, ...]
    length: int
    hidden: Tensor


class SnapshotStore:
    """Snapshots in a fixed part of the host's memory; the least recently used makes room.

    Next to a CUDA card that memory is pinned, all of it at the start: pinning takes longer than reading a prompt does.
    """

    def __init__(self, architecture: Architecture, budget: int, device: torch.device, dtype: torch.dtype) -> None:
        """`budget` in bytes."""
        shape = (architecture.num_layers, 2, architecture.num_heads, BLOCK, architecture.head_dim)
        count = budget // (2 * architecture.num_layers * architecture.dim * BLOCK * dtype.itemsize)
        self._blocks = torch.empty(count, *shape, dtype=dtype, pin_memory=device.type == "cuda")
        self._free = list(range(count))
        self._kept: OrderedDict[object, tuple[list[int], Snapshot]] = OrderedDict()

    def get(self, key: object) -> Snapshot | None:
        """The snapshot kept under `key`, which counts as used."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][1]

    def put(self, key: object, snapshot: Snapshot) -> None:
        """Keep a snapshot, unless it is larger than all of the store."""
        needed = -(-snapshot.length // BLOCK)
        if needed > len(self._blocks):
            return
        while len(self._free) < needed:
            _, (blocks, _) = self._kept.popitem(last=False)
            self._free += blocks
        taken = [self._free.pop() for _ in range(needed)]
        for number, piece in zip(taken, cut(snapshot), strict=True):
            self._blocks[number].copy_(piece, non_blocking=True)
        pieces = tuple(self._blocks[number] for number in taken)
        self._kept[key] = taken, Snapshot(pieces, snapshot.length, snapshot.hidden)


def cut(snapshot: Snapshot) -> Iterator[Tensor]:
    """A snapshot's one piece in blocks, the last filled up with zeros."""
    (whole,) = snapshot.pieces
    for start in range(0, snapshot.length, BLOCK):
        piece = whole[:, :, :, start : start + BLOCK]
        yield F.pad(piece, (0, 0, 0, BLOCK - piece.shape[3])).contiguous()
