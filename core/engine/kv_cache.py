"""The KV cache: keys and values that the transformer attends to, in blocks for calls and in one piece for a prefill.

A call's frames are a ring of `context` positions, cut into blocks of BLOCK_FRAMES. A call is allocated all the blocks
that it may ever need, so memory grows with how long calls may last, and no call can run out of it.

A call's prompt may be pinned: it keeps its places when the window moves on, and the conversation has the others as its
ring. The prompt moves along with the window, so that it stays at its far end, at distances that the model was trained
on. No key has to be rotated again for that. Scores depend on differences of positions alone, so the query is rotated
twice: by the row's position for the ring, and for the prompt by that position less what the window has moved. This
takes no more memory than a window that is not pinned, and reads no more of it. StreamingLLM (Xiao et al., 2024) keeps
first positions likewise, as attention's sink.

Prompts are prefilled, and kept in the prefix cache, in the model's dtype. Blocks may have another, or 8 bits, to which
a prompt is rounded when it is loaded.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from core.engine.architecture import Architecture
from core.engine.prefix_cache import PrefixCacheEntry
from core.engine.quantization import dequantize, quantize
from core.engine.rotary import RotaryEmbedding

BLOCK_FRAMES = 128
"""Frames in a block, the unit in which calls are allocated memory: 10 s, and 64 MiB for PersonaPlex in bfloat16.

One program of the attention kernel attends to one block.
"""
QUANTIZED_FRAMES = 32
"""Frames of a prompt that are quantized at a time: their copies in float32 take 32 MiB each for PersonaPlex."""


def blocks_for(frames: int) -> int:
    """The number of blocks that hold `frames` frames."""
    return -(-frames // BLOCK_FRAMES)


def pinned_frames(prompt: int, context: int) -> int:
    """How many frames of a prompt of so many are pinned: all of it, or none where it takes more than half the window.

    The conversation would have too short a ring then.
    """
    return prompt if 2 * prompt <= context else 0


def places_of(positions: Tensor, pinned: Tensor, context: int) -> Tensor:
    """The places of `positions` in the calls' windows, of which the first `pinned` are kept, all int64[rows]."""
    return torch.where(positions < context, positions, pinned + (positions - context) % (context - pinned))


def query_positions(positions: Tensor, context: int) -> Tensor:
    """By which positions the queries of rows are rotated, int64[rows, 2]: for the ring, and for what is pinned.

    The latter is the position less what the window has moved, so that the query is never farther from position 0 than
    the window is long.
    """
    return torch.stack([positions, positions.clamp(max=context - 1)], dim=1)


