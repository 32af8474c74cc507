"""Mimi's work between its matmuls, on a GPU: streaming state, attention, and the search for the nearest codes."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from core.engine.kernels.rotary import rotate_pairs

COPIED_FLOATS = 1024
"""Floats that one program copies."""
TILE_TIMES = 256
"""Times of the ring that a program attends to at once: all of Kyutai's Mimi's."""
ATTENTION_WARPS = 8
COMPARED_CODES = 32
"""Codes that one program compares."""


@triton.jit  # type: ignore[untyped-decorator]
def _copy_state(  # type: ignore[no-untyped-def]
    state_pointer, slots_pointer, places_pointer, rows_pointer, active_pointer, count, width, row_stride,
    FLOATS: tl.constexpr,
):  # fmt: skip
    """With `active`, copy from the rows to the state; without it, from the state to the rows."""
    row = tl.program_id(0).to(tl.int64)
    number = tl.program_id(1) * FLOATS + tl.arange(0, FLOATS)
    inside = number < count
    state_at = state_pointer + tl.load(slots_pointer + row) * width + number
    row_at = rows_pointer + row * row_stride + tl.load(places_pointer + number, mask=inside, other=0)
    if active_pointer is None:
        tl.store(row_at, tl.load(state_at, mask=inside), mask=inside)
    else:
        active = inside & (tl.load(active_pointer + row) != 0)
        tl.store(state_at, tl.load(row_at, mask=active), mask=active)


def load_state(state: Tensor, slots: Tensor, places: Tensor, rows: Tensor) -> None:
    """Copy the state of `slots`, from `[slots, floats]`, to the given places of each row of working memory."""
    _launch_copy(state, slots, places, rows, None)


def save_state(state: Tensor, slots: Tensor, places: Tensor, rows: Tensor, active: Tensor) -> None:
    """Copy the given places of each row of working memory to the state, where `active`, bool[rows], is true."""
    _launch_copy(state, slots, places, rows, active)


def _launch_copy(state: Tensor, slots: Tensor, places: Tensor, rows: Tensor, active: Tensor | None) -> None:
    _copy_state[(len(rows), triton.cdiv(len(places), COPIED_FLOATS))](
        state, slots, places, rows, active, len(places), state.stride(0), rows.stride(0),
        FLOATS=COPIED_FLOATS,
    )  # fmt: skip


@triton.jit  # type: ignore[untyped-decorator]
def _ring_attention(  # type: ignore[no-untyped-def]
    projected_pointer, keys_pointer, values_pointer, slots_pointer, active_pointer, position_pointer,
    cos_pointer, sin_pointer, out_pointer, context, scale,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, TIME: tl.constexpr, TILE_TIMES: tl.constexpr,
):  # fmt: skip
    """Attend from one time of the frame in one head of one row, and cache that time's key and value."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    now = tl.program_id(2)
    time = tl.arange(0, TIME)
    channel = tl.arange(0, HEAD_DIM)
    pair = tl.arange(0, HEAD_DIM // 2)
    slot = tl.load(slots_pointer + row)
    active = tl.load(active_pointer + row) != 0
    position = tl.load(position_pointer + row)
    angle_at = row * TIME * (HEAD_DIM // 2) + pair
    query_at = projected_pointer + (row * TIME * 3 * HEADS + head) * HEAD_DIM
    now_at = now * (3 * HEADS * HEAD_DIM)
    query = rotate_pairs(
        tl.load(query_at + now_at + 2 * pair),
        tl.load(query_at + now_at + 2 * pair + 1),
        tl.load(cos_pointer + angle_at + now * (HEAD_DIM // 2)),
        tl.load(sin_pointer + angle_at + now * (HEAD_DIM // 2)),
    )
    query *= scale
    angles_at = angle_at[None, :] + time[:, None] * (HEAD_DIM // 2)
    key_at = query_at + HEADS * HEAD_DIM + time[:, None] * (3 * HEADS * HEAD_DIM)
    key = rotate_pairs(
        tl.load(key_at + 2 * pair[None, :]),
        tl.load(key_at + 2 * pair[None, :] + 1),
        tl.load(cos_pointer + angles_at),
        tl.load(sin_pointer + angles_at),
    )
    value = tl.load(key_at + HEADS * HEAD_DIM + channel[None, :])
    ring = (slot * HEADS + head) * context * HEAD_DIM
    place = ((position + time) % context)[:, None] * HEAD_DIM + channel[None, :]
    own = active & (time == now)[:, None]
    tl.store(keys_pointer + ring + place, key, mask=own)
    tl.store(values_pointer + ring + place, value, mask=own)

    frame_scores = tl.where(time <= now, tl.sum(key * query[None, :], axis=1), -float("inf"))
    maximum = tl.max(frame_scores)
    frame_weights = tl.exp(frame_scores - maximum)
    total = tl.sum(frame_weights)
    sums = tl.sum(value * frame_weights[:, None], axis=0)
    # How long before the frame each place of the ring was written, counted from 0; the frame overwrites the oldest.
    old = tl.minimum(position, context - TIME)
    ring_start = (position % context).to(tl.int32)
    for start in range(0, context, TILE_TIMES):
        cached = start + tl.arange(0, TILE_TIMES)
        age = (ring_start + context - 1 - cached + context) % context
        visible = (cached < context) & (age < old)
        tile = ring + cached[:, None] * HEAD_DIM + channel[None, :]
        keys = tl.load(keys_pointer + tile, mask=visible[:, None], other=0.0)
        values = tl.load(values_pointer + tile, mask=visible[:, None], other=0.0)
        scores = tl.where(visible, tl.sum(keys * query[None, :], axis=1), -float("inf"))
        new_maximum = tl.maximum(maximum, tl.max(scores))
        weights = tl.exp(scores - new_maximum)
        rescale = tl.exp(maximum - new_maximum)
        sums = sums * rescale + tl.sum(values * weights[:, None], axis=0)
        total = total * rescale + tl.sum(weights)
        maximum = new_maximum
    tl.store(out_pointer + ((row * TIME + now) * HEADS + head) * HEAD_DIM + channel, sums / total)


def ring_attention(
    projected: Tensor, cached: Tensor, slots: Tensor, active: Tensor, position: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    """Compute what `ReferenceRingAttention` in `core.engine.mimi.transformer` does, which also documents the arguments.

    The number of times in a frame must be a power of two.
    """
    rows, time, _, heads, head_dim = projected.shape
    out = torch.empty(rows, time, heads * head_dim, device=projected.device)
    _ring_attention[(rows, heads, time)](
        projected, cached[0], cached[1], slots, active, position, cos, sin, out, cached.shape[3], head_dim**-0.5,
        HEADS=heads, HEAD_DIM=head_dim, TIME=time, TILE_TIMES=TILE_TIMES, num_warps=ATTENTION_WARPS,
    )  # fmt: skip
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _nearest_codes(  # type: ignore[no-untyped-def]
    projected_pointer, vectors_pointer, half_squares_pointer, best_pointer, codebook_size, first_codebook,
    CODEBOOKS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, CODES: tl.constexpr,
):  # fmt: skip
    """Compare some codes of one codebook for one row; each program computes the preceding codebooks' residual anew."""
    row = tl.program_id(1).to(tl.int64)
    codebook = first_codebook + tl.program_id(2)
    code = tl.program_id(0) * CODES + tl.arange(0, CODES)
    channel = tl.arange(0, PADDED)
    in_width = channel < WIDTH
    at = projected_pointer + (2 * row + tl.minimum(codebook, 1)) * WIDTH + channel
    residual = tl.load(at, mask=in_width, other=0.0)
    for before in range(1, codebook):
        chosen = tl.load(best_pointer + row * CODEBOOKS + before) & 0xFFFFFFFF
        vector_at = vectors_pointer + (before * codebook_size + chosen) * WIDTH + channel
        residual -= tl.load(vector_at, mask=in_width, other=0.0)
    number = codebook * codebook_size + code
    inside = code < codebook_size
    vectors_at = vectors_pointer + number[:, None] * WIDTH + channel[None, :]
    vectors = tl.load(vectors_at, mask=inside[:, None] & in_width[None, :], other=0.0)
    half_squares = tl.load(half_squares_pointer + number, mask=inside, other=float("inf"))
    distance = half_squares - tl.sum(vectors * residual[None, :], axis=1)
    # An order-preserving integer form of float32 above, the code below: the least is the nearest, the first of equals.
    bits = distance.to(tl.int32, bitcast=True)
    order = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
    tl.atomic_min(best_pointer + row * CODEBOOKS + codebook, tl.min((order << 32) | code.to(tl.int64)))


def nearest_codes(projected: Tensor, vectors: Tensor, half_squares: Tensor) -> Tensor:
    """Compute what `reference_nearest_codes` in `core.engine.mimi.coder` does."""
    codebooks, codebook_size, width = vectors.shape
    best = torch.full((len(projected), codebooks), torch.iinfo(torch.int64).max, device=projected.device)
    # The first codebook and the second both quantize the features themselves, so they go together.
    for first, together in [(0, 2), *((codebook, 1) for codebook in range(2, codebooks))]:
        _nearest_codes[(triton.cdiv(codebook_size, COMPARED_CODES), len(projected), together)](
            projected, vectors, half_squares, best, codebook_size, first, CODEBOOKS=codebooks, WIDTH=width,
            PADDED=triton.next_power_of_2(width), CODES=COMPARED_CODES,
        )  # fmt: skip
    return best & 0xFFFFFFFF
