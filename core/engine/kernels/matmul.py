"""Linear layers for few rows of activations on a GPU, with what comes before and after the matmul in the same launch.

Every weight is read once, in its own dtype or with 8 bits. A row's result is the same whatever the number of rows
beside it: each sum runs over the input features in one order, in matrix instructions of one shape. A long sum is split
into parts, which run in parallel and are added in one order (split-K). So a step may run at the size of the calls that
are talking without changing what they say.
"""

from dataclasses import dataclass
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

# Sizes of tiles, rows x outputs x inputs: the best of a few tried on an H200.
SMALL_ROWS, MAX_ROWS = 16, 32
"""Rows of a tile. From 64 on, Hopper's matrix instructions have another shape, and round differently."""
LONG_TIME = 64
"""Times per batch element from which on tiles have this many rows: there are as many whatever the batch."""
SMALL_OUTPUTS, MEDIUM_OUTPUTS, LARGE_OUTPUTS = 16, 32, 64
"""Outputs of a tile: few where the tiles would not fill the GPU, many for layers beyond MANY_OUTPUTS."""
MANY_OUTPUTS = 16_384
INPUTS_BY_WEIGHT_BYTES = {1: 256, 2: 128, 4: 64}
"""Input features that a tile multiplies at a time."""
LONG_TIME_INPUTS = 32
"""The same for tiles of LONG_TIME rows, at most."""
NARROW_INPUTS = 16
"""The same for tiles of LONG_TIME rows where there are no more input features than this."""
MAX_STAGES = 4
"""Stages of the software pipeline, where the GPU's shared memory has room for them."""
WARPS = 4

UNSPLIT_INPUTS = 1024
"""Input features up to which a sum is not split."""
MIN_SPLIT_INPUTS = 512
"""Input features in a part of a split sum, at least."""
MAX_SPLIT_OUTPUTS = 16_384
"""Outputs times parts of a split sum, at most: as many programs as fill a GPU, times the outputs of a tile."""
MAX_SPLIT_TILES = 1 << 16
"""Tiles of a layer whose sums are split, at most."""


