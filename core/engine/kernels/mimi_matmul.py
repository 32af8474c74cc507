"""Mimi's matmuls on a GPU, with what comes before and after them in the same launch.

float32 is multiplied as three products of TensorFloat-32, and the sum over a tile's input features is added to the
others in float32: the matrix instructions' own sums lose more. A row's result is the same whatever the number of rows
beside it, for the same reasons as in `matmul`.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from core.engine.kernels.launch import Tile, add_parts, gpu_of, power_of_2

# Sizes of tiles, rows x outputs x inputs: the best of a few tried on an H100.
LONG_TIME = 64
"""Times per batch element from which on tiles have this many rows, or twice as many: there are as many whatever the
batch, and Hopper's wide matrix instruction takes 64."""
MIN_ROWS, MAX_ROWS = 16, 32
"""Rows of other tiles, whose matrix instructions are the narrow ones."""
MIN_OUTPUTS, MAX_OUTPUTS = 32, 64
"""Outputs of a tile: few where the tiles would not fill the GPU."""
INPUTS = 64
"""Input features that a tile multiplies at a time."""
LONG_TIME_INPUTS, NARROW_INPUTS = 32, 16
"""The same for tiles of LONG_TIME rows, and of those where there are no more input features than the latter."""
STAGES = 3
"""Stages of the software pipeline."""
WARPS = 4

MIN_SPLIT_INPUTS = 256
"""Input features in a part of a split sum, at least; twice as many from LONG_TIME on."""
MAX_SPLIT_OUTPUTS = 8192
"""Outputs times parts of a split sum, at most."""


