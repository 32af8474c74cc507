"""What a smaller GPU holds, shown on a larger one: `python -m benchmarks.fit --gib 22`.

Caps the memory, then looks for the most slots with full windows, PersonaPlex's full size, random weights, with weights
and KV cache in bfloat16 and in 8 bits; and compares both kinds of weights, fed the same random tokens.
"""

import argparse
import gc
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import short, times
from benchmarks.rounding import POSITIONS, weight_errors
from benchmarks.untrained import untrained_language_model, untrained_mimi
from core.boot.capacity import slots_that_fit
from core.engine.architecture import Architecture
from core.engine.call import FRAME_SAMPLES
from core.engine.kv_cache import BlockCache, blocks_for
from core.engine.lm import LanguageModel
from core.engine.mimi.codec import MimiCodec
from core.engine.model import Model
from core.engine.prefix_cache import PrefixCacheEntry
from core.engine.prompt import SpecialCodes
from core.engine.sampling import USUAL

A10G_BYTES_PER_SECOND = 600e9
"""NVIDIA's data sheet for the A10G."""
FRAMES = 30
CUDA = torch.device("cuda")


@dataclass(frozen=True)
class Fit:
    """The most slots under the cap, and what they take."""

    weights: str
    kv_cache: str
    slots: int
    started: int
    """Slots that a start with `auto` takes, which leaves room for the prompts' prefill and for fragmentation."""
    peak_gib: float
    frame_ms: float
    bytes_moved: int

    def projected_ms(self) -> float:
        """A frame at the smaller GPU's bandwidth: the bytes of weights and full windows, each read once."""
        return self.bytes_moved / A10G_BYTES_PER_SECOND * 1000


def generator() -> torch.Generator:
    return torch.Generator(CUDA).manual_seed(1)


def try_slots(lm: LanguageModel, slots: int, cache_dtype: torch.dtype) -> tuple[float, float] | None:
    """Peak GiB and milliseconds a frame with this many full windows; None when they do not fit."""
    torch.cuda.reset_peak_memory_stats()
    try:
        codec = MimiCodec(untrained_mimi(generator(), None), slots)
        model = Model(lm, codec, SpecialCodes(), slots, cache_dtype=cache_dtype)
        model.warm_up()
        a = lm.architecture
        shape = (a.num_layers, 2, a.num_heads, 100, a.head_dim)
        part = torch.randn(shape, device=CUDA, dtype=lm.dtype, generator=generator())
        full = PrefixCacheEntry((part,) * (a.context // 100), a.context, part.new_zeros(a.dim))
        for slot in range(slots):
            model.begin(slot, full, USUAL, slot, model.cache.allocate(a.context) or [])
        voices = np.random.default_rng(0).normal(0, 0.1, (slots, FRAME_SAMPLES)).astype(np.float32)
        frame = float(np.median(times(lambda: model.step(dict(enumerate(voices))), FRAMES)))
    except torch.cuda.OutOfMemoryError:
        return None
    return torch.cuda.max_memory_reserved() / 2**30, frame


def most_slots(int8: bool, cache_dtype: torch.dtype, cap: float) -> Fit:
    """Try ever fewer slots until they fit under `cap` bytes."""
    lm = untrained_language_model(Architecture(), generator(), torch.bfloat16, int8)
    a = lm.architecture
    window = blocks_for(a.context) * BlockCache.bytes_per_block(a, cache_dtype)
    slots = int((cap - torch.cuda.memory_allocated()) // window)
    mimi = untrained_mimi(generator(), None)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    started = slots_that_fit(int(cap - (total - free)), int(cap), a, lm.dtype, cache_dtype, a.context)
    del mimi
    while (found := try_slots(lm, slots, cache_dtype)) is None:
        slots -= 1
        gc.collect()
        torch.cuda.empty_cache()
    read = sum(weight.nbytes for name, weight in lm.named_parameters() if "emb" not in name)
    return Fit("int8" if int8 else "bfloat16", short(cache_dtype), slots, started, *found, read + slots * window)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=22.0, help="memory of the smaller GPU, in GiB")
    gib, console = parser.parse_args().gib, Console(width=110)
    console.print(f"{torch.cuda.get_device_name()}, 8-bit weights against bfloat16 over {POSITIONS} positions:")
    for name, figure in weight_errors(generator()).items():
        console.print(f"  {name} {figure:.4f}")
    gc.collect()
    torch.cuda.empty_cache()
    cap = gib * 2**30
    torch.cuda.set_per_process_memory_fraction(cap / torch.cuda.mem_get_info()[1])
    table = Table(
        "weights", "cache", "slots", "at a start", "peak GiB", "frame ms here", "read a frame, GB", "at 600 GB/s, ms"
    )
    for int8, cache_dtype in product((False, True), (torch.bfloat16, torch.int8)):
        fit = most_slots(int8, cache_dtype, cap)
        cells = (fit.slots, fit.started, fit.peak_gib, fit.frame_ms, fit.bytes_moved / 1e9, fit.projected_ms())
        table.add_row(
            fit.weights, fit.kv_cache, *(f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells)
        )
        gc.collect()
        torch.cuda.empty_cache()
    console.print(f"with {gib} GiB:")
    console.print(table)


if __name__ == "__main__":
    main()
