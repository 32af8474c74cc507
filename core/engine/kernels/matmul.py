"""Matrix products for few lines of activations on a CUDA card, with what comes before and after them in one launch.

Every weight is read once, plain or with 8 bits. A line's result is the same whatever the number of lines beside it:
each sum runs over the columns in one order, in matrix instructions of one shape; a long one is cut into parts, made
side by side and added in one order. So the step may run at the size of the calls that talk, and nobody hears it.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

# The tiles' sizes: the best of a few tried on an H200.
MANY_ROWS = 16_384
"""Of a matrix: from here on a card is full with larger tiles."""
MAX_LINES = 32
"""Of a tile; from 64 on, Hopper's matrix instructions have another shape, and round otherwise."""
LONG = 64
"""Times of a batch's element from which on a tile has so many lines: there are as many whatever the batch."""
COLUMNS = {1: 256, 2: 128, 4: 64}
"""Of a tile, by the bytes of a weight."""
LONG_COLUMNS = 32
"""Of a tile of LONG lines, at most."""
STAGES = 4
"""Of the pipeline, where the card's shared memory has room."""
SHORT, PART = 1024, 512
"""Columns up to which a sum is one, and columns of a longer one's parts, at least."""
MOST_PARTS = 16_384
"""Of all rows' sums: as many programs as fill a card, times the rows of a tile."""
COUNTERS = 1 << 16
"""Tiles of a product whose sums are cut, at most."""


