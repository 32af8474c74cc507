"""Attention of one new frame a row on a CUDA card: each call's cost is that of the frames it has used.

Blocks are looked at side by side and merged, as in Flash-Decoding (Dao et al., 2023), wherever they lie, as in
PagedAttention (Kwon et al., 2023). What one call computes does not depend on the others.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from core.engine.rotary import Rotation

PART = 64
"""Frames that a program holds in registers at a time. This and WARPS: the best for 1 and near the best for 32 rows on
an H200, as are the cache's blocks of 128 frames."""
WARPS = 2


@triton.jit  # type: ignore[untyped-decorator]
def _look(  # type: ignore[no-untyped-def]
    query_pointer,
    key_pointer,
    value_pointer,
    new_stride,
    head_stride,
    keys_pointer,
    values_pointer,
    positions_pointer,
    table_pointer,
    table_row,
    table_column,
    cos_pointer,
    sin_pointer,
    sums_pointer,
    best_pointer,
    seen_pointer,
    context,
    scale,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    PART: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """One block of one head of one row; the one that the new frame falls into also turns and keeps its key."""
    lane = tl.program_id(0)
    number = tl.program_id(1)
    row = lane // HEADS
    head = lane % HEADS
    channel = tl.arange(0, WIDTH)
    pair = tl.arange(0, WIDTH // 2)
    position = tl.load(positions_pointer + row)
    used = tl.minimum(position + 1, context)
    place = position % context
    start = number * BLOCK
    at = lane * BLOCKS + number
    best = tl.full((), -float("inf"), dtype=tl.float32)
    seen = tl.full((), 0.0, dtype=tl.float32)
    sums = tl.zeros((WIDTH,), dtype=tl.float32)
    if start < used:
        new = row * new_stride + head * head_stride
        cos = tl.load(cos_pointer + row * (WIDTH // 2) + pair)
        sin = tl.load(sin_pointer + row * (WIDTH // 2) + pair)
        kind = keys_pointer.dtype.element_ty
        even = tl.load(query_pointer + new + 2 * pair).to(tl.float32)
        odd = tl.load(query_pointer + new + 2 * pair + 1).to(tl.float32)
        query = tl.interleave(even * cos - odd * sin, even * sin + odd * cos).to(kind).to(tl.float32) * scale
        block = tl.load(table_pointer + row * table_row + number * table_column)
        kept = (block * HEADS + head) * (BLOCK * WIDTH)
        if (start <= place) & (place < start + BLOCK):
            even = tl.load(key_pointer + new + 2 * pair).to(tl.float32)
            odd = tl.load(key_pointer + new + 2 * pair + 1).to(tl.float32)
            key = tl.interleave(even * cos - odd * sin, even * sin + odd * cos).to(kind)
            value = tl.load(value_pointer + new + channel)
            tl.store(keys_pointer + kept + (place - start) * WIDTH + channel, key)
            tl.store(values_pointer + kept + (place - start) * WIDTH + channel, value)
            best = tl.sum(query * key.to(tl.float32))
            seen = tl.full((), 1.0, dtype=tl.float32)
            sums = value.to(tl.float32)
        for offset in range(0, BLOCK, PART):
            frame = offset + tl.arange(0, PART)
            visible = (start + frame < used) & (start + frame != place)
            here = kept + frame[:, None] * WIDTH + channel[None, :]
            keys = tl.load(keys_pointer + here, mask=visible[:, None], other=0.0).to(tl.float32)
            scores = tl.where(visible, tl.sum(keys * query[None, :], axis=1), -float("inf"))
            better = tl.maximum(best, tl.max(scores))
            safe = tl.where(better == -float("inf"), 0.0, better)
            weights = tl.exp(scores - safe)
            fade = tl.exp(best - safe)
            values = tl.load(values_pointer + here, mask=visible[:, None], other=0.0).to(tl.float32)
            sums = sums * fade + tl.sum(values * weights[:, None], axis=0)
            seen = seen * fade + tl.sum(weights)
            best = better
    tl.store(sums_pointer + at * WIDTH + channel, sums)
    tl.store(best_pointer + at, best)
    tl.store(seen_pointer + at, seen)


@triton.jit  # type: ignore[untyped-decorator]
def _merge(  # type: ignore[no-untyped-def]
    sums_pointer,
    best_pointer,
    seen_pointer,
    out_pointer,
    WIDTH: tl.constexpr,
    BLOCKS: tl.constexpr,
    PADDED: tl.constexpr,
):
    """The blocks of one head of one row, weighed and added."""
    lane = tl.program_id(0)
    number = tl.arange(0, PADDED)
    channel = tl.arange(0, WIDTH)
    real = number < BLOCKS
    best = tl.load(best_pointer + lane * BLOCKS + number, mask=real, other=-float("inf"))
    seen = tl.load(seen_pointer + lane * BLOCKS + number, mask=real, other=0.0)
    weight = tl.exp(best - tl.max(best))
    some = real & (seen > 0)
    sums = tl.load(
        sums_pointer + (lane * BLOCKS + number)[:, None] * WIDTH + channel[None, :], mask=some[:, None], other=0.0
    )
    out = tl.sum(sums * weight[:, None], axis=0) / tl.sum(seen * weight)
    tl.store(out_pointer + lane * WIDTH + channel, out.to(out_pointer.dtype.element_ty))


def attend_new_frame(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kept: Tensor,
    positions: Tensor,
    table: Tensor,
    context: int,
    rotation: Rotation,
) -> Tensor:
    """What `BlockView` computes: queries, keys and values `[rows, heads, 1, head_dim]`, not yet turned.

    `kept` is a layer's `[2, blocks, heads, frames, head_dim]`, which takes the new key and value in; `positions` is
    int64[rows], `table` int64[rows, n] the blocks of each. Returns `[rows, heads, 1, head_dim]`.
    """
    rows, heads, _, width = query.shape
    block, blocks = kept.shape[3], triton.cdiv(context, kept.shape[3])
    sums = torch.empty(rows, heads, blocks, width, device=query.device, dtype=torch.float32)
    best = torch.empty(2, rows, heads, blocks, device=query.device, dtype=torch.float32)
    out = torch.empty(rows, heads, 1, width, device=query.device, dtype=query.dtype)
    strides = query.stride(0), query.stride(1)
    if not (key.stride()[:2] == value.stride()[:2] == strides and query.stride(3) == 1):
        raise ValueError("query, key and value must be slices of one projection")
    _look[(rows * heads, blocks)](
        query, key, value, *strides, kept[0], kept[1], positions, table, *table.stride(), rotation.cos, rotation.sin,
        sums, best[0], best[1], context, width**-0.5,
        HEADS=heads, WIDTH=width, BLOCK=block, PART=min(PART, block), BLOCKS=blocks, num_warps=WARPS,
    )  # fmt: skip
    padded = triton.next_power_of_2(blocks)
    _merge[(rows * heads,)](sums, best[0], best[1], out, WIDTH=width, BLOCKS=blocks, PADDED=padded, num_warps=4)
    return out
