"""Multiplication by 8-bit weights on a CUDA card, for a few rows of activations: every weight is read once."""

import torch
import triton
import triton.language as tl
from torch import Tensor

MANY_ROWS = 16_384
"""From here on a card is full with larger tiles. This and the tiles' sizes: the best of a few tried on an H200."""
COLUMNS = 256
"""Columns of a tile."""


@triton.jit(do_not_specialize=["batch"])  # type: ignore[untyped-decorator]
def _int8_linear(  # type: ignore[no-untyped-def]
    x_pointer,
    weight_pointer,
    scale_pointer,
    out_pointer,
    batch,
    rows,
    columns,
    BATCH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    line = tl.program_id(1) * BATCH + tl.arange(0, BATCH)
    column = tl.arange(0, COLUMNS)
    inside = line[:, None] < batch
    x_at = x_pointer + line[:, None].to(tl.int64) * columns + column[None, :]
    weight_at = weight_pointer + row[None, :].to(tl.int64) * columns + column[:, None]
    sums = tl.zeros((BATCH, ROWS), dtype=tl.float32)
    for start in range(0, columns, COLUMNS):
        left = columns - start
        x = tl.load(x_at, mask=inside & (column[None, :] < left), other=0.0)
        weight = tl.load(weight_at, mask=(row[None, :] < rows) & (column[:, None] < left), other=0)
        sums = tl.dot(x, weight.to(x.dtype), sums)
        x_at += COLUMNS
        weight_at += COLUMNS
    sums *= tl.load(scale_pointer + row, mask=row < rows, other=0.0)[None, :]
    out_at = out_pointer + line[:, None].to(tl.int64) * rows + row[None, :]
    tl.store(out_at, sums.to(out_pointer.dtype.element_ty), mask=inside & (row[None, :] < rows))


def int8_linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """`x`: bfloat16 `[..., columns]`; `weight`: int8[rows, columns]; `scale`: float32[rows]; -> `[..., rows]`.

    Each sum runs over the columns in one order, whatever the batch. Its twin is `int8_linear_plainly`.
    """
    rows, columns = weight.shape
    lines = x.reshape(-1, columns)
    batch = len(lines)
    out = torch.empty(batch, rows, device=x.device, dtype=x.dtype)
    tile = min(64, max(16, triton.next_power_of_2(batch)))
    block_rows = 64 if rows > MANY_ROWS else 32
    # What a stage of the pipeline keeps in shared memory: an H200 has room for four, an A10G for two or three.
    stage = COLUMNS * (x.element_size() * tile + block_rows)
    room: int = torch.cuda.get_device_properties(x.device).shared_memory_per_block_optin  # type: ignore[attr-defined]
    grid = (triton.cdiv(rows, block_rows), triton.cdiv(batch, tile))
    _int8_linear[grid](
        lines, weight, scale, out, batch, rows, columns,
        BATCH=tile, ROWS=block_rows, COLUMNS=COLUMNS, num_warps=4, num_stages=max(1, min(4, room // stage)),
    )  # fmt: skip
    return out.view(*x.shape[:-1], rows)
