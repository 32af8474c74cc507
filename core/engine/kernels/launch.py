"""What the matmuls of the language model and of Mimi have in common: the GPU, and sums that are split into parts."""

from dataclasses import dataclass
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_SPLIT_TILES = 1 << 16
"""Tiles of a layer whose sums are split, at most."""


@triton.jit  # type: ignore[untyped-decorator]
def add_parts(sums, place, partial_sums_pointer, counters_pointer, SIZE: tl.constexpr, SPLIT_K: tl.constexpr):  # type: ignore[no-untyped-def]
    """Add up the parts of a tile's sums, always in the same order, in the program that finishes last (split-K).

    The third axis of the grid is the part. `place` numbers the elements of `sums`, of which there are `SIZE`. The
    workspace is `[tile, part, element]`, and the counters, how many parts of each tile are done, are zero at rest.
    Returns the sums, and whether this program is the last one.
    """
    tile = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    partial_at = partial_sums_pointer + tile.to(tl.int64) * (SPLIT_K * SIZE) + place
    tl.store(partial_at + tl.program_id(2) * SIZE, sums)
    tl.debug_barrier()
    last = tl.atomic_add(counters_pointer + tile, 1, sem="acq_rel") == SPLIT_K - 1
    sums = tl.zeros_like(sums)
    if last:
        for number in range(SPLIT_K):
            sums += tl.load(partial_at + number * SIZE, cache_modifier=".cg")
        tl.store(counters_pointer + tile, 0)
    return sums, last


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
    """The size of a tile, the parts into which its sums are split, and the warps of its program."""

    rows: int
    outputs: int
    inputs: int
    split_k: int
    warps: int

    def grid(self, rows: int, out_features: int) -> tuple[int, int, int]:
        """The programs of a launch. Tiles that share weights are neighbours, so that the second finds them cached."""
        return triton.cdiv(rows, self.rows), triton.cdiv(out_features, self.outputs), self.split_k

    def partial_sums(self, rows: int, out_features: int, device: torch.device) -> Tensor | None:
        """The workspace of split sums. Raises ValueError for more rows than there are counters for."""
        if self.split_k == 1:
            return None
        row_tiles, output_tiles, _ = self.grid(rows, out_features)
        if row_tiles * output_tiles > MAX_SPLIT_TILES:
            raise ValueError(f"{rows} rows are too many for a layer with {out_features} outputs")
        return torch.empty(row_tiles * output_tiles * self.split_k * self.rows * self.outputs, device=device)


def power_of_2(number: int) -> int:
    """The largest power of 2 that is not more than `number`, which counts as 1 where it is less."""
    return 1 << max(0, number.bit_length() - 1)
