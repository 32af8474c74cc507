"""Small engines for tests: the real one, with tiny weights computed by a formula."""

import re
import zlib
from collections.abc import Generator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.engine.architecture import Architecture
from core.engine.call import Call, EngineInfo
from core.engine.lm import LanguageModel
from core.engine.model import Model
from core.engine.prefill import Prefill
from core.engine.prefix_cache import PrefixCache
from core.engine.prompt import Prompt, SpecialCodes, Tokens, Voice
from core.engine.sampling import USUAL, Sampling
from core.engine.scheduler import SlotEngine
from core.engine.voice_codes import EncodeVoice
from core.engine.weights import load_language_model, stored_name

FRAMES = 12
"""That `speech` says."""
GOLDEN = Path(__file__).parent / "golden" / "golden.npz"
CPU = torch.device("cpu")


def golden_architecture(context: int) -> Architecture:
    """The tiny model of the golden tokens."""
    return Architecture(
        dim=64,
        num_heads=4,
        num_layers=3,
        context=context,
        text_vocab_size=512,
        depformer_dim=32,
        depformer_num_heads=2,
        depformer_num_layers=2,
        depformer_dim_feedforward=132,
    )


def golden_weights(path: Path, architecture: Architecture, steps: int = 16) -> None:
    """Write the golden model in the checkpoint's layout: weights are a function of a tensor's name and shape."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in LanguageModel(architecture, CPU, torch.float32).named_parameters():
        for stored, shape in stored_as(stored_name(name), list(parameter.shape), steps):
            tensors[stored] = torch.from_numpy(golden_tensor(stored, shape))
    save_file(tensors, path)


def stored_as(name: str, shape: list[int], steps: int) -> list[tuple[str, list[int]]]:
    """The tensors that a checkpoint with `steps` depformer steps has in place of one of the engine's."""
    if "depformer.layers" in name and "self_attn" in name:
        return [(name, [shape[0] // 8 * steps, *shape[1:]])]
    per_step = re.search(r"(depformer_in|linears|depformer_emb|gating)\.(\d+)\.", name)
    if per_step is None:
        return [(name, shape)]
    part, first = per_step[1], per_step[2] == "0"
    count = steps - 1 if part == "depformer_emb" else steps
    return [(name.replace(f"{part}.0.", f"{part}.{step}."), shape) for step in range(count)] if first else []


def golden_tensor(name: str, shape: list[int]) -> npt.NDArray[np.float32]:
    weights = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("alpha"):
        return (1 + 0.1 * weights).astype(np.float32)
    return weights if "emb" in name else (weights * 1.5 / np.sqrt(shape[-1])).astype(np.float32)


class CodesAsSound:
    """A codec for tests whose frames carry their eight codes in the first eight samples."""

    def encode(self, pcm: Tensor, active: Tensor, slots: Tensor) -> Tensor:
        return (pcm[:, :8] * 4096).round().long().clamp(0, 2047)

    def decode(self, codes: Tensor, active: Tensor, slots: Tensor) -> Tensor:
        pcm = torch.zeros(len(codes), 1920)
        pcm[:, :8] = codes / 4096
        return pcm

    def reset(self, chosen: Tensor) -> None:
        pass


def frame_of(codes: Tokens) -> npt.NDArray[np.float32]:
    """The frame that `CodesAsSound` reads as these codes."""
    frame = np.zeros(1920, np.float32)
    frame[:8] = codes / 4096
    return frame


class NumbersAsText:
    """A tokenizer for tests: the prompt is written as token numbers."""

    def prompt(self, text: str) -> Tokens:
        return np.array([int(word) for word in text.split()], dtype=np.int64)

    def words(self, text: str) -> list[list[int]]:
        """Words are numbers with hyphens between their pieces."""
        return [[int(piece) for piece in word.split("-")] for word in text.split()]

    def detokenizer(self) -> "NumbersAsText":
        return self

    def decode(self, token: int) -> str:
        return f" {token}"


def no_recordings(pcm: npt.NDArray[np.float32]) -> Generator[None, None, Tokens]:
    raise AssertionError("tests of tiny models use voices given as codes")
    yield


def tiny_model(
    folder: Path,
    context: int,
    slots: int,
    steps: int = 16,
    blocks: int | None = None,
    cache_dtype: torch.dtype | None = None,
) -> Model:
    """The golden model, loaded from a file as any checkpoint is."""
    architecture = golden_architecture(context)
    path = folder / f"golden-{context}-{steps}.safetensors"
    if not path.exists():
        golden_weights(path, architecture, steps)
    lm = LanguageModel(architecture, CPU, torch.float32)
    load_language_model(lm, path)
    return Model(lm, CodesAsSound(), SpecialCodes(), slots, blocks, cache_dtype)


def tiny_engine(
    folder: Path,
    context: int = 200,
    slots: int = 4,
    steps: int = 16,
    budget: int = 1 << 24,
    max_lag_ms: float = 80_000,
    blocks: int | None = None,
    sampling: Sampling = USUAL,
    cache_dtype: torch.dtype | None = None,
    encode_voice: EncodeVoice = no_recordings,
    pin_prompt: bool = True,
) -> SlotEngine:
    """The engine that serves calls, around the golden model."""
    model = tiny_model(folder, context, slots, steps, blocks, cache_dtype)
    tokenizer = NumbersAsText()
    cache = PrefixCache(model.lm.architecture, budget, CPU, torch.float32)
    prefill = Prefill(model.lm, tokenizer, SpecialCodes(), encode_voice, cache)
    info = EngineInfo(name="tiny", notice="", device="cpu", slots=slots, sampling=sampling)
    return SlotEngine(info, model, prefill, tokenizer, lambda name: None, max_lag_ms=max_lag_ms, pin_prompt=pin_prompt)


def persona(number: int, voice_frames: int = 5) -> Prompt:
    """A prompt that no other number has."""
    random = np.random.default_rng(number)
    words = " ".join(map(str, random.integers(4, 512, 6)))
    return Prompt(words, Voice(f"v{number}", codes=random.integers(0, 2048, (voice_frames, 8))))


def speech(number: int, frames: int = FRAMES) -> Tokens:
    return np.random.default_rng(1000 + number).integers(0, 2048, (frames, 8))


async def converse(call: Call, user: Tokens) -> Tokens:
    """Say everything at once and return the agent's tokens."""
    await call.ready()
    for codes in user:
        call.push(frame_of(codes))
    answers = call.frames()
    return np.array([(await anext(answers)).tokens for _ in user])


async def alone(engine: SlotEngine, number: int) -> Tokens:
    call = engine.open(persona(number), Sampling(seed=number))
    tokens = await converse(call, speech(number))
    await call.close()
    return tokens
