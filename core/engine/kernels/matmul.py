"""The language model's linear layers for few rows of activations on a GPU, with what comes after the matmul in the same
launch.

Every weight is read once, in its own dtype or with 8 bits. A row's result is the same whatever the number of rows
beside it: each sum runs over the input features in one order, in matrix instructions whose shape follows from the layer
alone. A long sum is split into parts, which run in parallel and are added in one order (split-K). So a step may run at
the size of the calls that are talking without changing what they say.

The weights are the rows of the matrix instructions, and the activations their columns: Hopper's wide instruction takes
64 outputs and any multiple of 8 columns, and rounds alike for all of them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from core.engine.kernels.launch import Gpu, Tile, add_parts, gpu_of, power_of_2
from core.engine.kernels.quantization import first_of_pair, second_of_pair
from core.engine.quantization import PAIRED_FEATURES

# Sizes of tiles, outputs x rows x inputs: the best of a few tried on an H100.
MIN_ROWS, MAX_ROWS = 16, 64
"""Rows of a tile, at least and at most."""
NARROW_OUTPUTS, MEDIUM_OUTPUTS, WIDE_OUTPUTS = 16, 32, 64
"""Outputs of a tile. Below 64 the tile takes smaller matrix instructions, which is for layers that are narrow."""
MANY_OUTPUTS = 8192
"""Outputs times parts of split sums beyond which a layer is not narrow: tiles of WIDE_OUTPUTS then fill the GPU."""
INPUTS_BY_WEIGHT_BYTES = {1: PAIRED_FEATURES, 2: 128, 4: 64}
"""Input features that a tile multiplies at a time."""
WARPS = 4
STAGES_BY_WEIGHT_BYTES = {1: 3, 2: 4, 4: 4}
"""Stages of the software pipeline, where the GPU's shared memory has room for them."""
MIN_STAGES = 3
"""Stages from which on a second program beside each is worth more than another stage."""

UNSPLIT_INPUTS = 1024
"""Input features up to which a sum is not split."""
MIN_SPLIT_INPUTS = 512
"""Input features in a part of a split sum, at least."""
MAX_SPLIT_OUTPUTS = 16_384
"""Outputs times parts of a split sum, at most: as many programs as fill a GPU, times the outputs of a tile."""


@triton.jit(do_not_specialize=["rows"])  # type: ignore[untyped-decorator]
def _linear(  # type: ignore[no-untyped-def]
    # Operands; scale and residual may be None. With a scale, the weights are pairs of 8 bits, in int16.
    x_pointer,
    weight_pointer,
    scale_pointer,
    residual_pointer,
    out_pointer,
    # As `add_parts` describes them.
    partial_sums_pointer,
    counters_pointer,
    rows,
    out_features,
    in_features,
    x_stride,
    residual_stride,
    out_stride,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    GATED: tl.constexpr,
    SPLIT_K: tl.constexpr,
):
    """Compute one tile of the result, or one part of its sums."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[None, :]
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)[:, None]
    row_inside = row < rows
    output_inside = output < out_features
    first = 0
    end = in_features
    if SPLIT_K > 1:
        part = tl.cdiv(tl.cdiv(in_features, INPUTS), SPLIT_K) * INPUTS
        first = tl.program_id(2) * part
        end = tl.minimum(in_features, first + part)
    # The matmul; where it is gated, `sums` are the gates and `values` the second half of the outputs.
    sums = tl.zeros((OUTPUTS, ROWS), dtype=tl.float32)
    values = tl.zeros((OUTPUTS, ROWS), dtype=tl.float32)
    x_at = x_pointer + row.to(tl.int64) * x_stride + first
    dtype = x_pointer.dtype.element_ty
    if scale_pointer is None:
        feature = tl.arange(0, INPUTS)
        x_at += feature[:, None]
        weight_at = weight_pointer + output.to(tl.int64) * in_features + first + feature[None, :]
        value_at = weight_at + out_features.to(tl.int64) * in_features
        for start in range(first, end, INPUTS):
            left = end - start
            x = tl.load(x_at, mask=row_inside & (feature[:, None] < left), other=0.0)
            weight = tl.load(weight_at, mask=output_inside & (feature[None, :] < left), other=0.0)
            sums = tl.dot(weight, x, sums, input_precision="tf32x3")
            if GATED:
                value = tl.load(value_at, mask=output_inside & (feature[None, :] < left), other=0.0)
                values = tl.dot(value, x, values, input_precision="tf32x3")
            x_at += INPUTS
            weight_at += INPUTS
            value_at += INPUTS
    else:
        feature = tl.arange(0, INPUTS // 2)
        x_at += feature[:, None]
        weight_at = weight_pointer + output.to(tl.int64) * (in_features // 2) + first // 2 + feature[None, :]
        value_at = weight_at + out_features.to(tl.int64) * (in_features // 2)
        for start in range(first, end, INPUTS):
            pairs = tl.minimum(INPUTS, end - start) // 2
            x = tl.load(x_at, mask=row_inside & (feature[:, None] < pairs), other=0.0)
            x_second = tl.load(x_at + pairs, mask=row_inside & (feature[:, None] < pairs), other=0.0)
            pair = tl.load(weight_at, mask=output_inside & (feature[None, :] < pairs), other=0)
            sums = tl.dot(first_of_pair(pair, dtype), x, sums, input_precision="tf32x3")
            sums = tl.dot(second_of_pair(pair, dtype), x_second, sums, input_precision="tf32x3")
            if GATED:
                pair = tl.load(value_at, mask=output_inside & (feature[None, :] < pairs), other=0)
                values = tl.dot(first_of_pair(pair, dtype), x, values, input_precision="tf32x3")
                values = tl.dot(second_of_pair(pair, dtype), x_second, values, input_precision="tf32x3")
            x_at += INPUTS
            weight_at += INPUTS // 2
            value_at += INPUTS // 2
    mask = row_inside & output_inside
    if SPLIT_K > 1:
        place = tl.arange(0, OUTPUTS)[:, None] * ROWS + tl.arange(0, ROWS)[None, :]
        sums, last = add_parts(sums, place, partial_sums_pointer, counters_pointer, OUTPUTS * ROWS, SPLIT_K)
        mask = mask & last

    # What comes after the matmul, in the order that `reference_linear` documents.
    if scale_pointer is not None:
        sums *= tl.load(scale_pointer + output, mask=output_inside, other=0.0)
        if GATED:
            values *= tl.load(scale_pointer + out_features + output, mask=output_inside, other=0.0)
    if GATED:
        sums = sums / (1 + tl.exp(-sums)) * values
    if residual_pointer is not None:
        residual_at = residual_pointer + row.to(tl.int64) * residual_stride + output
        sums += tl.load(residual_at, mask=mask, other=0.0).to(tl.float32)
    out_at = out_pointer + row.to(tl.int64) * out_stride + output
    tl.store(out_at, sums.to(out_pointer.dtype.element_ty), mask=mask)


def linear(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None = None,
    *,
    gated: bool = False,
    residual: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Compute what `reference_linear` in `core.engine.linear` does, which also documents the arguments.

    Maps `[batch, (time,) in_features]` to `[batch, (time,) out_features]`. Tensors may be strided views, as long as
    their last dimension is contiguous. float32 is multiplied as three products of TensorFloat-32, which lose little.

    Raises ValueError for a last dimension that is not contiguous, and for more rows than split sums have counters for.
    """
    out_features, in_features = weight.shape
    if gated:
        out_features //= 2
    if out is None:
        out = torch.empty(*x.shape[:-1], out_features, device=x.device, dtype=x.dtype)
    rows, gpu = x.numel() // in_features, gpu_of(x.device)
    tile = tile_for(rows, out_features, in_features, weight.element_size(), gated, gpu)
    _linear[tile.grid(rows, out_features)](
        x, weight if scale is None else weight.view(torch.int16), scale, residual, out,
        tile.partial_sums(rows, out_features, x.device), gpu.counters,
        rows, out_features, in_features, row_stride(x), row_stride(residual), row_stride(out),
        ROWS=tile.rows, OUTPUTS=tile.outputs, INPUTS=tile.inputs, GATED=gated, SPLIT_K=tile.split_k,
        num_warps=tile.warps, num_stages=stages_for(tile, x.element_size(), weight.element_size(), gated, gpu),
    )  # fmt: skip
    return out


