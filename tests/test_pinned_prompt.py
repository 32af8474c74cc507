"""A pinned prompt stays in the window: as attention to the prompt and to the last frames, written down plainly."""

import asyncio
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from core.engine.architecture import AGENT_CODEBOOKS, STREAMS, Architecture
from core.engine.call import Call, OutputFrame
from core.engine.depformer import CodebookCache
from core.engine.kv_cache import BlockCache, pinned_frames
from core.engine.lm import LanguageModel
from core.engine.prompt import Prompt, SpecialCodes, Tokens, lay_out
from core.engine.rotary import RotaryEmbedding
from core.engine.sampling import Sampling
from core.engine.scheduler import SlotEngine
from tests.engines import CPU, converse, frame_of, golden_architecture, persona, speech, tiny_engine, tiny_model

CONTEXT, FRAMES = 48, 105
"""A window whose 25 frames beside a prompt that stays, of 23, are written anew three times and a part."""
PROMPT = 23
GREEDY = Sampling(temperature=0, text_temperature=0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


class WholeHistory:
    """Attention that keeps every key as it was, and rotates each by how far away it is to be.

    Of one row. The first `kept` positions stay, at the window's far end.
    """

    def __init__(self, architecture: Architecture, kept: int) -> None:
        self._architecture, self._kept = architecture, kept
        self._keys: dict[int, list[Tensor]] = {}
        self._values: dict[int, list[Tensor]] = {}

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = self._keys.setdefault(layer, []), self._values.setdefault(layer, [])
        keys.append(key)
        values.append(value)
        here, context = len(keys) - 1, self._architecture.context
        kept = min(self._kept, here + 1)
        moved = max(0, here + 1 - context)
        ring = range(max(kept, here + 1 - (context - kept)), here + 1)
        seen = {**{j: here - moved - j for j in range(kept)}, **{j: here - j for j in ring}}
        assert sorted(seen.values()) == list(range(min(here + 1, context))), "each distance occurs once"
        away = -torch.tensor([list(seen.values())])
        rotated = RotaryEmbedding(away, self._architecture)(torch.cat([keys[j] for j in seen], dim=2))
        weights = (query @ rotated.mT / self._architecture.head_dim**0.5).softmax(dim=-1)
        attended: Tensor = weights @ torch.cat([values[j] for j in seen], dim=2)
        return attended


@torch.inference_mode()
def plain_conversation(lm: LanguageModel, prompt: Prompt, user: Tokens, pinned: bool) -> Tokens:
    """What the model says greedily, position by position, int64[frames, 9]."""
    special, text = SpecialCodes(), np.array([int(word) for word in prompt.text.split()])
    layout = lay_out(prompt.voice, text, special, lm.architecture)
    attend = WholeHistory(lm.architecture, layout.length if pinned else 0)
    for tokens in layout.tokens:
        hidden = lm(lm.embed(torch.from_numpy(tokens)[None, None]), attend)[:, 0]
    told, spoken = [*special.sine], list[list[int]]()
    for codes in user.tolist():
        word = lm.text_logits(hidden).argmax(dim=-1)
        cache, previous, sampled = CodebookCache(), word, []
        for codebook in range(AGENT_CODEBOOKS):
            previous = lm.codebook_logits(hidden, codebook, previous, cache).argmax(dim=-1)
            sampled.append(int(previous))
        # The prompt has given the delayed codebooks of the first position.
        agent = [sampled[0], *(sampled[1:] if spoken else special.silence[1:])]
        spoken.append([int(word), *agent])
        position = torch.tensor([[[int(word), *agent, codes[0], *told[1:]]]])
        assert position.shape[2] == STREAMS
        hidden = lm(lm.embed(position), attend)[:, 0]
        told = codes
    # An agent's frame has the delayed codebooks of the position after it.
    return np.array([[*now[:2], *later[2:]] for now, later in pairwise(spoken)])


def asking(number: int, pin: bool | None) -> Prompt:
    """A persona of `PROMPT` positions."""
    return Prompt(persona(number).text, persona(number).voice, pin)


@pytest.fixture(scope="module")
def expected(weights: Path) -> dict[bool, Tokens]:
    """What is said far beyond the window, with the prompt pinned and without."""
    lm = tiny_model(weights, CONTEXT, 1).lm
    return {pinned: plain_conversation(lm, asking(1, None), speech(1, FRAMES), pinned) for pinned in (True, False)}


@pytest.mark.parametrize("block_frames", [pytest.param(128, marks=pytest.mark.slow), 8])
@pytest.mark.parametrize("pinned", [True, False])
async def test_a_conversation_beyond_the_window(
    weights: Path, expected: dict[bool, Tokens], pinned: bool, block_frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one block, and in six, of which the third is both the prompt's and the ring's."""
    monkeypatch.setattr("core.engine.kv_cache.BLOCK_FRAMES", block_frames)
    engine = tiny_engine(weights, CONTEXT, slots=1)
    try:
        said = await converse(engine.open(asking(1, pinned), GREEDY), speech(1, FRAMES))
    finally:
        engine.close()
    assert np.array_equal(said[:-1], expected[pinned])


@pytest.mark.slow
async def test_calls_pinned_and_not_beside_each_other(weights: Path) -> None:
    """Each says the same as alone; up to a full window both are the same, and afterwards no longer."""
    engine = tiny_engine(weights, CONTEXT, slots=3)
    kinds = [(1, True), (1, False), (2, True)]

    def opened(number: int, pin: bool | None) -> Call:
        return engine.open(asking(number, pin), Sampling(seed=number))

    try:
        alone = []
        for number, pin in kinds:
            call = opened(number, pin)
            alone.append(await converse(call, speech(number, FRAMES)))
            await call.close()
        calls = [opened(number, pin) for number, pin in kinds[::-1]]
        beside = await asyncio.gather(
            *(converse(call, speech(number, FRAMES)) for call, (number, _) in zip(calls, kinds[::-1], strict=True))
        )
    finally:
        engine.close()
    for expected, said in zip(alone, beside[::-1], strict=True):
        assert np.array_equal(expected, said)
    full = CONTEXT - PROMPT
    assert np.array_equal(alone[0][:full], alone[1][:full])
    assert not np.array_equal(alone[0], alone[1])


async def test_an_engine_that_does_not_pin(weights: Path) -> None:
    """A prompt that says nothing itself takes the engine's way."""
    said = {}
    for pins, pin in ((True, False), (False, None), (False, True), (True, None)):
        engine = tiny_engine(weights, CONTEXT, slots=1, pin_prompt=pins)
        try:
            said[pins, pin] = await converse(engine.open(asking(1, pin), GREEDY), speech(1, 40))
        finally:
            engine.close()
    assert np.array_equal(said[True, False], said[False, None])
    assert np.array_equal(said[True, None], said[False, True])
    assert not np.array_equal(said[True, None], said[False, None])


async def test_how_full_the_window_is(weights: Path) -> None:
    engine = tiny_engine(weights, CONTEXT, slots=1)
    try:
        told = await answers(engine, asking(1, True), 30)
    finally:
        engine.close()
    full = [min(1.0, (PROMPT + frame) / CONTEXT) for frame in range(1, 31)]
    assert [answer.window for answer in told] == full


async def answers(engine: SlotEngine, prompt: Prompt, count: int) -> list[OutputFrame]:
    """What the agent answers to so many frames."""
    call = engine.open(prompt, GREEDY)
    await call.ready()
    for codes in speech(1, count):
        call.push(frame_of(codes))
    frames = call.frames()
    return [await anext(frames) for _ in range(count)]


def test_a_prompt_of_more_than_half_the_window_is_not_pinned() -> None:
    assert [pinned_frames(prompt, 48) for prompt in (0, 23, 24, 25, 47)] == [0, 23, 24, 0, 0]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.int8, 2e-2)], ids=str
)
def test_attention_in_caches_of_all_kinds(
    dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that keep something and rows that do not, each from its first position on, three times round the ring."""
    monkeypatch.setattr("core.engine.kv_cache.BLOCK_FRAMES", 8)
    architecture = golden_architecture(20)
    kept, table = torch.tensor([5, 0, 9, 8]), torch.tensor([[1, 2, 3], [9, 7, 8], [4, 5, 6], [12, 10, 11]])
    cache, random = BlockCache(architecture, 12, CPU, dtype), torch.Generator().manual_seed(1)
    plain = [WholeHistory(architecture, int(count)) for count in kept]
    for position in range(60):
        query, key, value = torch.randn(3, 4, 4, 1, 16, generator=random)
        attend = cache.attention(torch.full((4,), position), table, kept)
        got = attend(0, query, key, value)
        for row, history in enumerate(plain):
            each = slice(row, row + 1)
            expected = history(0, query[each], key[each], value[each])
            assert (got[each] - expected).norm() < tolerance * expected.norm()
