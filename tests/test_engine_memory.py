"""What calls take of the cache: as much as they may ever need, and no more."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from core.engine.architecture import STREAMS, Architecture
from core.engine.call import Call
from core.engine.kv_cache import BLOCK_FRAMES, BlockCache
from core.engine.prefix_cache import PrefixCacheEntry
from core.engine.prompt import Prompt
from core.engine.sampling import Sampling
from core.errors import EngineBusyError, EngineError, PromptError
from tests.engines import (
    CPU,
    FRAMES,
    alone,
    converse,
    frame_of,
    golden_architecture,
    persona,
    speech,
    tiny_engine,
    tiny_model,
)

CACHE_DTYPES = [torch.float32, torch.bfloat16, torch.int8]


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


@pytest.mark.parametrize("dtype", CACHE_DTYPES)
def test_attention_is_the_same_wherever_a_calls_blocks_are(dtype: torch.dtype) -> None:
    """Consecutive blocks are read in place, others are gathered."""
    architecture = golden_architecture(3 * BLOCK_FRAMES)
    cache = BlockCache(architecture, 6, CPU, dtype)
    random = torch.Generator().manual_seed(1)
    tables = torch.tensor([[1, 2, 3], [6, 4, 5]])
    for table in tables.tolist():
        cache.load(table, prefilled(architecture, 3 * BLOCK_FRAMES))
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


def prefilled(architecture: Architecture, length: int, segments: int = 1) -> PrefixCacheEntry:
    """A prompt of random keys and values."""
    shape = architecture.num_layers, 2, architecture.num_heads, length, architecture.head_dim
    kv = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    return PrefixCacheEntry(kv.tensor_split(segments, dim=3), length, torch.zeros(architecture.dim))


@pytest.mark.parametrize("dtype", CACHE_DTYPES)
def test_a_block_takes_what_is_reckoned(dtype: torch.dtype) -> None:
    architecture = golden_architecture(BLOCK_FRAMES)
    cache = BlockCache(architecture, 2, CPU, dtype)
    taken = cache.kv.nbytes + (0 if cache.scales is None else cache.scales.nbytes)
    assert taken == 3 * BlockCache.bytes_per_block(architecture, dtype)


def test_a_block_of_personaplex_in_8_bits_takes_half() -> None:
    half, whole = (BlockCache.bytes_per_block(Architecture(), dtype) for dtype in (torch.int8, torch.bfloat16))
    assert (half, whole) == (33 << 20, 64 << 20)


@pytest.mark.parametrize("segments", [1, 7, 40])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 0.0), (torch.bfloat16, 2.0**-8), (torch.int8, 1 / 254)])
def test_a_prompt_is_loaded_as_exactly_as_the_cache_can(dtype: torch.dtype, most: float, segments: int) -> None:
    """In whatever pieces it comes, up to a window's end; in 8 bits to half a step of the largest component."""
    architecture = golden_architecture(BLOCK_FRAMES + 72)
    prompt = prefilled(architecture, 210, segments)
    cache = BlockCache(architecture, 4, CPU, dtype)
    cache.load([4, 2], prompt)
    whole = torch.cat(prompt.segments, dim=3)[:, :, :, :200]
    for layer in range(architecture.num_layers):
        loaded = torch.stack(cache.read(layer, torch.tensor([4, 2]), 200, torch.float32))
        largest = whole[layer].abs().amax(dim=-1, keepdim=True)
        assert bool(((loaded - whole[layer]).abs() <= largest * (most + 1e-6)).all())
    assert not cache.kv[:, :, [1, 3]].any()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_a_rounded_cache_changes_what_is_predicted_by_little(weights: Path, dtype: torch.dtype) -> None:
    """Stepping through a window and a half: the state of each position, against that with an exact cache."""
    lm = tiny_model(weights, 200, 1).lm
    exact, rounded = (BlockCache(lm.architecture, 2, CPU, each) for each in (torch.float32, dtype))
    table = torch.tensor([[1, 2]])
    tokens = torch.from_numpy(np.random.default_rng(1).integers(4, 512, (300, 1, 1, STREAMS)))
    states: list[list[Tensor]] = [[], []]
    with torch.inference_mode():
        for position, frame in enumerate(tokens):
            for cache, of_positions in zip((exact, rounded), states, strict=True):
                of_positions.append(lm(lm.embed(frame), cache.attention(torch.tensor([position]), table)))
    expected, got = (torch.cat(each) for each in states)
    error = (got - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert 0 < float(error.mean()) < 0.01
    assert float(error.max()) < 0.05


async def test_with_8_bits_a_call_says_the_same_whoever_else_talks(weights: Path) -> None:
    """Its prompt prefilled or cached, its blocks fresh or used before."""
    engine = tiny_engine(weights, slots=2, cache_dtype=torch.int8)
    try:
        expected = await alone(engine, 1)
        calls = [engine.open(persona(number), Sampling(seed=number)) for number in (2, 1)]
        said = await asyncio.gather(
            *(converse(call, speech(number)) for call, number in zip(calls, (2, 1), strict=True))
        )
        assert np.array_equal(said[1], expected)
        for call in calls:
            await call.close()
    finally:
        engine.close()