@triton.jit(do_not_specialize=["rows"])  # type: ignore[untyped-decorator]
def _linear(  # type: ignore[no-untyped-def]
    # Operands; all but x and weight may be None.
    x_pointer,
    weight_pointer,
    scale_pointer,
    bias_pointer,
    residual_pointer,
    # Results; either may be None.
    out_pointer,
    elu_pointer,
    # Workspace of split sums: `[tile, part, row, output]`, and how many parts of each tile are done, zero at rest.
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
    GATED: tl.constexpr,
    GELU: tl.constexpr,
    SPLIT_K: tl.constexpr,
):
    """Compute one tile of the result, or one part of its sums."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    feature = tl.arange(0, INPUTS)
    row_inside = row[:, None] < rows
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
    values = tl.zeros((ROWS, OUTPUTS), dtype=tl.float32)
    squares = tl.zeros((ROWS,), dtype=tl.float32)
    mean = tl.zeros((ROWS,), dtype=tl.float32)
    if CENTRED:
        for start in range(0, in_features, INPUTS):
            inside = row_inside & (feature[None, :] < in_features - start)
            mean += tl.sum(tl.load(x_at + start, mask=inside, other=0.0), axis=1)
        mean /= in_features

    # The matmul; where it is gated, `sums` are the gates and `values` the second half of the outputs.
    for start in range(first, end, INPUTS):
        left = end - start
        x = tl.load(x_at, mask=row_inside & (feature[None, :] < left), other=0.0)
        weight = tl.load(weight_at, mask=(output[None, :] < out_features) & (feature[:, None] < left), other=0)
        if CENTRED:
            x = tl.where(feature[None, :] < left, x - mean[:, None], 0.0)
            squares += tl.sum(x * x, axis=1)
        sums = tl.dot(x, weight.to(x.dtype), sums, input_precision="tf32x3")
        if GATED:
            value_at = weight_at + out_features.to(tl.int64) * in_features
            weight = tl.load(value_at, mask=(output[None, :] < out_features) & (feature[:, None] < left), other=0)
            values = tl.dot(x, weight.to(x.dtype), values, input_precision="tf32x3")
        x_at += INPUTS
        weight_at += INPUTS
    mask = row_inside & (output[None, :] < out_features)
    if SPLIT_K > 1:
        # Whichever program of a tile finishes last adds up the parts, always in the same order.
        tile = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        place = tl.arange(0, ROWS)[:, None] * OUTPUTS + tl.arange(0, OUTPUTS)[None, :]
        partial_at = partial_sums_pointer + tile.to(tl.int64) * (SPLIT_K * ROWS * OUTPUTS) + place
        tl.store(partial_at + tl.program_id(2) * (ROWS * OUTPUTS), sums)
        tl.debug_barrier()
        last = tl.atomic_add(counters_pointer + tile, 1, sem="acq_rel") == SPLIT_K - 1
        sums = tl.zeros((ROWS, OUTPUTS), dtype=tl.float32)
        if last:
            for number in range(SPLIT_K):
                sums += tl.load(partial_at + number * (ROWS * OUTPUTS), cache_modifier=".cg")
            tl.store(counters_pointer + tile, 0)
        mask = mask & last

    # What comes after the matmul, in the order that `reference_linear` documents.
    if scale_pointer is not None:
        sums *= tl.load(scale_pointer + output, mask=output < out_features, other=0.0)[None, :]
        if GATED:
            value_scale_at = scale_pointer + out_features + output
            values *= tl.load(value_scale_at, mask=output < out_features, other=0.0)[None, :]
    if CENTRED:
        sums *= tl.rsqrt(squares / in_features + epsilon)[:, None]
    if bias_pointer is not None:
        sums += tl.load(bias_pointer + output, mask=output < out_features, other=0.0)[None, :]
    if GATED:
        sums = sums / (1 + tl.exp(-sums)) * values
    if GELU:
        sums = 0.5 * sums * (1 + tl.erf(sums * 0.7071067811865476))
    if residual_pointer is not None:
        residual_at = residual_pointer + batch * residual_batch_stride + moment * residual_time_stride + output[None, :]
        sums += tl.load(residual_at, mask=mask, other=0.0).to(tl.float32)
    if out_pointer is not None:
        out_at = out_pointer + batch * out_batch_stride + moment * out_time_stride + output[None, :]
        tl.store(out_at, sums.to(out_pointer.dtype.element_ty), mask=mask)
    if elu_pointer is not None:
        elu_at = elu_pointer + batch * elu_batch_stride + moment * elu_time_stride + output[None, :]
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
    """Compute what `reference_linear` in `core.engine.linear` does, which also documents the arguments.

    Maps `[batch, (time,) in_features]` to `[batch, (time,) out_features]`. Tensors may be strided views, as long as
    their last dimension is contiguous. float32 is multiplied as three products of TensorFloat-32, which lose little.

    Raises ValueError for a last dimension that is not contiguous, and for more rows than split sums have counters for.
    """
    out_features, in_features = weight.shape
    if gated:
        out_features //= 2
    result = elu if out is None else out
    if result is None:
        result = out = torch.empty(*x.shape[:-1], out_features, device=x.device, dtype=x.dtype)
    batch, time = x.shape[0], x.shape[1] if x.dim() == 3 else 1
    rows = batch * time
    gpu = gpu_of(x.device)
    splittable = not (centred or gated)
    tile = tile_for(rows, time, out_features, in_features, weight.element_size(), splittable, gated, gpu)
    # What a stage of the pipeline occupies in shared memory: an H200 has room for four, an A10G for two or three.
    weights = tile.outputs * (2 if gated else 1)
    stage = tile.inputs * (x.element_size() * tile.rows + weight.element_size() * weights)
    grid = triton.cdiv(rows, tile.rows), triton.cdiv(out_features, tile.outputs)
    partial_sums = None
    if tile.split_k > 1:
        tiles = grid[0] * grid[1]
        if tiles > MAX_SPLIT_TILES:
            raise ValueError(f"{rows} rows are too many for a layer with {out_features} outputs")
        partial_sums = torch.empty(tiles * tile.split_k * tile.rows * tile.outputs, device=x.device)
    # Tiles that share weights are neighbours, so that the second finds them in the L2 cache.
    _linear[(*grid, tile.split_k)](
        x, weight, scale, bias, residual,
        out, elu,
        partial_sums, gpu.counters,
        rows, time, out_features, in_features,
        *strides(x), *strides(residual), *strides(out), *strides(elu),
        epsilon,
        ROWS=tile.rows, OUTPUTS=tile.outputs, INPUTS=tile.inputs,
        CENTRED=centred, GATED=gated, GELU=gelu, SPLIT_K=tile.split_k,
        num_warps=WARPS, num_stages=max(1, min(MAX_STAGES, gpu.shared_memory // stage)),
    )  # fmt: skip
    return result


def strides(x: Tensor | None) -> tuple[int, int]:
    """The strides of batch and time of `[batch, (time,) features]`; zeros for a tensor that is not there."""
    if x is None:
        return 0, 0
    if x.stride(-1) != 1:
        raise ValueError("the last dimension must be contiguous")
    return x.stride(0), x.stride(1) if x.dim() == 3 else 0


@dataclass(frozen=True)
class Gpu:
    """What a launch needs to know of a GPU, and the counters of its split sums.

    Each launch leaves all `counters` at zero, so that the next can use them. This requires launches to run one after
    another, as they do on one stream.
    """

    multiprocessors: int
    shared_memory: int
    """Bytes in each multiprocessor."""
    counters: Tensor
    """int32[MAX_SPLIT_TILES]."""


@cache
def gpu_of(device: torch.device) -> Gpu:
    """The description of a device, with one set of counters for the lifetime of the process.

    The counters are shared, since zeroing fresh ones would take a launch of its own for each layer. Triton's
    interpreter, which runs kernels on a CPU, takes the tiles of an H100.
    """
    if device.type == "cpu":
        return Gpu(132, 232_448, torch.zeros(MAX_SPLIT_TILES, dtype=torch.int32))
    properties = torch.cuda.get_device_properties(device)
    shared_memory: int = properties.shared_memory_per_block_optin  # type: ignore[attr-defined]
    counters = torch.zeros(MAX_SPLIT_TILES, dtype=torch.int32, device=device)
    return Gpu(properties.multi_processor_count, shared_memory, counters)


@dataclass(frozen=True)
class Tile:
    """The size of a tile, and the number of parts into which its sums are split."""

    rows: int
    outputs: int
    inputs: int
    split_k: int


def tile_for(
    rows: int,
    time: int,
    out_features: int,
    in_features: int,
    weight_bytes: int,
    splittable: bool,
    gated: bool,
    gpu: Gpu,
) -> Tile:
    """Choose the tile for a layer.

    What a row's rounding depends on, the split and the shape of the matrix instruction, does not depend on the batch.
    """
    split_k = 1
    if splittable and in_features > UNSPLIT_INPUTS:
        parts = min(in_features // MIN_SPLIT_INPUTS, MAX_SPLIT_OUTPUTS // out_features)
        split_k = 1 << max(0, parts.bit_length() - 1)
    outputs = LARGE_OUTPUTS if out_features > MANY_OUTPUTS else MEDIUM_OUTPUTS
    if time >= LONG_TIME:
        return Tile(LONG_TIME, outputs, NARROW_INPUTS if in_features <= NARROW_INPUTS else LONG_TIME_INPUTS, split_k)
    tile_rows = SMALL_ROWS if rows <= SMALL_ROWS else MAX_ROWS
    programs = triton.cdiv(rows, tile_rows) * triton.cdiv(out_features, outputs) * split_k
    if not gated and programs < gpu.multiprocessors:
        outputs = SMALL_OUTPUTS
    return Tile(tile_rows, outputs, INPUTS_BY_WEIGHT_BYTES[weight_bytes], split_k)
