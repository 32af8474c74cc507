"""From config to a running engine: which checkpoint, on what device, with how many slots."""

import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from moshi.models.compression import MimiModel

from core.engine.architecture import Architecture
from core.engine.call import FRAME_S, FRAME_SAMPLES, EngineInfo, SlotLimits
from core.engine.checkpoint import Checkpoint
from core.engine.hub import fetch, has_token, is_cached
from core.engine.kv_cache import BLOCK, BlockCache, blocks_for
from core.engine.lm import LanguageModel
from core.engine.mimi.codec import MimiCodec
from core.engine.mimi.voice_encoder import VoiceEncoder, measure_special_codes
from core.engine.model import Model
from core.engine.prefill import Preparation
from core.engine.prefix_cache import Snapshot, SnapshotStore
from core.engine.prompt import SpecialCodes
from core.engine.sampling import USUAL
from core.engine.scheduler import SlotEngine
from core.engine.tokenizer import SentencePieceTokenizer
from core.engine.weights import load_language_model, load_mimi
from core.errors import EngineError
from core.media.voice_archive import unpack_voices
from core.media.voices import VoiceFolder
from core.settings.config import EngineConfig
from core.settings.log import get_logger

CPU_THREADS = 1
"""Nano's operations are too small to share: a second thread gains little, and costs much when its core is busy."""
SWITCH_SECONDS = 0.0005
"""On a CPU the engine's thread is nearly always in Python, and others would wait the usual 5 ms for each turn."""
CPU_SLOTS = 2
"""What `auto` takes without a card: the slots that two cores carry with nano."""
STEP_BUDGET_MS = 50.0
"""What a step may take of a frame's 80 ms with the slots that `auto` takes on a card; the rest is for new prompts."""
MAX_SLOTS = 128
"""What `auto` tries at most."""
TIMED_STEPS = 5
WORKSPACE = 0.06
"""Share of a card's memory left to kernels' workspaces and the allocator's gaps."""
PROMPT = 300
"""Positions of a large prompt, ten seconds of voice and a long role: left to the one that is being read, and reckoned
with where calls are shorter than a window."""

NANO = Path(__file__).parent.parent / "nano"
"""The small checkpoint that comes with the package."""
COMMIT = re.compile(r"[0-9a-f]{40}")

log = get_logger("engine")


def open_engine(
    config: EngineConfig, report: Callable[[str], None], longest_s: float | None = None, carried: int | None = None
) -> SlotEngine:
    """Start the engine that `config` asks for, telling `report` what is being done.

    `longest_s` is how many seconds of sound a call may take at most: calls shorter than the model's window take less
    memory, so that more fit. `carried` is how many callers the rest of the service carries, where that is known: `auto`
    offers no more slots. Blocks, for minutes when it fetches. Raises CheckpointError or EngineError, saying what
    to do.
    """
    device = pick_device(config.device)
    torch.set_num_threads(config.threads or CPU_THREADS)
    if device.type == "cpu":
        sys.setswitchinterval(SWITCH_SECONDS)
    dtype = pick_dtype(config.dtype, device)
    checkpoint = Checkpoint.read(find_checkpoint(config, device, report))
    report(f"Loading {checkpoint.name} on {device}, {str(dtype).removeprefix('torch.')}")
    try:
        return assemble(checkpoint, config, device, dtype, longest_s, carried)
    except torch.cuda.OutOfMemoryError as error:
        raise EngineError(
            f"{checkpoint.name} does not fit on {device}: take a card with more memory, or end what else runs on it."
        ) from error


def open_voice_encoder(config: EngineConfig, report: Callable[[str], None]) -> VoiceEncoder:
    """The codec of the checkpoint that `config` asks for, without the rest. Raises CheckpointError or EngineError."""
    device = pick_device(config.device)
    checkpoint = Checkpoint.read(find_checkpoint(config, device, report))
    return VoiceEncoder(load_mimi(checkpoint.mimi, checkpoint.mimi_config, device))