def row_stride(x: Tensor | None) -> int:
    """The stride between the rows of `[batch, (time,) features]`; 0 for a tensor that is not there."""
    if x is None:
        return 0
    if x.stride(-1) != 1 or (x.dim() == 3 and 1 not in x.shape[:2] and x.stride(0) != x.shape[1] * x.stride(1)):
        raise ValueError("the last dimension must be contiguous, and rows must lie at equal distances")
    return x.stride(1) if x.dim() == 3 and x.shape[1] > 1 else x.stride(0)


def tile_for(rows: int, out_features: int, in_features: int, weight_bytes: int, gated: bool, gpu: Gpu) -> Tile:
    """Choose the tile for a layer.

    What a row's rounding depends on, the split and the shape of the matrix instruction, does not depend on the rows.
    """
    split_k = 1
    if in_features > UNSPLIT_INPUTS and not gated:
        split_k = power_of_2(min(in_features // MIN_SPLIT_INPUTS, MAX_SPLIT_OUTPUTS // out_features))
    tile_rows = min(max(MIN_ROWS, triton.next_power_of_2(rows)), MAX_ROWS)
    inputs = INPUTS_BY_WEIGHT_BYTES[weight_bytes]
    if out_features * split_k > MANY_OUTPUTS:
        wide = Tile(tile_rows, WIDE_OUTPUTS, inputs, split_k, WARPS)
        # Twice the outputs share the activations, and keep more warps busy with converting 8-bit weights.
        full, small = tile_rows == MAX_ROWS, weight_bytes == 1
        wider = Tile(tile_rows, 2 * WIDE_OUTPUTS, inputs if small else inputs // 2, split_k, 2 * WARPS)
        better = gated or full if small else gated and full
        return wider if better and stages_for(wider, 2, weight_bytes, gated, gpu) >= MIN_STAGES else wide
    programs = triton.cdiv(rows, tile_rows) * triton.cdiv(out_features, MEDIUM_OUTPUTS) * split_k
    outputs = NARROW_OUTPUTS if not gated and programs < gpu.multiprocessors // 2 else MEDIUM_OUTPUTS
    return Tile(tile_rows, outputs, inputs, split_k, WARPS)


def stages_for(tile: Tile, activation_bytes: int, weight_bytes: int, gated: bool, gpu: Gpu) -> int:
    """The stages of the pipeline for which shared memory has room, if possible beside a second program.

    The wide matrix instructions read shared memory themselves, which takes one more buffer than there are stages in
    flight; weights with 8 bits are converted on their way.
    """
    activations = tile.inputs * activation_bytes * tile.rows
    weights = tile.inputs * weight_bytes * tile.outputs * (2 if gated else 1)
    read = activations + (0 if weight_bytes == 1 else weights)
    most = STAGES_BY_WEIGHT_BYTES[weight_bytes]
    alone, beside = (
        1 + (memory - read) // (activations + weights) for memory in (gpu.shared_memory, gpu.shared_memory // 2)
    )
    return min(most, beside) if beside >= MIN_STAGES else max(1, min(most, alone))
