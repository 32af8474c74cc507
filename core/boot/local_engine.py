"""From configuration to a running engine in this process."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from subprocess import SubprocessError

import torch

from core.boot.capacity import frames_per_call, longest_call_s, slots_in_memory, slots_in_time, time_steps
from core.boot.checkpoint_source import find_checkpoint, packaged_voices
from core.boot.devices import device_name, memory_gib, pick_cache_dtype, pick_device, pick_dtype
from core.boot.gpu_problems import explain_gpu_error
from core.engine.call import FRAME_S, EngineInfo, SlotLimits
from core.engine.checkpoint import Checkpoint
from core.engine.kv_cache import blocks_for
from core.engine.lm import LanguageModel
from core.engine.mimi.codec import MimiCodec
from core.engine.mimi.voice_encoder import VoiceEncoder, measure_special_codes
from core.engine.model import Model
from core.engine.prefill import Prefill
from core.engine.prefix_cache import PrefixCache
from core.engine.scheduler import SlotEngine
from core.engine.tokenizer import SentencePieceTokenizer
from core.engine.weights import load_language_model, load_mimi
from core.errors import EngineError
from core.settings.log import get_logger
from core.settings.sections import EngineConfig

CPU_THREADS = 1
"""Torch's threads on a CPU: nano's operations are too small to share.

A second thread gains little, and costs much when its core is busy.
"""
SWITCH_SECONDS = 0.0005
"""The interpreter's switch interval on a CPU.

The engine's thread is nearly always in Python there, and other threads would wait the default 5 ms for each turn.
"""

log = get_logger("engine")


def open_engine(
    config: EngineConfig, report: Callable[[str], None], longest_s: float | None = None, carried: int | None = None
) -> SlotEngine:
    """Start the engine that `config` asks for, telling `report` about each part of the work.

    `longest_s` is how many seconds of sound a call may last at most: calls shorter than the model's window take less
    memory, so that more of them fit. `carried` is how many callers the rest of the service carries, which bounds
    `engine.slots: auto`. Blocks, for minutes when it downloads. Raises CheckpointError or EngineError with a message
    that says what to do.
    """
    device = pick_device(config.device, report)
    torch.set_num_threads(config.threads or CPU_THREADS)
    if device.type == "cpu":
        sys.setswitchinterval(SWITCH_SECONDS)
    dtype = pick_dtype(config.dtype, device)
    checkpoint = Checkpoint.read(find_checkpoint(config, device, report))
    report(f"Loading {checkpoint.name} on {device}, {str(dtype).removeprefix('torch.')}")
    try:
        return load_engine(checkpoint, config, device, dtype, longest_s, carried)
    except torch.cuda.OutOfMemoryError as error:
        raise EngineError(
            f"{checkpoint.name} does not fit on {device}: use a GPU with more memory, or end what else runs on it."
        ) from error
    except (RuntimeError, OSError, SubprocessError) as error:
        sentence = explain_gpu_error(error)
        if not sentence:
            raise
        raise EngineError(sentence) from error


def open_voice_encoder(config: EngineConfig, report: Callable[[str], None]) -> VoiceEncoder:
    """Load only the codec of the checkpoint that `config` asks for. Raises CheckpointError or EngineError."""
    device = pick_device(config.device, report)
    checkpoint = Checkpoint.read(find_checkpoint(config, device, report))
    return VoiceEncoder(load_mimi(checkpoint.mimi, checkpoint.mimi_config, device))


def load_engine(
    checkpoint: Checkpoint,
    config: EngineConfig,
    device: torch.device,
    dtype: torch.dtype,
    longest_s: float | None,
    carried: int | None,
) -> SlotEngine:
    """Load all parts of a checkpoint, choose the number of slots, and start the engine's thread."""
    seconds: dict[str, float] = {}
    with timed("weights_s", seconds):
        lm = LanguageModel(checkpoint.architecture, device, dtype, int8=config.weights == "int8")
        load_language_model(lm, checkpoint.weights)
    with timed("codec_s", seconds):
        mimi = load_mimi(checkpoint.mimi, checkpoint.mimi_config, device)
        encode_voice = VoiceEncoder(mimi)
        special = checkpoint.special or measure_special_codes(encode_voice)
    frames = frames_per_call(checkpoint.architecture, longest_s)
    automatic = config.slots == "auto"
    cache_dtype = pick_cache_dtype(config.kv_cache, dtype)
    in_memory = slots_in_memory(config.slots, checkpoint.architecture, device, dtype, cache_dtype, frames)
    slots = min(in_memory, carried or in_memory) if automatic else in_memory

    def warm_model(slots: int) -> Model:
        model = Model(lm, MimiCodec(mimi, slots), special, slots, slots * blocks_for(frames), cache_dtype)
        model.warm_up()
        return model

    with timed("step_s", seconds):
        model = warm_model(slots)
        step_ms = time_steps(model, frames)
        in_time = slots_in_time(step_ms)
        if automatic and device.type == "cuda" and in_time < slots:
            log.info("fewer slots, for time", slots=in_time, step_ms=step_ms)
            slots = in_time
            del model
            model = warm_model(slots)
            step_ms = time_steps(model, frames)
    with timed("prompts_s", seconds):
        tokenizer = SentencePieceTokenizer(checkpoint.tokenizer, checkpoint.spell)
        cache = PrefixCache(checkpoint.architecture, config.prompt_cache_mb << 20, device, dtype)
        prefill = Prefill(lm, tokenizer, special, encode_voice, cache)
        prefill.warm_up()
        voices = packaged_voices(checkpoint.folder, config)
    longest = longest_call_s(checkpoint.architecture, slots * blocks_for(frames))
    limits = SlotLimits()
    if automatic and device.type == "cuda":
        limits = SlotLimits(memory=in_memory, step=in_time, service=carried)
    elif automatic:
        limits = SlotLimits(step=in_memory, service=carried)
    info = EngineInfo(
        checkpoint.name,
        checkpoint.notice,
        device_name(device),
        slots,
        checkpoint.sampling,
        limits,
        longest,
        checkpoint.architecture.context * FRAME_S,
    )
    measured = {"slots": slots, "step_ms": step_ms, **seconds, **memory_gib(device)}
    log.info("engine ready", checkpoint=checkpoint.name, device=info.device, **measured)
    names, lag_ms, pin = tuple(voices.names()), config.max_lag_ms, config.pin_prompt
    return SlotEngine(info, model, prefill, tokenizer, voices.load, names, lag_ms, pin)


@contextmanager
def timed(part: str, seconds: dict[str, float]) -> Iterator[None]:
    """Note how long a part of the start takes."""
    begin = time.perf_counter()
    yield
    seconds[part] = round(time.perf_counter() - begin, 1)
