"""Keys and values that the transformer looks back at: blocks that calls borrow, and a prompt's while it is read.

A call's frames are a ring of `context` positions, cut into blocks of BLOCK; a call holds the blocks that it may ever
need, so memory goes with how long calls may last, and no call can run out of it.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from core.engine.architecture import Architecture
from core.engine.prefix_cache import Snapshot
from core.engine.rotary import Rotation

BLOCK = 128
"""Frames of a block: 10 s, and 64 MiB for PersonaPlex in bfloat16. What one program of the kernel looks at."""


def blocks_for(frames: int) -> int:
    """How many blocks hold so many frames."""
    return -(-frames // BLOCK)


class BlockCache:
    """Blocks of frames that calls borrow: `kept` is `[layer, key or value, block, head, frame, head_dim]`.

    Position p of a call lies at place p % context, in block `place // BLOCK` of its own; so a frame's write falls on
    the one that has just left the window. Block 0 is nobody's: rows of a batch without a call write there.
    """

    def __init__(self, architecture: Architecture, blocks: int, device: torch.device, dtype: torch.dtype) -> None:
        """`blocks` to borrow."""
        self.architecture = architecture
        layers, heads, width = architecture.num_layers, architecture.num_heads, architecture.head_dim
        # The kernel reads block by block; on a CPU a head's blocks lie side by side, so that a call's are one piece.
        side_by_side = device.type == "cpu"
        order = (heads, 1 + blocks) if side_by_side else (1 + blocks, heads)
        kept = torch.zeros(layers, 2, *order, BLOCK, width, device=device, dtype=dtype)
        self.kept = kept.transpose(2, 3) if side_by_side else kept
        self.blocks = blocks
        self._free = list(range(1, 1 + blocks))

    @staticmethod
    def bytes_per_block(architecture: Architecture, dtype: torch.dtype) -> int:
        """64 MiB for PersonaPlex in bfloat16; 24 make a full window."""
        return 2 * architecture.num_layers * architecture.dim * BLOCK * dtype.itemsize

    def borrow(self, frames: int) -> list[int] | None:
        """Blocks for a call of at most so many frames, in a row where such are free, or None when too few are."""
        needed, free = blocks_for(min(frames, self.architecture.context)), self._free
        if needed > len(free):
            return None
        in_a_row = (i for i in range(len(free) - needed + 1) if free[i + needed - 1] - free[i] == needed - 1)
        start = next(in_a_row, 0)
        self._free = free[:start] + free[start + needed :]
        return free[start : start + needed]

    def give_back(self, blocks: Iterable[int]) -> None:
        """Take back what a call borrowed."""
        self._free = sorted([*self._free, *blocks])

    def at(self, positions: Tensor, table: Tensor) -> "BlockView | KernelView":
        """Ready to attend from `positions`: int64[rows], one new frame a row.

        `table`: int64[rows, n], each row's blocks; where it has fewer, it never comes to the rest.
        """
        rotation = Rotation(positions[:, None], self.architecture)
        kind = KernelView if self.kept.is_cuda else BlockView
        return kind(self.kept, positions, table, self.architecture.context, rotation)

    def load(self, blocks: Sequence[int], prompt: Snapshot) -> None:
        """Write a prompt's keys and values into a call's blocks."""
        start = 0
        for piece in prompt.pieces:
            end = min(start + piece.shape[3], self.architecture.context)
            for number in range(start // BLOCK, blocks_for(end)):
                first = number * BLOCK
                low, high = max(start, first), min(end, first + BLOCK)
                room = self.kept[:, :, blocks[number], :, low - first : high - first]
                room.copy_(piece[:, :, :, low - start : high - start], non_blocking=True)
            start = end


def index_of(blocks: Tensor) -> Tensor | slice:
    """What picks these blocks out of all: a slice, which copies nothing, where their numbers are in a row."""
    numbers = blocks.tolist()
    whole = slice(numbers[0], numbers[0] + len(numbers))
    return whole if numbers == list(range(whole.start, whole.stop)) else blocks


class BlockView:
    """Attention of one new frame in every row, in plain torch: row by row, over the frames that each has used."""

    def __init__(self, kept: Tensor, positions: Tensor, table: Tensor, context: int, rotation: Rotation) -> None:
        self._kept, self._rotation = kept, rotation
        places = positions % context
        self._offsets = places % BLOCK
        self._blocks = table.gather(1, (places // BLOCK)[:, None])[:, 0]
        used = [min(position + 1, context) for position in positions.tolist()]
        self._rows = [(index_of(blocks[: blocks_for(count)]), count) for blocks, count in zip(table, used, strict=True)]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = self._kept[layer]
        keys[self._blocks, :, self._offsets] = self._rotation(key)[:, :, 0]
        values[self._blocks, :, self._offsets] = value[:, :, 0]
        turned = self._rotation(query)
        seen = []
        for row, (blocks, count) in enumerate(self._rows):
            window = [kept[blocks].transpose(0, 1).flatten(1, 2)[None, :, :count] for kept in (keys, values)]
            seen.append(F.scaled_dot_product_attention(turned[row : row + 1], *window))
        return torch.cat(seen)


class KernelView:
    """The same on a CUDA card, in two launches."""

    def __init__(self, kept: Tensor, positions: Tensor, table: Tensor, context: int, rotation: Rotation) -> None:
        self._kept, self._positions, self._table = kept, positions, table
        self._context, self._rotation = context, rotation

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        from core.engine.kernels.attention import attend_new_frame  # Triton comes with torch's CUDA builds only

        kept = self._kept[layer]
        return attend_new_frame(query, key, value, kept, self._positions, self._table, self._context, self._rotation)


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
