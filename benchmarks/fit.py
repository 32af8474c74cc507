"""What a smaller GPU holds, shown on a larger one: `python -m benchmarks.fit --gib 22`.

Caps the memory, then looks for the most slots with full windows, PersonaPlex's full size, random weights, in bfloat16
and with 8-bit weights; and compares the two on the same weights, fed the same random tokens.
"""

import argparse
import gc
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.correctness import random_tokens
from benchmarks.engine import times
from benchmarks.untrained import untrained_language_model, untrained_mimi
from core.engine.architecture import AGENT_CODEBOOKS, Architecture
from core.engine.call import FRAME_SAMPLES
from core.engine.kv_cache import BlockCache, PrefillCache, blocks_for
from core.engine.linear import Int8Linear
from core.engine.lm import CodebookCache, LanguageModel
from core.engine.mimi.codec import MimiCodec
from core.engine.model import Model
from core.engine.prefix_cache import PrefixCacheEntry
from core.engine.prompt import SpecialCodes
from core.engine.sampling import USUAL

A10G_BYTES_PER_SECOND = 600e9
"""NVIDIA's data sheet for the A10G."""
POSITIONS = 600
FRAMES = 30
CUDA = torch.device("cuda")


@dataclass(frozen=True)
class Fit:
    """The most slots under the cap, and what they take."""

    weights: str
    slots: int
    peak_gib: float
    frame_ms: float
    bytes_moved: int

    def projected_ms(self) -> float:
        """A frame at the smaller GPU's bandwidth: the bytes of weights and full windows, each read once."""
        return self.bytes_moved / A10G_BYTES_PER_SECOND * 1000


def generator() -> torch.Generator:
    return torch.Generator(CUDA).manual_seed(1)


def try_slots(lm: LanguageModel, slots: int) -> tuple[float, float] | None:
    """Peak GiB and milliseconds a frame with this many full windows; None when they do not fit."""
    torch.cuda.reset_peak_memory_stats()
    try:
        model = Model(lm, MimiCodec(untrained_mimi(generator(), None), slots), SpecialCodes(), slots)
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


def most_slots(int8: bool, cap: float) -> Fit:
    """Try ever fewer slots until they fit under `cap` bytes."""
    lm = untrained_language_model(Architecture(), generator(), torch.bfloat16, int8)
    window = blocks_for(lm.architecture.context) * BlockCache.bytes_per_block(lm.architecture, lm.dtype)
    slots = int((cap - torch.cuda.memory_allocated()) // window)
    while (found := try_slots(lm, slots)) is None:
        slots -= 1
        gc.collect()
        torch.cuda.empty_cache()
    read = sum(weight.nbytes for name, weight in lm.named_parameters() if "emb" not in name)
    return Fit("int8" if int8 else "bfloat16", slots, *found, read + slots * window)


def compare() -> dict[str, float]:
    """8-bit weights against the bfloat16 ones they come from, over a long run of the same tokens."""
    plain = untrained_language_model(Architecture(), generator(), torch.bfloat16)
    plain.text_linear.weight.data[:, 0] = 0.0  # Without the constant that favours padding, which no error could move.
    rounded = LanguageModel(Architecture(), CUDA, torch.bfloat16, int8=True)
    sources = dict(plain.named_modules())
    for name, module in rounded.named_modules():
        if isinstance(module, Int8Linear):
            module.quantize(sources[name].weight)
    stored = dict(plain.named_parameters())
    for name, parameter in rounded.named_parameters():
        if parameter.dtype == torch.bfloat16:
            parameter.data.copy_(stored[name])
    tokens = random_tokens(plain, POSITIONS)
    results: dict[str, list[torch.Tensor]] = {"text": [], "codebooks": []}
    with torch.inference_mode():
        for lm in (plain, rounded):
            prompt = PrefillCache(lm.architecture, POSITIONS, CUDA, lm.dtype)
            hidden = lm(lm.embed(tokens[None]), prompt.attention(POSITIONS))[0]
            results["text"].append(lm.text_logits(hidden))
            cache, codebooks = CodebookCache(), []
            for codebook in range(AGENT_CODEBOOKS):
                codebooks.append(lm.codebook_logits(hidden, codebook, tokens[:, codebook], cache))
            results["codebooks"].append(torch.stack(codebooks))
    figures = {}
    for name, (expected, got) in results.items():
        figures[f"{name}: relative error of logits"] = float((got - expected).norm() / expected.norm())
        figures[f"{name}: same best token"] = float((got.argmax(-1) == expected.argmax(-1)).float().mean())
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=22.0, help="memory of the smaller GPU, in GiB")
    gib, console = parser.parse_args().gib, Console(width=110)
    console.print(f"{torch.cuda.get_device_name()}, 8-bit against bfloat16 over {POSITIONS} positions:")
    for name, figure in compare().items():
        console.print(f"  {name} {figure:.4f}")
    gc.collect()
    torch.cuda.empty_cache()
    cap = gib * 2**30
    torch.cuda.set_per_process_memory_fraction(cap / torch.cuda.mem_get_info()[1])
    table = Table("weights", "slots", "peak GiB", "frame ms here", "read a frame, GB", "at 600 GB/s, ms")
    for int8 in (False, True):
        fit = most_slots(int8, cap)
        cells = (fit.slots, fit.peak_gib, fit.frame_ms, fit.bytes_moved / 1e9, fit.projected_ms())
        table.add_row(fit.weights, *(f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells))
        gc.collect()
        torch.cuda.empty_cache()
    console.print(f"with {gib} GiB:")
    console.print(table)


if __name__ == "__main__":
    main()
