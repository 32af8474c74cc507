"""What calls take of the cache: as much as they may ever need, and no more."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch

from core.engine.call import Call
from core.engine.kv_cache import BLOCK_FRAMES, BlockCache
from core.engine.prompt import Prompt
from core.engine.sampling import Sampling
from core.errors import EngineBusyError, EngineError, PromptError
from tests.engines import CPU, FRAMES, alone, converse, frame_of, golden_architecture, persona, speech, tiny_engine


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


async def count(call: Call, answers: list[int]) -> None:
    """Note the index of each answer until the call ends."""
    async for answer in call.frames():
        answers.append(answer.index)


async def test_a_call_takes_the_memory_that_it_may_need(weights: Path) -> None:
    """Of memory for two full windows, two long calls take all, and short ones leave room for more."""
    engine = tiny_engine(weights, slots=4, blocks=4)
    try:
        long = [engine.open(persona(number), Sampling()) for number in range(2)]
        with pytest.raises(EngineBusyError):
            engine.open(persona(2), Sampling(), longest_s=1)
        assert engine.health().busy == 2
        await long[0].close()
        short = [engine.open(persona(number), Sampling(), longest_s=1) for number in range(2)]
        with pytest.raises(EngineBusyError):
            engine.open(persona(2), Sampling())
        said = await asyncio.gather(*(converse(call, speech(1)) for call in (*short, long[1])))
        assert all(len(tokens) == FRAMES for tokens in said)
        for call in (*short, long[1]):
            await call.close()
        for call in [engine.open(persona(number), Sampling(), longest_s=1) for number in range(4)]:
            await call.close()
    finally:
        engine.close()


async def test_a_prompt_beyond_all_memory_is_refused_at_once(weights: Path) -> None:
    engine = tiny_engine(weights, slots=1, blocks=1)
    try:
        with pytest.raises(PromptError, match="too long"):
            engine.open(Prompt(" ".join(["7"] * 150)), Sampling(), longest_s=1)
        await engine.open(Prompt("7"), Sampling(), longest_s=1).close()
    finally:
        engine.close()


async def test_a_call_ends_where_its_memory_does(weights: Path) -> None:
    """A caller who brings more sound than was agreed is answered up to there, and harms nobody."""
    engine = tiny_engine(weights, slots=2)
    try:
        expected = await alone(engine, 2)
        call, other = engine.open(persona(1), Sampling(), longest_s=0.5), engine.open(persona(2), Sampling(seed=2))
        await call.ready()
        for codes in speech(1, 150):
            call.push(frame_of(codes))
        answers: list[int] = []
        with pytest.raises(EngineError, match="as long as it may"):
            await count(call, answers)
        assert 7 <= len(answers) < 150
        assert np.array_equal(await converse(other, speech(2)), expected)
        await call.close()
        await other.close()
    finally:
        engine.close()


def test_calls_are_allocated_consecutive_blocks_where_there_are_such() -> None:
    cache = BlockCache(golden_architecture(4 * BLOCK_FRAMES), 6, CPU, torch.float32)
    first, second, third = (cache.allocate(2 * BLOCK_FRAMES) for _ in range(3))
    assert (first, second, third) == ([1, 2], [3, 4], [5, 6])
    cache.free([3, 4])
    cache.free([1, 6])
    assert cache.allocate(2 * BLOCK_FRAMES) == [3, 4]
    assert cache.allocate(3 * BLOCK_FRAMES) is None
    assert cache.allocate(2 * BLOCK_FRAMES) == [1, 6]


def test_attention_is_the_same_wherever_a_calls_blocks_are() -> None:
    """Consecutive blocks are read in place, others are gathered."""
    architecture = golden_architecture(3 * BLOCK_FRAMES)
    cache = BlockCache(architecture, 6, CPU, torch.float32)
    random = torch.Generator().manual_seed(1)
    tables = torch.tensor([[1, 2, 3], [6, 4, 5]])
    cache.kv[:, :, 1:4] = torch.randn(cache.kv[:, :, 1:4].shape, generator=random)
    cache.kv[:, :, tables[1]] = cache.kv[:, :, 1:4]
    for position in (
        BLOCK_FRAMES - 2,
        BLOCK_FRAMES - 1,
        BLOCK_FRAMES,
        2 * BLOCK_FRAMES,
        3 * BLOCK_FRAMES - 1,
        3 * BLOCK_FRAMES,
        5 * BLOCK_FRAMES + 7,
    ):
        for layer in range(architecture.num_layers):
            new = torch.randn(3, 1, architecture.num_heads, 1, architecture.head_dim, generator=random)
            attend = cache.attention(torch.tensor([position, position]), tables)
            consecutive, scattered = attend(layer, *new.expand(-1, 2, -1, -1, -1))
            assert torch.equal(consecutive, scattered)