@triton.jit
def _round(x):  # type: ignore[no-untyped-def]
    """Round float32 to the ten bits of mantissa that TensorFloat-32 has."""
    return ((x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["rows"])  # type: ignore[untyped-decorator]
def _mimi_linear(  # type: ignore[no-untyped-def]
    # Operands; bias and residual may be None.
    x_pointer,
    weight_pointer,
    bias_pointer,
    residual_pointer,
    # Results; either may be None.
    out_pointer,
    elu_pointer,
    # As `add_parts` describes them.
    partial_sums_pointer,
    counters_pointer,
    # Sizes; a row is one time of one batch element.
    rows,
    time,
    out_features,
    in_features,
    # Strides of what is `[batch, time, features]`.
    x_batch_stride,
    x_time_stride,
    residual_batch_stride,
    residual_time_stride,
    out_batch_stride,
    out_time_stride,
    elu_batch_stride,
    elu_time_stride,
    # The epsilon of the layer norm.
    epsilon,
    # The tile, and what surrounds the matmul.
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    CENTRED: tl.constexpr,
    GELU: tl.constexpr,
    SPLIT_K: tl.constexpr,
):
    """Compute one tile of the result, or one part of its sums."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    feature = tl.arange(0, INPUTS)
    row_inside = row[:, None] < rows
    output_inside = output[None, :] < out_features
    batch = (row // time).to(tl.int64)[:, None]
    moment = (row % time)[:, None]
    first = 0
    end = in_features
    if SPLIT_K > 1:
        part = tl.cdiv(tl.cdiv(in_features, INPUTS), SPLIT_K) * INPUTS
        first = tl.program_id(2) * part
        end = tl.minimum(in_features, first + part)
    x_at = x_pointer + batch * x_batch_stride + moment * x_time_stride + first + feature[None, :]
    weight_at = weight_pointer + output[None, :].to(tl.int64) * in_features + first + feature[:, None]
    sums = tl.zeros((ROWS, OUTPUTS), dtype=tl.float32)
    squares = tl.zeros((ROWS,), dtype=tl.float32)
    mean = tl.zeros((ROWS,), dtype=tl.float32)
    if CENTRED:
        for start in range(0, in_features, INPUTS):
            inside = row_inside & (feature[None, :] < in_features - start)
            mean += tl.sum(tl.load(x_at + start, mask=inside, other=0.0), axis=1)
        mean /= in_features

    for start in range(first, end, INPUTS):
        left = end - start
        x = tl.load(x_at, mask=row_inside & (feature[None, :] < left), other=0.0)
        weight = tl.load(weight_at, mask=output_inside & (feature[:, None] < left), other=0.0)
        if CENTRED:
            x = tl.where(feature[None, :] < left, x - mean[:, None], 0.0)
            squares += tl.sum(x * x, axis=1)
        rounded_x = _round(x)
        rounded_weight = _round(weight)
        tile = tl.dot(x - rounded_x, rounded_weight, input_precision="tf32")
        tile = tl.dot(rounded_x, weight - rounded_weight, tile, input_precision="tf32")
        sums += tl.dot(rounded_x, rounded_weight, tile, input_precision="tf32")
        x_at += INPUTS
        weight_at += INPUTS
    mask = row_inside & output_inside
    if SPLIT_K > 1:
        place = tl.arange(0, ROWS)[:, None] * OUTPUTS + tl.arange(0, OUTPUTS)[None, :]
        sums, last = add_parts(sums, place, partial_sums_pointer, counters_pointer, ROWS * OUTPUTS, SPLIT_K)
        mask = mask & last

    # What comes after the matmul, in the order that `reference_linear` documents.
    if CENTRED:
        sums *= tl.rsqrt(squares / in_features + epsilon)[:, None]
    if bias_pointer is not None:
        sums += tl.load(bias_pointer + output, mask=output < out_features, other=0.0)[None, :]
    if GELU:
        sums = 0.5 * sums * (1 + tl.erf(sums * 0.7071067811865476))
    if residual_pointer is not None:
        residual_at = residual_pointer + batch * residual_batch_stride + moment * residual_time_stride + output[None, :]
        sums += tl.load(residual_at, mask=mask, other=0.0)
    if out_pointer is not None:
        out_at = out_pointer + batch * out_batch_stride + moment * out_time_stride + output[None, :]
        tl.store(out_at, sums, mask=mask)
    if elu_pointer is not None:
        elu_at = elu_pointer + batch * elu_batch_stride + moment * elu_time_stride + output[None, :]
        tl.store(elu_at, tl.where(sums > 0, sums, tl.exp(tl.minimum(sums, 0.0)) - 1), mask=mask)


def linear(
    x: Tensor,
    weight: Tensor,
    *,
    centred: bool = False,
    epsilon: float = 0.0,
    bias: Tensor | None = None,
    gelu: bool = False,
    residual: Tensor | None = None,
    out: Tensor | None = None,
    elu: Tensor | None = None,
) -> Tensor:
    """Compute what `reference_linear` in `core.engine.mimi.linear` does, which also documents the arguments.

    Maps float32[batch, (time,) in_features] to float32[batch, (time,) out_features]. Tensors may be strided views, as
    long as their last dimension is contiguous.

    Raises ValueError for a last dimension that is not contiguous, and for more rows than split sums have counters for.
    """
    out_features, in_features = weight.shape
    result = elu if out is None else out
    if result is None:
        result = out = torch.empty(*x.shape[:-1], out_features, device=x.device)
    batch, time = x.shape[0], x.shape[1] if x.dim() == 3 else 1
    rows, gpu = batch * time, gpu_of(x.device)
    tile = tile_for(rows, time, out_features, in_features, not centred, gpu.multiprocessors)
    _mimi_linear[tile.grid(rows, out_features)](
        x, weight, bias, residual,
        out, elu,
        tile.partial_sums(rows, out_features, x.device), gpu.counters,
        rows, time, out_features, in_features,
        *strides(x), *strides(residual), *strides(out), *strides(elu),
        epsilon,
        ROWS=tile.rows, OUTPUTS=tile.outputs, INPUTS=tile.inputs, CENTRED=centred, GELU=gelu, SPLIT_K=tile.split_k,
        num_warps=tile.warps, num_stages=STAGES,
    )  # fmt: skip
    return result


def strides(x: Tensor | None) -> tuple[int, int]:
    """The strides of batch and time of `[batch, (time,) features]`; zeros for a tensor that is not there."""
    if x is None:
        return 0, 0
    if x.stride(-1) != 1:
        raise ValueError("the last dimension must be contiguous")
    return x.stride(0), x.stride(1) if x.dim() == 3 else 0


def tile_for(rows: int, time: int, out_features: int, in_features: int, splittable: bool, multiprocessors: int) -> Tile:
    """Choose the tile for a layer.

    What a row's rounding depends on, the input features of a tile, the split and the shape of the matrix instruction,
    does not depend on the batch.
    """
    long = time >= LONG_TIME
    split_k = 1
    if splittable:
        parts = in_features // (MIN_SPLIT_INPUTS * (2 if long else 1))
        split_k = power_of_2(min(parts, MAX_SPLIT_OUTPUTS // out_features))
    outputs = MIN_OUTPUTS if out_features <= MIN_OUTPUTS else MAX_OUTPUTS
    choices: list[Tile] = []
    if long:
        inputs = NARROW_INPUTS if in_features <= NARROW_INPUTS else LONG_TIME_INPUTS
        small = Tile(LONG_TIME, MIN_OUTPUTS, inputs, split_k, WARPS)
        if outputs == MAX_OUTPUTS:
            choices = [
                Tile(2 * LONG_TIME, outputs, inputs, split_k, 2 * WARPS),
                Tile(LONG_TIME, outputs, inputs, split_k, WARPS),
            ]
    else:
        tile_rows = MIN_ROWS if rows <= MIN_ROWS else MAX_ROWS
        small = Tile(tile_rows, MIN_OUTPUTS, INPUTS, split_k, WARPS)
        choices = [Tile(tile_rows, outputs, INPUTS, split_k, WARPS)]
    filling = (tile for tile in choices if math.prod(tile.grid(rows, out_features)) >= multiprocessors)
    return next(filling, small)