@triton.jit(do_not_specialize=["lines"])  # type: ignore[untyped-decorator]
def _linear(  # type: ignore[no-untyped-def]
    x_pointer,
    weight_pointer,
    scale_pointer,
    bias_pointer,
    residual_pointer,
    out_pointer,
    elu_pointer,
    parts_pointer,
    counters_pointer,
    lines,
    time,
    rows,
    columns,
    x_batch,
    x_time,
    residual_batch,
    residual_time,
    out_batch,
    out_time,
    elu_batch,
    elu_time,
    epsilon,
    LINES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CENTRED: tl.constexpr,
    GATED: tl.constexpr,
    GELU: tl.constexpr,
    PARTS: tl.constexpr,
):
    line = tl.program_id(0) * LINES + tl.arange(0, LINES)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = line[:, None] < lines
    batch = (line // time).to(tl.int64)[:, None]
    moment = (line % time)[:, None]
    first = 0
    end = columns
    if PARTS > 1:
        part = tl.cdiv(tl.cdiv(columns, COLUMNS), PARTS) * COLUMNS
        first = tl.program_id(2) * part
        end = tl.minimum(columns, first + part)
    x_at = x_pointer + batch * x_batch + moment * x_time + first + column[None, :]
    weight_at = weight_pointer + row[None, :].to(tl.int64) * columns + first + column[:, None]
    sums = tl.zeros((LINES, ROWS), dtype=tl.float32)
    values = tl.zeros((LINES, ROWS), dtype=tl.float32)
    squares = tl.zeros((LINES,), dtype=tl.float32)
    mean = tl.zeros((LINES,), dtype=tl.float32)
    if CENTRED:
        for start in range(0, columns, COLUMNS):
            mean += tl.sum(tl.load(x_at + start, mask=inside & (column[None, :] < columns - start), other=0.0), axis=1)
        mean /= columns
    for start in range(first, end, COLUMNS):
        left = end - start
        x = tl.load(x_at, mask=inside & (column[None, :] < left), other=0.0)
        weight = tl.load(weight_at, mask=(row[None, :] < rows) & (column[:, None] < left), other=0)
        if CENTRED:
            x = tl.where(column[None, :] < left, x - mean[:, None], 0.0)
            squares += tl.sum(x * x, axis=1)
        sums = tl.dot(x, weight.to(x.dtype), sums, input_precision="tf32x3")
        if GATED:
            below = weight_at + rows.to(tl.int64) * columns
            weight = tl.load(below, mask=(row[None, :] < rows) & (column[:, None] < left), other=0)
            values = tl.dot(x, weight.to(x.dtype), values, input_precision="tf32x3")
        x_at += COLUMNS
        weight_at += COLUMNS
    mask = inside & (row[None, :] < rows)
    if PARTS > 1:
        # Whichever program of a tile is the last adds up the parts, always in the same order.
        tile = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        place = tl.arange(0, LINES)[:, None] * ROWS + tl.arange(0, ROWS)[None, :]
        parts_at = parts_pointer + tile.to(tl.int64) * (PARTS * LINES * ROWS) + place
        tl.store(parts_at + tl.program_id(2) * (LINES * ROWS), sums)
        tl.debug_barrier()
        last = tl.atomic_add(counters_pointer + tile, 1, sem="acq_rel") == PARTS - 1
        sums = tl.zeros((LINES, ROWS), dtype=tl.float32)
        if last:
            for number in range(PARTS):
                sums += tl.load(parts_at + number * (LINES * ROWS), cache_modifier=".cg")
            tl.store(counters_pointer + tile, 0)
        mask = mask & last
    if scale_pointer is not None:
        sums *= tl.load(scale_pointer + row, mask=row < rows, other=0.0)[None, :]
        if GATED:
            values *= tl.load(scale_pointer + rows + row, mask=row < rows, other=0.0)[None, :]
    if CENTRED:
        sums *= tl.rsqrt(squares / columns + epsilon)[:, None]
    if bias_pointer is not None:
        sums += tl.load(bias_pointer + row, mask=row < rows, other=0.0)[None, :]
    if GATED:
        sums = sums / (1 + tl.exp(-sums)) * values
    if GELU:
        sums = 0.5 * sums * (1 + tl.erf(sums * 0.7071067811865476))
    if residual_pointer is not None:
        at = residual_pointer + batch * residual_batch + moment * residual_time + row[None, :]
        sums += tl.load(at, mask=mask, other=0.0).to(tl.float32)
    if out_pointer is not None:
        out_at = out_pointer + batch * out_batch + moment * out_time + row[None, :]
        tl.store(out_at, sums.to(out_pointer.dtype.element_ty), mask=mask)
    if elu_pointer is not None:
        elu_at = elu_pointer + batch * elu_batch + moment * elu_time + row[None, :]
        elu = tl.where(sums > 0, sums, tl.exp(tl.minimum(sums, 0.0)) - 1)
        tl.store(elu_at, elu.to(elu_pointer.dtype.element_ty), mask=mask)


def linear(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None = None,
    *,
    centred: bool = False,
    epsilon: float = 0.0,
    gated: bool = False,
    bias: Tensor | None = None,
    gelu: bool = False,
    residual: Tensor | None = None,
    out: Tensor | None = None,
    elu: Tensor | None = None,
) -> Tensor:
    """`[batch, (time,) columns] -> [batch, (time,) rows]`; its twin is `linear_plainly` in `linear.py`, which says what
    the parts are.

    Tensors may be strided views, as long as their last dimension is contiguous. Numbers in float32 are multiplied as
    three products of TensorFloat-32, which lose little.
    """
    rows, columns = weight.shape
    if gated:
        rows //= 2
    made = elu if out is None else out
    if made is None:
        made = out = torch.empty(*x.shape[:-1], rows, device=x.device, dtype=x.dtype)
    batch, time = x.shape[0], x.shape[1] if x.dim() == 3 else 1
    lines = batch * time
    multiprocessors, room, counters = card(x.device)
    size = weight.element_size()
    # What a line's rounding depends on, the parts and the matrix instruction, must not depend on the batch.
    parts = 1 if centred or gated or columns <= SHORT else min(columns // PART, MOST_PARTS // rows)
    parts = 1 << max(0, parts.bit_length() - 1)
    block_rows, block_columns = 64 if rows > MANY_ROWS else 32, COLUMNS[size]
    if time >= LONG:
        block_lines, block_columns = LONG, 16 if columns <= 16 else LONG_COLUMNS
    else:
        block_lines = 16 if lines <= 16 else MAX_LINES
        if not gated and triton.cdiv(lines, block_lines) * triton.cdiv(rows, block_rows) * parts < multiprocessors:
            block_rows = 16
    tiles = triton.cdiv(lines, block_lines), triton.cdiv(rows, block_rows)
    sums = None
    if parts > 1:
        if tiles[0] * tiles[1] > COUNTERS:
            raise ValueError(f"{lines} lines are too many for a product with {rows} rows")
        sums = torch.empty(tiles[0] * tiles[1] * parts * block_lines * block_rows, device=x.device)
    # What a stage of the pipeline keeps in shared memory: an H200 has room for four, an A10G for two or three.
    stage = block_columns * (x.element_size() * block_lines + size * block_rows * (2 if gated else 1))
    # The tiles that share weights are neighbours, so that the second finds them in the cache.
    _linear[(*tiles, parts)](
        x, weight, scale, bias, residual, out, elu, sums, counters, lines, time, rows, columns,
        *strides(x), *strides(residual), *strides(out), *strides(elu), epsilon,
        LINES=block_lines, ROWS=block_rows, COLUMNS=block_columns, CENTRED=centred, GATED=gated, GELU=gelu, PARTS=parts,
        num_warps=4, num_stages=max(1, min(STAGES, room // stage)),
    )  # fmt: skip
    return made


def strides(x: Tensor | None) -> tuple[int, int]:
    """Of the batch and of the time, for `[batch, (time,) columns]`."""
    if x is None:
        return 0, 0
    if x.stride(-1) != 1:
        raise ValueError("the last dimension must be contiguous")
    return x.stride(0), x.stride(1) if x.dim() == 3 else 0


@cache
def card(device: torch.device) -> tuple[int, int, Tensor]:
    """A card's multiprocessors, bytes of shared memory in each, and counters, which every product leaves at zero.

    Products share them, so they must run one after the other, as they do on one stream.
    """
    properties = torch.cuda.get_device_properties(device)
    room: int = properties.shared_memory_per_block_optin  # type: ignore[attr-defined]
    return properties.multi_processor_count, room, torch.zeros(COUNTERS, dtype=torch.int32, device=device)
