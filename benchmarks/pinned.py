"""What it costs a frame that prompts are pinned, after the check that all is right: `python -m benchmarks.pinned`.

The models are those of `benchmarks.engine`. All windows are full, so that every frame replaces an old one; the same
model, with the same calls in the same blocks, is measured with prompts pinned and not, by turns.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from benchmarks.correctness import check_all
from benchmarks.engine import TEXT_TOKENS, VOICE_FRAMES, Bench
from benchmarks.measuring import fresh_memory, short, times
from core.boot.devices import pick_cache_dtype
from core.boot.local_engine import CPU_THREADS
from core.engine.call import FRAME_SAMPLES
from core.engine.kv_cache import BLOCK_FRAMES, BlockCache
from core.engine.prefix_cache import PrefixCacheEntry
from core.engine.prompt import GAP_FRAMES
from core.engine.sampling import USUAL

ROUNDS = 4
"""How often pinned and not pinned take turns."""
PROMPT_LENGTH = VOICE_FRAMES + TEXT_TOKENS + 2 * GAP_FRAMES
MOST_SLOWER = 0.02
"""The share of a frame's time that pinning may cost."""


def measure(bench: Bench, callers: int, count: int, cache_dtype: torch.dtype) -> dict[str, float | int | str]:
    """Milliseconds a frame, pinned and not, with every window full."""
    a = bench.architecture
    voices = np.random.default_rng(0).normal(0, 0.1, (callers, FRAME_SAMPLES)).astype(np.float32)
    figures: dict[bool, list[float]] = {False: [], True: []}
    with fresh_memory(bench.device):
        model = bench.model(callers, cache_dtype)
        shape = (a.num_layers, 2, a.num_heads, PROMPT_LENGTH, a.head_dim)
        segment = torch.randn(shape, device=bench.device, dtype=bench.dtype, generator=bench.generator())
        prompt = PrefixCacheEntry((segment,), PROMPT_LENGTH, segment.new_zeros(a.dim))
        allocated = [model.cache.allocate(a.context) or [] for _ in range(callers)]
        for _ in range(ROUNDS):
            for pinned, measured in figures.items():
                for slot, blocks in enumerate(allocated):
                    model.begin(slot, prompt, USUAL, slot, blocks, pin=pinned)
                model.skip_to(a.context)
                measured += times(partial(model.step, dict(enumerate(voices))), count // ROUNDS).tolist()
        del model
    without, with_pinned = (float(np.median(measured)) for measured in figures.values())
    return {
        "callers": callers,
        "cache": short(cache_dtype),
        "not_pinned_ms": without,
        "pinned_ms": with_pinned,
        "slower": with_pinned / without - 1,
        "not_pinned_p99_ms": float(np.percentile(figures[False], 99)),
        "pinned_p99_ms": float(np.percentile(figures[True], 99)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", default="1,8,16,32", help="numbers of callers, with commas between")
    parser.add_argument("--frames", type=int, default=400, help="frames measured for each")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    device, console = torch.device(arguments.device), Console(width=110)
    torch.set_num_threads(CPU_THREADS)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    console.print(f"{name}, torch {torch.__version__}")
    check_all(device, console)

    bench = Bench(device)
    block = BlockCache.bytes_per_block(bench.architecture, bench.dtype)
    prompt_mib = block * PROMPT_LENGTH / BLOCK_FRAMES / 2**20
    console.print(
        f"a prompt of {PROMPT_LENGTH} positions takes {prompt_mib:.0f} MiB of its call's window, pinned or not"
    )
    rows = []
    for callers in (int(number) for number in arguments.callers.split(",")):
        for cache_dtype in (bench.dtype, pick_cache_dtype("int8", bench.dtype)):
            rows.append(measure(bench, callers, arguments.frames, cache_dtype))
            console.print(rows[-1])
    slowest = max(float(row["slower"]) for row in rows)
    console.print(f"pinned is slower by {slowest:.1%} at most; wanted: {MOST_SLOWER:.0%}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"device": name, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
