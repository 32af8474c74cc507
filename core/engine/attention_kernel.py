"""Attention of one new frame a slot on a CUDA card: each call's cost is that of the frames it has used.

Long windows are cut into chunks that are looked at side by side and merged, as in Flash-Decoding (Dao et al., 2023).
Chunks lie at fixed places, so what one call computes does not depend on the others.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from core.engine.cache import Rotation

CHUNK = 128
"""Frames that one program looks at. This, BLOCK and WARPS: the best for 1 and near the best for 32 slots on an H200."""
BLOCK = 64
"""Frames that it holds in registers at a time."""
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
    cos_pointer,
    sin_pointer,
    sums_pointer,
    best_pointer,
    seen_pointer,
    context,
    scale,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """One chunk of one head of one slot; the chunk that the new frame falls into also turns and keeps its key."""
    lane = tl.program_id(0)
    chunk = tl.program_id(1)
    slot = lane // HEADS
    head = lane % HEADS
    channel = tl.arange(0, WIDTH)
    pair = tl.arange(0, WIDTH // 2)
    position = tl.load(positions_pointer + slot)
    used = tl.minimum(position + 1, context)
    place = position % context
    start = chunk * CHUNK
    at = lane * CHUNKS + chunk
    best = tl.full((), -float("inf"), dtype=tl.float32)
    seen = tl.full((), 0.0, dtype=tl.float32)
    sums = tl.zeros((WIDTH,), dtype=tl.float32)
    if start < used:
        new = slot * new_stride + head * head_stride
        cos = tl.load(cos_pointer + slot * (WIDTH // 2) + pair)
        sin = tl.load(sin_pointer + slot * (WIDTH // 2) + pair)
        kind = keys_pointer.dtype.element_ty
        even = tl.load(query_pointer + new + 2 * pair).to(tl.float32)
        odd = tl.load(query_pointer + new + 2 * pair + 1).to(tl.float32)
        query = tl.interleave(even * cos - odd * sin, even * sin + odd * cos).to(kind).to(tl.float32) * scale
        kept = lane.to(tl.int64) * context * WIDTH
        if (start <= place) & (place < start + CHUNK):
            even = tl.load(key_pointer + new + 2 * pair).to(tl.float32)
            odd = tl.load(key_pointer + new + 2 * pair + 1).to(tl.float32)
            key = tl.interleave(even * cos - odd * sin, even * sin + odd * cos).to(kind)
            value = tl.load(value_pointer + new + channel)
            tl.store(keys_pointer + kept + place * WIDTH + channel, key)
            tl.store(values_pointer + kept + place * WIDTH + channel, value)
            best = tl.sum(query * key.to(tl.float32))
            seen = tl.full((), 1.0, dtype=tl.float32)
            sums = value.to(tl.float32)
        for offset in range(0, CHUNK, BLOCK):
            frame = start + offset + tl.arange(0, BLOCK)
            visible = (frame < used) & (frame != place)
            here = kept + frame[:, None].to(tl.int64) * WIDTH + channel[None, :]
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
    CHUNKS: tl.constexpr,
    PADDED: tl.constexpr,
):
    """The chunks of one head of one slot, weighed and added."""
    lane = tl.program_id(0)
    chunk = tl.arange(0, PADDED)
    channel = tl.arange(0, WIDTH)
    real = chunk < CHUNKS
    best = tl.load(best_pointer + lane * CHUNKS + chunk, mask=real, other=-float("inf"))
    seen = tl.load(seen_pointer + lane * CHUNKS + chunk, mask=real, other=0.0)
    weight = tl.exp(best - tl.max(best))
    some = real & (seen > 0)
    sums = tl.load(
        sums_pointer + (lane * CHUNKS + chunk)[:, None] * WIDTH + channel[None, :], mask=some[:, None], other=0.0
    )
    out = tl.sum(sums * weight[:, None], axis=0) / tl.sum(seen * weight)
    tl.store(out_pointer + lane * WIDTH + channel, out.to(out_pointer.dtype.element_ty))


def attend_new_frame(
    query: Tensor, key: Tensor, value: Tensor, kept: Tensor, positions: Tensor, rotation: Rotation
) -> Tensor:
    """What `SlotView` computes: queries, keys and values `[slots, heads, 1, head_dim]`, not yet turned.

    `kept` is a layer's `[2, slots, heads, context, head_dim]`, which takes the new key and value in; `positions` is
    int64[slots]. Returns `[slots, heads, 1, head_dim]`.
    """
    slots, heads, _, width = query.shape
    context = kept.shape[3]
    chunks = triton.cdiv(context, CHUNK)
    sums = torch.empty(slots, heads, chunks, width, device=query.device, dtype=torch.float32)
    best = torch.empty(2, slots, heads, chunks, device=query.device, dtype=torch.float32)
    out = torch.empty(slots, heads, 1, width, device=query.device, dtype=query.dtype)
    strides = query.stride(0), query.stride(1)
    if not (key.stride()[:2] == value.stride()[:2] == strides and query.stride(3) == 1):
        raise ValueError("query, key and value must be slices of one projection")
    _look[(slots * heads, chunks)](
        query, key, value, *strides, kept[0], kept[1], positions, rotation.cos, rotation.sin, sums, best[0], best[1],
        context, width**-0.5,
        HEADS=heads, WIDTH=width, CHUNK=CHUNK, BLOCK=BLOCK, CHUNKS=chunks, num_warps=WARPS,
    )  # fmt: skip
    padded = triton.next_power_of_2(chunks)
    _merge[(slots * heads,)](sums, best[0], best[1], out, WIDTH=width, CHUNKS=chunks, PADDED=padded, num_warps=4)
    return out
