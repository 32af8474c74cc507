"""How many slots a device carries: as many as its memory holds, and as many as a step answers in time."""

import math
import time
from collections.abc import Mapping

import numpy as np
import torch

from core.engine.architecture import Architecture
from core.engine.call import FRAME_S, FRAME_SAMPLES
from core.engine.kv_cache import BLOCK_FRAMES, BlockCache, blocks_for
from core.engine.model import Model
from core.engine.prefix_cache import PrefixCacheEntry
from core.engine.sampling import USUAL
from core.errors import EngineError

CPU_SLOTS = 2
"""The slots that `auto` means without a GPU: as many as two cores carry with nano."""
STEP_BUDGET_MS = 50.0
"""The part of a frame's 80 ms that a step may take where `auto` decides on the slots; the rest is for new prompts."""
MAX_SLOTS = 128
"""The most slots that `auto` tries."""
TIMED_STEPS = 5
WORKSPACE = 0.06
"""The share of a GPU's memory that is left to kernels' workspaces and to fragmentation."""
PROMPT_FRAMES = 300
"""Positions of a large prompt: ten seconds of voice and a long role.

Memory is reserved for one such prompt during its prefill, and for one in each call that is shorter than the window.
"""


def frames_per_call(architecture: Architecture, longest_s: float | None) -> int:
    """The frames that a call of at most `longest_s` seconds may have, its prompt included; at most a full window."""
    if longest_s is None:
        return architecture.context
    return min(architecture.context, PROMPT_FRAMES + math.ceil(longest_s / FRAME_S))


def longest_call_s(architecture: Architecture, blocks: int) -> float:
    """The longest call with a large prompt, in seconds, that n blocks hold; infinite where they hold a full window."""
    frames = blocks * BLOCK_FRAMES
    return math.inf if frames >= architecture.context else (frames - PROMPT_FRAMES) * FRAME_S


def slots_in_memory(
    wanted: int | str,
    architecture: Architecture,
    device: torch.device,
    dtype: torch.dtype,
    cache_dtype: torch.dtype,
    frames: int,
) -> int:
    """The number of slots: as configured, or for `auto` as many as fit into the free memory beside the weights.

    `dtype` is the model's, in which a prompt is prefilled, and `cache_dtype` that of the calls' keys and values.
    Raises EngineError when not even one call of `frames` frames fits, or fewer than configured.
    """
    if device.type != "cuda":
        return CPU_SLOTS if wanted == "auto" else int(wanted)
    free, total = torch.cuda.mem_get_info(device)
    fitting = slots_that_fit(free, total, architecture, dtype, cache_dtype, frames)
    call = blocks_for(frames) * BlockCache.bytes_per_block(architecture, cache_dtype)
    gib = f"{free / 2**30:.1f} GiB are free beside the weights, and a slot takes {call / 2**30:.2f} GiB"
    if wanted != "auto" and int(wanted) > fitting:
        raise EngineError(f"engine.slots is {wanted}, but only {max(fitting, 0)} fit: {gib}. Lower it, or use auto.")
    if fitting < 1:
        raise EngineError(f"Not one slot fits on {device}: {gib}.")
    return min(fitting, MAX_SLOTS) if wanted == "auto" else int(wanted)


def slots_that_fit(
    free: int,
    total: int,
    architecture: Architecture,
    dtype: torch.dtype,
    cache_dtype: torch.dtype,
    frames: int,
) -> int:
    """The number of calls of `frames` frames that the `free` of a GPU's `total` bytes hold; 0 or less for none."""
    block = BlockCache.bytes_per_block(architecture, cache_dtype)
    # Beside the calls' blocks there are the block for padding rows, and a prompt during its prefill.
    prompt = PROMPT_FRAMES / BLOCK_FRAMES * BlockCache.bytes_per_block(architecture, dtype)
    return int((free - WORKSPACE * total - block - prompt) // (blocks_for(frames) * block))


def slots_in_time(step_ms: Mapping[int, float]) -> int:
    """The most callers with whom a step keeps to its budget, by its milliseconds for some numbers; at least 1."""
    callers, milliseconds = list(step_ms), list(step_ms.values())
    within = (n for n in range(callers[-1], 1, -1) if np.interp(n, callers, milliseconds) <= STEP_BUDGET_MS)
    return next(within, 1)


def time_steps(model: Model, frames: int) -> dict[int, float]:
    """Measure the milliseconds of a warm model's steps, by callers, at the end of calls of `frames` frames."""
    lm = model.lm
    hidden = torch.zeros(lm.architecture.dim, device=lm.device, dtype=lm.dtype)
    late = PrefixCacheEntry((), max(1, frames - (TIMED_STEPS + 1) * len(model.batch_sizes)), hidden)
    allocated = [model.cache.allocate(frames) or [] for _ in range(model.slots)]
    for slot, blocks in enumerate(allocated):
        model.begin(slot, late, USUAL, 0, blocks)
    silence = np.zeros(FRAME_SAMPLES, np.float32)
    step_ms = {}
    for size in model.batch_sizes:
        model.step(dict.fromkeys(range(size), silence))
        begin = time.perf_counter()
        for _ in range(TIMED_STEPS):
            model.step(dict.fromkeys(range(size), silence))
        step_ms[size] = round((time.perf_counter() - begin) / TIMED_STEPS * 1000, 1)
    model.reset()
    for blocks in allocated:
        model.cache.free(blocks)
    return step_ms