def assemble(
    checkpoint: Checkpoint,
    config: EngineConfig,
    device: torch.device,
    dtype: torch.dtype,
    longest_s: float | None,
    carried: int | None,
) -> SlotEngine:
    """Load all parts of a checkpoint and put them together."""
    seconds: dict[str, float] = {}
    with timed("weights_s", seconds):
        lm = LanguageModel(checkpoint.architecture, device, dtype, int8=config.weights == "int8")
        load_language_model(lm, checkpoint.weights)
    with timed("codec_s", seconds):
        mimi = load_mimi(checkpoint.mimi, checkpoint.mimi_config, device)
        encode_voice = VoiceEncoder(mimi)
        special = checkpoint.special or measure_special_codes(encode_voice)
    frames = longest_call(checkpoint.architecture, longest_s)
    automatic = config.slots == "auto"
    memory_slots = count_slots(config.slots, checkpoint.architecture, device, dtype, frames)
    slots = min(memory_slots, carried or memory_slots) if automatic else memory_slots
    with timed("step_s", seconds):
        model, times = start(lm, mimi, special, slots, frames)
        step_slots = carried_slots(times)
        if automatic and device.type == "cuda" and step_slots < slots:
            log.info("fewer slots, for time", slots=step_slots, step_ms=times)
            slots = step_slots
            del model
            model, times = start(lm, mimi, special, slots, frames)
    limits = SlotLimits()
    if automatic:
        limits = SlotLimits(
            memory=memory_slots if device.type == "cuda" else None,
            step=step_slots if device.type == "cuda" else CPU_SLOTS,
            service=carried,
        )
    with timed("prompts_s", seconds):
        tokenizer = SentencePieceTokenizer(checkpoint.tokenizer)
        store = SnapshotStore(checkpoint.architecture, config.prompt_cache_mb << 20, device, dtype)
        preparation = Preparation(lm, tokenizer, special, encode_voice, store)
        preparation.warm_up()
        voices = packaged_voices(checkpoint.folder, config)
    info = EngineInfo(checkpoint.name, checkpoint.notice, device_name(device), slots, checkpoint.sampling, limits)
    measured = {"slots": slots, "step_ms": times, **seconds, **memory(device)}
    log.info("engine ready", checkpoint=checkpoint.name, device=info.device, **measured)
    return SlotEngine(info, model, preparation, tokenizer, voices.load, tuple(voices.names()), config.max_lag_ms)


@contextmanager
def timed(part: str, seconds: dict[str, float]) -> Iterator[None]:
    """Note how long a part of the start takes."""
    begin = time.perf_counter()
    yield
    seconds[part] = round(time.perf_counter() - begin, 1)


def start(
    lm: LanguageModel, mimi: MimiModel, special: SpecialCodes, slots: int, frames: int
) -> tuple[Model, dict[int, float]]:
    """A warm model whose calls may have so many frames, and the milliseconds of its steps, by callers, at their end."""
    model = Model(lm, MimiCodec(mimi, slots), special, slots, slots * blocks_for(frames))
    model.warm_up()
    hidden = torch.zeros(lm.architecture.dim, device=lm.device, dtype=lm.dtype)
    late = Snapshot((), max(1, frames - (TIMED_STEPS + 1) * len(model.sizes)), hidden)
    lent = [model.cache.borrow(frames) or [] for _ in range(slots)]
    for slot, blocks in enumerate(lent):
        model.begin(slot, late, USUAL, 0, blocks)
    silence = np.zeros(FRAME_SAMPLES, np.float32)
    times = {}
    for size in model.sizes:
        model.step(dict.fromkeys(range(size), silence))
        begin = time.perf_counter()
        for _ in range(TIMED_STEPS):
            model.step(dict.fromkeys(range(size), silence))
        times[size] = round((time.perf_counter() - begin) / TIMED_STEPS * 1000, 1)
    model.reset()
    for blocks in lent:
        model.cache.give_back(blocks)
    return model, times


def carried_slots(times: Mapping[int, float]) -> int:
    """With how many callers a step keeps to its budget, by the milliseconds measured for some numbers; at least 1."""
    numbers, milliseconds = list(times), list(times.values())
    within = (n for n in range(numbers[-1], 1, -1) if np.interp(n, numbers, milliseconds) <= STEP_BUDGET_MS)
    return next(within, 1)