class BlockCache:
    """The blocks of all calls: `kv` is `[layer, key or value, block, head, frame, head_dim]`.

    Position p of a call has the place p in its window, in block `place // BLOCK_FRAMES` of its block table. Once the
    window is full, each new frame overwrites the one that has just left it: those after the pinned ones take turns, all
    of them where nothing is pinned. Block 0 belongs to no call: padding rows of a batch write there. Keys are cached
    after the rotary embedding.

    Where `kv` is int8, `scales`, float32[layer, key or value, block, head, frame], has a scale for each key and value,
    as `quantize` describes; else it is None.
    """

    def __init__(self, architecture: Architecture, blocks: int, device: torch.device, dtype: torch.dtype) -> None:
        """`blocks` is how many can be allocated; `dtype` is that of keys and values, int8 or a floating-point one."""
        self.architecture = architecture
        layers, heads, width = architecture.num_layers, architecture.num_heads, architecture.head_dim
        # The kernel reads block by block. On a CPU the blocks of a head are adjacent, so that a call whose blocks are
        # consecutive attends to one contiguous piece.
        adjacent = device.type == "cpu"
        order = (heads, 1 + blocks) if adjacent else (1 + blocks, heads)

        def zeros(*vector: int, dtype: torch.dtype) -> Tensor:
            whole = torch.zeros(layers, 2, *order, BLOCK_FRAMES, *vector, device=device, dtype=dtype)
            return whole.transpose(2, 3) if adjacent else whole

        self.kv = zeros(width, dtype=dtype)
        self.scales = zeros(dtype=torch.float32) if dtype == torch.int8 else None
        self.blocks = blocks
        self._free = list(range(1, 1 + blocks))

    @staticmethod
    def bytes_per_block(architecture: Architecture, dtype: torch.dtype) -> int:
        """The memory that a block takes: 64 MiB for PersonaPlex in bfloat16, where 24 blocks make a full window.

        In int8, with its scales, it takes 33 MiB.
        """
        vector = architecture.head_dim * dtype.itemsize + (torch.float32.itemsize if dtype == torch.int8 else 0)
        return 2 * architecture.num_layers * architecture.num_heads * BLOCK_FRAMES * vector

    def allocate(self, frames: int) -> list[int] | None:
        """Allocate the blocks of a call of at most `frames` frames, or return None when too few are free.

        The blocks are consecutive wherever enough consecutive ones are free.
        """
        needed, free = blocks_for(min(frames, self.architecture.context)), self._free
        if needed > len(free):
            return None
        consecutive = (i for i in range(len(free) - needed + 1) if free[i + needed - 1] - free[i] == needed - 1)
        start = next(consecutive, 0)
        self._free = free[:start] + free[start + needed :]
        return free[start : start + needed]

    def free(self, blocks: Iterable[int]) -> None:
        """Make the blocks of a call available again."""
        self._free = sorted([*self._free, *blocks])

    def attention(
        self, positions: Tensor, block_table: Tensor, pinned: Tensor | None = None
    ) -> "ReferenceBlockAttention | KernelBlockAttention":
        """Attention of one new frame in each row, at `positions`, int64[rows].

        `block_table`, int64[rows, n], lists the blocks of each row's call. Entries beyond a call's blocks are never
        used. `pinned`, int64[rows], is how many of the first frames each row's call keeps, fewer than the window has;
        None is none.
        """
        kind = KernelBlockAttention if self.kv.is_cuda else ReferenceBlockAttention
        return kind(self, positions, block_table, torch.zeros_like(positions) if pinned is None else pinned)

    def load(self, blocks: Sequence[int], prompt: PrefixCacheEntry) -> None:
        """Copy a prompt's keys and values into the blocks of a call, in the dtype of the blocks."""
        start = 0
        for segment in prompt.segments:
            end = min(start + segment.shape[3], self.architecture.context)
            step = BLOCK_FRAMES if self.scales is None else QUANTIZED_FRAMES
            for number in range(start // step, -(-end // step)):
                low, high = max(start, number * step), min(end, (number + 1) * step)
                block, first = blocks[low // BLOCK_FRAMES], low % BLOCK_FRAMES
                frames = slice(first, first + high - low)
                part = segment[:, :, :, low - start : high - start]
                if self.scales is None:
                    self.kv[:, :, block, :, frames].copy_(part, non_blocking=True)
                else:
                    quantized, scales = quantize(part.to(self.kv.device, non_blocking=True))
                    self.kv[:, :, block, :, frames] = quantized
                    self.scales[:, :, block, :, frames] = scales
            start = end

    def write(self, layer: int, blocks: Tensor, offsets: Tensor, keys: Tensor, values: Tensor) -> None:
        """Cache a frame of each row, `[rows, heads, head_dim]`, in the block and at the offset, int64[rows]."""
        for which, vectors in enumerate((keys, values)):
            if self.scales is None:
                self.kv[layer, which][blocks, :, offsets] = vectors.to(self.kv.dtype)
            else:
                quantized, scales = quantize(vectors)
                self.kv[layer, which][blocks, :, offsets] = quantized
                self.scales[layer, which][blocks, :, offsets] = scales

    def read(self, layer: int, blocks: Tensor | slice, frames: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The keys and the values of the first frames of some blocks, each `[heads, frames, head_dim]` in `dtype`."""
        kv = joined(self.kv[layer][:, blocks])[:, :, :frames]
        if self.scales is None:
            keys, values = kv.to(dtype)
        else:
            keys, values = dequantize(kv, joined(self.scales[layer][:, blocks])[:, :, :frames], dtype)
        return keys, values


def joined(blocks: Tensor) -> Tensor:
    """Blocks as one piece: `[2, blocks, heads, frames, ...]` to `[2, heads, blocks * frames, ...]`."""
    return blocks.transpose(1, 2).flatten(2, 3)


def index_of(blocks: Tensor) -> Tensor | slice:
    """The index that selects these blocks: a slice, which copies nothing, where their numbers are consecutive."""
    numbers = blocks.tolist()
    whole = slice(numbers[0], numbers[0] + len(numbers))
    return whole if numbers == list(range(whole.start, whole.stop)) else blocks


class ReferenceBlockAttention:
    """Attention of one new frame in every row, in plain torch: row by row, over the frames that each call has used."""

    def __init__(self, cache: BlockCache, positions: Tensor, block_table: Tensor, pinned: Tensor) -> None:
        self._cache, context = cache, cache.architecture.context
        ring, far = query_positions(positions, context).unbind(dim=1)
        self._rotary, self._to_pinned = (RotaryEmbedding(each[:, None], cache.architecture) for each in (ring, far))
        places = places_of(positions, pinned, context)
        self._offsets = places % BLOCK_FRAMES
        self._blocks = block_table.gather(1, (places // BLOCK_FRAMES)[:, None])[:, 0]
        self._rows = []
        for position, kept, blocks in zip(positions.tolist(), pinned.tolist(), block_table, strict=True):
            count = min(position + 1, context)
            self._rows.append((index_of(blocks[: blocks_for(count)]), count, kept if position >= context else 0))

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        self._cache.write(layer, self._blocks, self._offsets, self._rotary(key)[:, :, 0], value[:, :, 0])
        to_ring = self._rotary(query)
        to_pinned = self._to_pinned(query) if any(pinned for *_, pinned in self._rows) else to_ring
        attended = []
        for row, (blocks, count, pinned) in enumerate(self._rows):
            keys, values = self._cache.read(layer, blocks, count, query.dtype)
            if pinned:
                attended.append(attend_twice(to_pinned[row], to_ring[row], keys, values, pinned)[None])
            else:
                attended.append(F.scaled_dot_product_attention(to_ring[row : row + 1], keys[None], values[None]))
        return torch.cat(attended)


def attend_twice(to_pinned: Tensor, to_ring: Tensor, keys: Tensor, values: Tensor, pinned: int) -> Tensor:
    """Attention of two rotations of one query, the first to the first `pinned` frames, the second to the others.

    Queries are `[heads, 1, head_dim]`, keys and values `[heads, frames, head_dim]`; the result is like a query.
    """
    wide = keys.float()
    scores = torch.cat([to_pinned.float() @ wide[:, :pinned].mT, to_ring.float() @ wide[:, pinned:].mT], dim=2)
    weights = (scores * keys.shape[2] ** -0.5).softmax(dim=2)
    attended: Tensor = weights @ values.float()
    return attended.to(to_ring.dtype)


class KernelBlockAttention:
    """What `ReferenceBlockAttention` computes, on a GPU in two launches."""

    def __init__(self, cache: BlockCache, positions: Tensor, block_table: Tensor, pinned: Tensor) -> None:
        self._cache, self._where = cache, (positions, pinned, block_table, cache.architecture.context)
        self._rotary = RotaryEmbedding(query_positions(positions, cache.architecture.context), cache.architecture)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        from core.engine.kernels.attention import block_attention  # Triton comes with torch's CUDA builds only

        kv, scales = self._cache.kv[layer], None if self._cache.scales is None else self._cache.scales[layer]
        return block_attention(query, key, value, kv, scales, *self._where, self._rotary)


class PrefillCache:
    """Keys and values of one prompt, filled chunk by chunk: `kv` is `[layer, key or value, head, time, head_dim]`."""

    def __init__(self, architecture: Architecture, length: int, device: torch.device, dtype: torch.dtype) -> None:
        self.architecture = architecture
        shape = (architecture.num_layers, 2, architecture.num_heads, length, architecture.head_dim)
        self.kv = torch.empty(shape, device=device, dtype=dtype)
        self._filled = 0

    def attention(self, count: int) -> "PrefillAttention":
        """Causal attention of the next `count` positions."""
        self._filled += count
        return PrefillAttention(self, self._filled - count, self._filled)


class PrefillAttention:
    """Causal attention of a prompt's positions `start` to `end`, the latter excluded, to those up to themselves."""

    def __init__(self, cache: PrefillCache, start: int, end: int) -> None:
        self._kv, self._start, self._end = cache.kv, start, end
        positions = torch.arange(start, end, device=cache.kv.device)
        self._rotary = RotaryEmbedding(positions[None], cache.architecture)
        self._mask = torch.ones(end - start, end, dtype=torch.bool, device=positions.device).tril(start)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = self._kv[layer]
        keys[:, self._start : self._end] = self._rotary(key)[0]
        values[:, self._start : self._end] = value[0]
        so_far = keys[None, :, : self._end], values[None, :, : self._end]
        return F.scaled_dot_product_attention(self._rotary(query), *so_far, attn_mask=self._mask)
