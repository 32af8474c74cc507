"""What Mimi does between its matrix products on a CUDA card. Twins: `Memory`, `attend_plainly`, `nearest_plainly`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

FLOATS = 1024
"""That one program moves."""
FRAMES = 256
"""Of the ring that one program looks at at a time: all of Kyutai's Mimi's."""
WARPS = 8
"""That do it."""
CODES = 32
"""That one program compares."""


@triton.jit  # type: ignore[untyped-decorator]
def _move(  # type: ignore[no-untyped-def]
    kept_pointer, slots_pointer, places_pointer, rows_pointer, active_pointer, count, width, row_stride,
    FLOATS: tl.constexpr,
):  # fmt: skip
    """With `active`: from rows to what is kept; without: from what is kept to rows."""
    row = tl.program_id(0).to(tl.int64)
    number = tl.program_id(1) * FLOATS + tl.arange(0, FLOATS)
    real = number < count
    kept_at = kept_pointer + tl.load(slots_pointer + row) * width + number
    row_at = rows_pointer + row * row_stride + tl.load(places_pointer + number, mask=real, other=0)
    if active_pointer is None:
        tl.store(row_at, tl.load(kept_at, mask=real), mask=real)
    else:
        counts = real & (tl.load(active_pointer + row) != 0)
        tl.store(kept_at, tl.load(row_at, mask=counts), mask=counts)


def move(kept: Tensor, slots: Tensor, places: Tensor, rows: Tensor, active: Tensor | None = None) -> None:
    """Between what is kept by slot, `[slots, floats]`, and these places of each row of working memory.

    With `active`, bool[rows], from the rows to what is kept, where that is true; without, the other way.
    """
    _move[(len(rows), triton.cdiv(len(places), FLOATS))](
        kept, slots, places, rows, active, len(places), kept.stride(0), rows.stride(0),
        FLOATS=FLOATS,
    )  # fmt: skip


@triton.jit
def _turned(even, odd, cos, sin):  # type: ignore[no-untyped-def]
    return tl.interleave(even * cos - odd * sin, even * sin + odd * cos)


@triton.jit  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]
    projected_pointer, keys_pointer, values_pointer, slots_pointer, active_pointer, position_pointer,
    cos_pointer, sin_pointer, out_pointer, context, scale,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, TIME: tl.constexpr, FRAMES: tl.constexpr,
):  # fmt: skip
    """One head of one row at one time of the frame, whose key and value it keeps."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    now = tl.program_id(2)
    time = tl.arange(0, TIME)
    channel = tl.arange(0, WIDTH)
    pair = tl.arange(0, WIDTH // 2)
    slot = tl.load(slots_pointer + row)
    active = tl.load(active_pointer + row) != 0
    position = tl.load(position_pointer + row)
    turn_at = row * TIME * (WIDTH // 2) + pair
    query_at = projected_pointer + (row * TIME * 3 * HEADS + head) * WIDTH
    moment = now * (3 * HEADS * WIDTH)
    query = _turned(
        tl.load(query_at + moment + 2 * pair),
        tl.load(query_at + moment + 2 * pair + 1),
        tl.load(cos_pointer + turn_at + now * (WIDTH // 2)),
        tl.load(sin_pointer + turn_at + now * (WIDTH // 2)),
    )
    query *= scale
    turns = turn_at[None, :] + time[:, None] * (WIDTH // 2)
    key_at = query_at + HEADS * WIDTH + time[:, None] * (3 * HEADS * WIDTH)
    key = _turned(
        tl.load(key_at + 2 * pair[None, :]),
        tl.load(key_at + 2 * pair[None, :] + 1),
        tl.load(cos_pointer + turns),
        tl.load(sin_pointer + turns),
    )
    value = tl.load(key_at + HEADS * WIDTH + channel[None, :])
    ring = (slot * HEADS + head) * context * WIDTH
    place = ((position + time) % context)[:, None] * WIDTH + channel[None, :]
    mine = active & (time == now)[:, None]
    tl.store(keys_pointer + ring + place, key, mask=mine)
    tl.store(values_pointer + ring + place, value, mask=mine)

    looks = tl.where(time <= now, tl.sum(key * query[None, :], axis=1), -float("inf"))
    best = tl.max(looks)
    shares = tl.exp(looks - best)
    seen = tl.sum(shares)
    sums = tl.sum(value * shares[:, None], axis=0)
    # How long before the frame each place of the ring was written, counted from 0; the frame falls on the oldest.
    old = tl.minimum(position, context - TIME)
    here_now = (position % context).to(tl.int32)
    for start in range(0, context, FRAMES):
        frame = start + tl.arange(0, FRAMES)
        age = (here_now + context - 1 - frame + context) % context
        visible = (frame < context) & (age < old)
        here = ring + frame[:, None] * WIDTH + channel[None, :]
        keys = tl.load(keys_pointer + here, mask=visible[:, None], other=0.0)
        values = tl.load(values_pointer + here, mask=visible[:, None], other=0.0)
        scores = tl.where(visible, tl.sum(keys * query[None, :], axis=1), -float("inf"))
        better = tl.maximum(best, tl.max(scores))
        weights = tl.exp(scores - better)
        fade = tl.exp(best - better)
        sums = sums * fade + tl.sum(values * weights[:, None], axis=0)
        seen = seen * fade + tl.sum(weights)
        best = better
    tl.store(out_pointer + ((row * TIME + now) * HEADS + head) * WIDTH + channel, sums / seen)


def attend(
    projected: Tensor, kept: Tensor, slots: Tensor, active: Tensor, position: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    """What `attend_plainly` in `mimi_transformer.py` says, for a frame of 1, 2, 4... times."""
    rows, time, _, heads, width = projected.shape
    out = torch.empty(rows, time, heads * width, device=projected.device)
    _attend[(rows, heads, time)](
        projected, kept[0], kept[1], slots, active, position, cos, sin, out, kept.shape[3], width**-0.5,
        HEADS=heads, WIDTH=width, TIME=time, FRAMES=FRAMES, num_warps=WARPS,
    )  # fmt: skip
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _nearest(  # type: ignore[no-untyped-def]
    projected_pointer, vectors_pointer, halves_pointer, best_pointer, card, first_codebook,
    CODEBOOKS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, CODES: tl.constexpr,
):  # fmt: skip
    """Some codes of one codebook for one row. What the codebooks before it have left is found anew by each program."""
    row = tl.program_id(1).to(tl.int64)
    codebook = first_codebook + tl.program_id(2)
    code = tl.program_id(0) * CODES + tl.arange(0, CODES)
    channel = tl.arange(0, PADDED)
    real = channel < WIDTH
    left = tl.load(projected_pointer + (2 * row + tl.minimum(codebook, 1)) * WIDTH + channel, mask=real, other=0.0)
    for before in range(1, codebook):
        chosen = tl.load(best_pointer + row * CODEBOOKS + before) & 0xFFFFFFFF
        left -= tl.load(vectors_pointer + (before * card + chosen) * WIDTH + channel, mask=real, other=0.0)
    number = codebook * card + code
    inside = code < card
    vectors_at = vectors_pointer + number[:, None] * WIDTH + channel[None, :]
    vectors = tl.load(vectors_at, mask=inside[:, None] & real[None, :], other=0.0)
    halves = tl.load(halves_pointer + number, mask=inside, other=float("inf"))
    distance = halves - tl.sum(vectors * left[None, :], axis=1)
    # An order-preserving integer form of float32 above, the code below: the least is the nearest, the first of equals.
    bits = distance.to(tl.int32, bitcast=True)
    order = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
    tl.atomic_min(best_pointer + row * CODEBOOKS + codebook, tl.min((order << 32) | code.to(tl.int64)))


def nearest(projected: Tensor, vectors: Tensor, halves: Tensor) -> Tensor:
    """What `nearest_plainly` in `mimi.py` says."""
    codebooks, codes, width = vectors.shape
    best = torch.full((len(projected), codebooks), torch.iinfo(torch.int64).max, device=projected.device)
    # The first codebook and the second both look at the features alone.
    for first, together in [(0, 2), *((codebook, 1) for codebook in range(2, codebooks))]:
        _nearest[(triton.cdiv(codes, CODES), len(projected), together)](
            projected, vectors, halves, best, codes, first, CODEBOOKS=codebooks, WIDTH=width,
            PADDED=triton.next_power_of_2(width), CODES=CODES,
        )  # fmt: skip
    return best & 0xFFFFFFFF