def longest_call(architecture: Architecture, longest_s: float | None) -> int:
    """How many frames a call may come to, its prompt included; no more than the window."""
    if longest_s is None:
        return architecture.context
    return min(architecture.context, PROMPT + math.ceil(longest_s / FRAME_S))


def find_checkpoint(config: EngineConfig, device: torch.device, report: Callable[[str], None]) -> Path:
    """The folder of the checkpoint to run. `auto` is PersonaPlex where card and weights are to be had, else nano."""
    folder = Path(config.checkpoint).expanduser()
    cache = Path(config.cache).expanduser() if config.cache else None
    token = config.token.reveal() if config.token else None
    name = config.name
    if name == "auto":
        here = folder.is_dir() or is_cached(config.checkpoint, config.revision, cache)
        to_be_had = here or (has_token(token) and not config.offline)
        name = "personaplex" if device.type == "cuda" and to_be_had else "nano"
        if name == "nano" and device.type == "cuda":
            report("No PersonaPlex weights and no token to fetch them: running nano. Set HF_TOKEN for the real model.")
    if name == "nano":
        return NANO
    if folder.is_dir():
        return folder
    report(f"Fetching {config.checkpoint} at {config.revision}")
    return fetch(config.checkpoint, config.revision, cache, token, config.offline)


def packaged_voices(folder: Path, config: EngineConfig) -> VoiceFolder:
    """A checkpoint's own voices: its folder `voices`, or its archive, unpacked once.

    The archive holds `.pt` files, so it is opened only where somebody answers for it: NVIDIA for its own repository,
    the operator for a commit or a folder.
    """
    archive = folder / "voices.tgz"
    if not archive.is_file():
        return VoiceFolder(folder / "voices")
    vouched = COMMIT.fullmatch(config.revision) or config.checkpoint.startswith("nvidia/")
    if not vouched and not Path(config.checkpoint).expanduser().is_dir():
        log.warning("voices.tgz left closed: set engine.revision to a commit to vouch for it", file=str(archive))
        return VoiceFolder(folder / "voices")
    return unpack_voices(archive, cache_folder(config) / "voices")


def cache_folder(config: EngineConfig) -> Path:
    """Where the engine keeps what it makes: unpacked voices."""
    if config.cache:
        return Path(config.cache).expanduser() / "personaplex"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "personaplex"


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` is a CUDA card where there is one. Raises EngineError when it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    missing = (
        f"engine.device {name!r} is not on this machine; use auto, cpu or cuda (CUDA_VISIBLE_DEVICES picks a card)."
    )
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise EngineError(missing) from error
    if name not in ("cpu", "cuda"):
        raise EngineError(missing)
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """bfloat16 on a card, float32 on a CPU, unless config says otherwise."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def count_slots(
    wanted: int | str, architecture: Architecture, device: torch.device, dtype: torch.dtype, frames: int
) -> int:
    """How many slots to run: the number configured, or what the device's free memory holds beside the weights.

    Raises EngineError when not even one call of so many frames fits, or fewer than configured.
    """
    if device.type != "cuda":
        return CPU_SLOTS if wanted == "auto" else int(wanted)
    free, total = torch.cuda.mem_get_info(device)
    block = BlockCache.bytes_per_block(architecture, dtype)
    call = blocks_for(frames) * block
    # Beside the calls' blocks there are the one that is nobody's, and a prompt that is being read.
    fitting = int((free - WORKSPACE * total - (1 + PROMPT / BLOCK) * block) // call)
    gib = f"{free / 2**30:.1f} GiB are free beside the weights, and a slot takes {call / 2**30:.2f} GiB"
    if wanted != "auto" and int(wanted) > fitting:
        raise EngineError(f"engine.slots is {wanted}, but only {max(fitting, 0)} fit: {gib}. Lower it, or use auto.")
    if fitting < 1:
        raise EngineError(f"Not one slot fits on {device}: {gib}.")
    return min(fitting, MAX_SLOTS) if wanted == "auto" else int(wanted)


def device_name(device: torch.device) -> str:
    """What a person calls the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def memory(device: torch.device) -> dict[str, float]:
    """What the card's memory holds now, in GiB, for the log."""
    if device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(device)
    return {"memory_used_gib": round((total - free) / 2**30, 1), "memory_gib": round(total / 2**30, 1)}
