"""Attention of one new frame in each row on a GPU, at a cost that follows the frames each call has used.

The blocks of a call are attended to in parallel and the partial results merged, as in Flash-Decoding (Dao et al.,
2023); they may lie anywhere in the cache, as in PagedAttention (Kwon et al., 2023). The result for one call does not
depend on the others.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from core.engine.kernels.quantization import FLIPPED_BYTE, quantize, words_to_float32
from core.engine.kernels.rotary import rotate_pairs
from core.engine.rotary import RotaryEmbedding

TILE_FRAMES = 64
"""Frames that a program holds in registers at a time.

This, WARPS and the cache's blocks of 128 frames are the best for 1 row and near the best for 32 rows on an H200.
"""
WARPS = 2
MERGE_WARPS = 4
INT8_REGISTERS = 128
"""Registers of a thread at most where the cache is int8: a multiprocessor then holds eight programs. They suffice for
the keys and the values of a tile together; those of other dtypes are loaded one after the other."""


@triton.jit  # type: ignore[untyped-decorator]
def has_part(number, position, pinned, context, BLOCKS: tl.constexpr, BLOCK_FRAMES: tl.constexpr):  # type: ignore[no-untyped-def]
    """Whether a row has a partial result: for each block in use and, beyond those of all blocks, for what is pinned in
    the block where the prompt ends, once the window moves. It is what `first < end` is in `_attend_block`.
    """
    beyond = (position >= context) & (pinned % BLOCK_FRAMES > 0)
    return tl.where(number < BLOCKS, number * BLOCK_FRAMES <= position, beyond)


@triton.jit  # type: ignore[untyped-decorator]
def load_vectors(pointer, frame, visible, HEAD_DIM: tl.constexpr):  # type: ignore[no-untyped-def]
    """Load the keys or the values of some frames, `[frame, head_dim]`; int8 in words, int32[frame, head_dim / 4]."""
    if pointer.dtype.element_ty == tl.int8:
        word = tl.arange(0, HEAD_DIM // 4)
        at = pointer.to(tl.pointer_type(tl.int32), bitcast=True) + frame[:, None] * (HEAD_DIM // 4) + word[None, :]
    else:
        channel = tl.arange(0, HEAD_DIM)
        at = pointer + frame[:, None] * HEAD_DIM + channel[None, :]
    return tl.load(at, mask=visible[:, None], other=0)


@triton.jit  # type: ignore[untyped-decorator]
def _attend_block(  # type: ignore[no-untyped-def]
    # The new frame, `[rows, heads, 1, head_dim]`; query, key and value have the same strides.
    query_pointer,
    key_pointer,
    value_pointer,
    row_stride,
    head_stride,
    # The cache of a layer, `[block, head, frame, head_dim]`.
    keys_pointer,
    values_pointer,
    # Its scales, float32[block, head, frame], where it is int8, else None.
    key_scales_pointer,
    value_scales_pointer,
    # Where the rows are: int64[rows], twice, and int64[rows, blocks].
    positions_pointer,
    pinned_pointer,
    block_table_pointer,
    block_table_row_stride,
    block_table_column_stride,
    # The rotary embedding, `[rows, 2, head_dim / 2]`: at the row's position, and for what is pinned.
    cos_pointer,
    sin_pointer,
    # The partial results, `[rows, heads, blocks + 1, ...]`.
    sums_pointer,
    maximum_pointer,
    total_pointer,
    context,
    scale,
    # FLIPPED_BYTE.
    flipped_byte,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_FRAMES: tl.constexpr,
    TILE_FRAMES: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Attend to one block, or to one kind of its frames, of one head of one row.

    The program whose block takes the new frame also rotates the frame's key and caches key and value. The scale of a
    key multiplies its score, and that of a value its weight, so that no scale is multiplied channel by channel.

    Programs of blocks that are not in use do nothing. In the grid they lie between those of two heads, so that they
    come and go while others wait for the memory.

    A program rotates its query for pinned frames or for the ring. Once the window moves, these differ, and the block in
    which the prompt ends has two programs: its own, for what is the ring's, and one beyond those of all blocks.
    """
    program = tl.program_id(0)
    head = tl.program_id(1)
    row = tl.program_id(2)
    channel = tl.arange(0, HEAD_DIM)
    pair = tl.arange(0, HEAD_DIM // 2)
    position = tl.load(positions_pointer + row).to(tl.int32)
    pinned = tl.load(pinned_pointer + row).to(tl.int32)
    used = tl.minimum(position + 1, context)
    place = tl.where(position < context, position, pinned + (position - context) % (context - pinned))
    moves = position >= context
    number = tl.where(program < BLOCKS, program, pinned // BLOCK_FRAMES)
    start = number * BLOCK_FRAMES
    first, end = start, tl.minimum(used, start + BLOCK_FRAMES)
    if moves & (number == pinned // BLOCK_FRAMES):
        first = tl.where(program < BLOCKS, pinned, start)
    if program == BLOCKS:
        end = tl.where(moves, pinned, start)
    if first < end:  # As `has_part` says.
        partial = (row * HEADS + head) * (BLOCKS + 1) + program
        maximum = tl.full((), -float("inf"), dtype=tl.float32)
        total = tl.full((), 0.0, dtype=tl.float32)
        sums = tl.zeros((HEAD_DIM,), dtype=tl.float32)
        new = row * row_stride + head * head_stride
        angles = row * HEAD_DIM + tl.where(first < pinned, HEAD_DIM // 2, 0) + pair
        cos = tl.load(cos_pointer + angles)
        sin = tl.load(sin_pointer + angles)
        dtype = key_pointer.dtype.element_ty
        even = tl.load(query_pointer + new + 2 * pair).to(tl.float32)
        odd = tl.load(query_pointer + new + 2 * pair + 1).to(tl.float32)
        query = rotate_pairs(even, odd, cos, sin).to(dtype).to(tl.float32) * scale
        block = tl.load(block_table_pointer + row * block_table_row_stride + number * block_table_column_stride)
        cached_scales = (block * HEADS + head) * BLOCK_FRAMES
        cached = cached_scales * HEAD_DIM
        if (first <= place) & (place < end):
            even = tl.load(key_pointer + new + 2 * pair).to(tl.float32)
            odd = tl.load(key_pointer + new + 2 * pair + 1).to(tl.float32)
            key = rotate_pairs(even, odd, cos, sin).to(dtype)
            value = tl.load(value_pointer + new + channel)
            if key_scales_pointer is not None:
                key, key_scale = quantize(key.to(tl.float32))
                value, value_scale = quantize(value.to(tl.float32))
                tl.store(key_scales_pointer + cached_scales + place - start, key_scale)
                tl.store(value_scales_pointer + cached_scales + place - start, value_scale)
            key = key.to(keys_pointer.dtype.element_ty)
            value = value.to(keys_pointer.dtype.element_ty)
            tl.store(keys_pointer + cached + (place - start) * HEAD_DIM + channel, key)
            tl.store(values_pointer + cached + (place - start) * HEAD_DIM + channel, value)
            maximum = tl.sum(query * key.to(tl.float32))
            total = tl.full((), 1.0, dtype=tl.float32)
            sums = value.to(tl.float32)
            if key_scales_pointer is not None:
                maximum *= key_scale
                sums *= value_scale
        for offset in range(0, BLOCK_FRAMES, TILE_FRAMES):
            frame = offset + tl.arange(0, TILE_FRAMES)
            visible = (first <= start + frame) & (start + frame < end) & (start + frame != place)
            keys = load_vectors(keys_pointer + cached, frame, visible, HEAD_DIM)
            if key_scales_pointer is None:
                keys = keys.to(tl.float32)
            else:
                values = load_vectors(values_pointer + cached, frame, visible, HEAD_DIM)
                keys = words_to_float32(keys, flipped_byte)
            scores = tl.sum(keys * query[None, :], axis=1)
            if key_scales_pointer is not None:
                scores *= tl.load(key_scales_pointer + cached_scales + frame, mask=visible, other=0.0)
            scores = tl.where(visible, scores, -float("inf"))
            new_maximum = tl.maximum(maximum, tl.max(scores))
            finite_maximum = tl.where(new_maximum == -float("inf"), 0.0, new_maximum)
            weights = tl.exp(scores - finite_maximum)
            rescale = tl.exp(maximum - finite_maximum)
            if value_scales_pointer is None:
                values = load_vectors(values_pointer + cached, frame, visible, HEAD_DIM).to(tl.float32)
            else:
                values = words_to_float32(values, flipped_byte)
            total = total * rescale + tl.sum(weights)
            if value_scales_pointer is not None:
                weights *= tl.load(value_scales_pointer + cached_scales + frame, mask=visible, other=0.0)
            sums = sums * rescale + tl.sum(values * weights[:, None], axis=0)
            maximum = new_maximum
        tl.store(sums_pointer + partial * HEAD_DIM + channel, sums)
        tl.store(maximum_pointer + partial, maximum)
        tl.store(total_pointer + partial, total)


@triton.jit  # type: ignore[untyped-decorator]
def _merge_blocks(  # type: ignore[no-untyped-def]
    sums_pointer,
    maximum_pointer,
    total_pointer,
    positions_pointer,
    pinned_pointer,
    out_pointer,
    context,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_FRAMES: tl.constexpr,
    BLOCKS: tl.constexpr,
    PADDED: tl.constexpr,
):
    """Merge the partial results of one head of one row."""
    row_and_head = tl.program_id(0)
    row = row_and_head // HEADS
    number = tl.arange(0, PADDED)
    channel = tl.arange(0, HEAD_DIM)
    position, pinned = tl.load(positions_pointer + row), tl.load(pinned_pointer + row)
    parts = row_and_head * (BLOCKS + 1) + number
    has = (number <= BLOCKS) & has_part(number, position, pinned, context, BLOCKS, BLOCK_FRAMES)
    maximum = tl.load(maximum_pointer + parts, mask=has, other=-float("inf"))
    total = tl.load(total_pointer + parts, mask=has, other=0.0)
    weight = tl.exp(maximum - tl.max(maximum))
    sums = tl.load(sums_pointer + parts[:, None] * HEAD_DIM + channel[None, :], mask=has[:, None], other=0.0)
    out = tl.sum(sums * weight[:, None], axis=0) / tl.sum(total * weight)
    tl.store(out_pointer + row_and_head * HEAD_DIM + channel, out.to(out_pointer.dtype.element_ty))


def block_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cached: Tensor,
    scales: Tensor | None,
    positions: Tensor,
    pinned: Tensor,
    block_table: Tensor,
    context: int,
    rotary: RotaryEmbedding,
) -> Tensor:
    """Compute what `ReferenceBlockAttention` in `kv_cache.py` does.

    `query`, `key` and `value` are `[rows, heads, 1, head_dim]`, before the rotary embedding. `cached`, a layer's
    `[2, blocks, heads, frames, head_dim]`, takes in the new key and value, and so does `scales`,
    float32[2, blocks, heads, frames], where it is int8; else `scales` is None. `positions` and `pinned` are
    int64[rows], and `block_table`, int64[rows, n], lists the blocks of each row's call. `rotary` has two positions for
    each row, those of `query_positions`. Returns `[rows, heads, 1, head_dim]`.

    Raises ValueError when query, key and value are not slices of one tensor.
    """
    rows, heads, _, head_dim = query.shape
    block_frames, blocks = cached.shape[3], triton.cdiv(context, cached.shape[3])
    parts = blocks + 1
    sums = torch.empty(rows, heads, parts, head_dim, device=query.device, dtype=torch.float32)
    maximum, total = torch.empty(2, rows, heads, parts, device=query.device, dtype=torch.float32)
    out = torch.empty(rows, heads, 1, head_dim, device=query.device, dtype=query.dtype)
    strides = query.stride(0), query.stride(1)
    if not (key.stride()[:2] == value.stride()[:2] == strides and query.stride(3) == 1):
        raise ValueError("query, key and value must be slices of one projection")
    _attend_block[(parts, heads, rows)](
        query, key, value, *strides, *cached, *((None, None) if scales is None else scales),
        positions, pinned, block_table, *block_table.stride(),
        rotary.cos, rotary.sin, sums, maximum, total, context, head_dim**-0.5, FLIPPED_BYTE,
        HEADS=heads, HEAD_DIM=head_dim, BLOCK_FRAMES=block_frames, TILE_FRAMES=min(TILE_FRAMES, block_frames),
        BLOCKS=blocks, num_warps=WARPS, maxnreg=None if scales is None else INT8_REGISTERS,
    )  # fmt: skip
    _merge_blocks[(rows * heads,)](
        sums, maximum, total, positions, pinned, out, context,
        HEADS=heads, HEAD_DIM=head_dim, BLOCK_FRAMES=block_frames, BLOCKS=blocks,
        PADDED=triton.next_power_of_2(parts), num_warps=MERGE_WARPS,
    )  # fmt: skip
    return out
