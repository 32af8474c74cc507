"""The engine gives the tokens that NVIDIA's code gives, through the interface that serves calls.

The tokens in `golden/golden.npz` come from NVIDIA's server code, run greedily in float32 on the CPU; there they are one
frame later, because that server holds each frame back for one step.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from core.engine.call import Call
from core.engine.prompt import Prompt, Tokens, Voice
from core.engine.sampling import Sampling
from core.engine.scheduler import SlotEngine
from core.errors import EngineBusyError
from tests.engines import GOLDEN, frame_of, tiny_engine, tiny_model

GREEDY = Sampling(temperature=0, text_temperature=0)
CASES = {"codes": 200, "embeddings": 200, "no_voice": 200, "wrap": 48}
"""Each case's context."""


@pytest.fixture(scope="module")
def golden() -> dict[str, Tokens]:
    with np.load(GOLDEN) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture
def engine(weights: Path) -> Iterator[SlotEngine]:
    engine = tiny_engine(weights)
    yield engine
    engine.close()


def prompt_of(golden: dict[str, Tokens], case: str) -> Prompt:
    text = " ".join(map(str, golden[f"{case}/text_tokens"]))
    if f"{case}/voice_embeddings" in golden:
        saved, ring = golden[f"{case}/voice_embeddings"], golden[f"{case}/voice_cache"]
        return Prompt(text, Voice(case, embeddings=saved[:, 0, 0].astype(np.float32), ring=ring[0].astype(np.int64)))
    codes = golden[f"{case}/voice_codes"].astype(np.int64)
    return Prompt(text, Voice(case, codes=codes) if len(codes) else None)


async def take(engine: SlotEngine, prompt: Prompt, sampling: Sampling) -> Call:
    """Open a call as soon as a slot is free."""
    while True:
        try:
            return engine.open(prompt, sampling)
        except EngineBusyError:
            await asyncio.sleep(0.001)


async def talk(call: Call, user_codes: Tokens) -> Tokens:
    """Say all user frames, one at a time, and return what the agent's tokens were."""
    await call.ready()
    frames, tokens = call.frames(), []
    for codes in user_codes:
        call.push(frame_of(codes))
        tokens.append((await anext(frames)).tokens)
    return np.array(tokens)


def same(tokens: Tokens, golden: dict[str, Tokens], case: str) -> bool:
    return np.array_equal(tokens[:-1], golden[f"{case}/reference_output"][1:])


@pytest.mark.parametrize("case", CASES)
async def test_alone(golden: dict[str, Tokens], weights: Path, case: str) -> None:
    """Of a checkpoint that has weights for 8 steps of the depformer: the others here have 16, as PersonaPlex has."""
    engine = tiny_engine(weights, context=CASES[case], slots=1, steps=8)
    try:
        call = engine.open(prompt_of(golden, case), GREEDY)
        tokens = await talk(call, golden[f"{case}/user_codes"])
        await call.close()
    finally:
        engine.close()
    assert same(tokens, golden, case)


@pytest.mark.slow
@pytest.mark.parametrize("slots", [3, 5])
async def test_interleaved_in_any_slot_with_others_coming_and_going(
    golden: dict[str, Tokens], weights: Path, slots: int
) -> None:
    cases = [case for case, context in CASES.items() if context == 200]
    engine = tiny_engine(weights, slots=slots)

    async def strangers() -> None:
        """Take whatever is free, say a little, hang up; without end."""
        random = np.random.default_rng(slots)
        while True:
            call = await take(engine, Prompt(" ".join(map(str, random.integers(4, 512, 5)))), Sampling(seed=1))
            await talk(call, random.integers(0, 2048, (random.integers(1, 6), 8)))
            await call.close()

    async def one(case: str) -> bool:
        call = await take(engine, prompt_of(golden, case), GREEDY)
        tokens = await talk(call, golden[f"{case}/user_codes"])
        await call.close()
        return same(tokens, golden, case)

    noise = asyncio.create_task(strangers())
    try:
        for order in (cases, cases[::-1]):
            results = await asyncio.gather(*(one(case) for case in order))
            assert all(results), dict(zip(order, results, strict=True))
    finally:
        noise.cancel()
        engine.close()


def test_of_16_steps_the_first_8_are_taken(weights: Path) -> None:
    eight, sixteen = (tiny_model(weights, 200, 1, steps).lm.state_dict() for steps in (8, 16))
    assert eight.keys() == sixteen.keys()
    for name, parameter in eight.items():
        assert torch.equal(parameter, sixteen[name]), name


async def test_all_four_cases_at_once(golden: dict[str, Tokens], weights: Path) -> None:
    """The case that wraps its ring needs another context, and so another engine, at the same time."""
    engines = {200: tiny_engine(weights, 200, 4), 48: tiny_engine(weights, 48, 4)}
    try:
        calls = {case: engines[context].open(prompt_of(golden, case), GREEDY) for case, context in CASES.items()}
        tokens = await asyncio.gather(*(talk(call, golden[f"{case}/user_codes"]) for case, call in calls.items()))
    finally:
        for engine in engines.values():
            engine.close()
    for case, said in zip(calls, tokens, strict=True):
        assert same(said, golden, case), case


async def test_a_cached_prompt_gives_the_same_conversation(golden: dict[str, Tokens], engine: SlotEngine) -> None:
    for _ in range(2):
        call = engine.open(prompt_of(golden, "codes"), GREEDY)
        assert same(await talk(call, golden["codes/user_codes"]), golden, "codes")
        await call.close()


@pytest.mark.slow
@pytest.mark.parametrize("context", [200, 48])
@pytest.mark.parametrize("frames", [7, 24])
async def test_a_window_of_many_blocks(
    golden: dict[str, Tokens], weights: Path, context: int, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks so small that prompts and rings go over several, wherever a call before has left them."""
    monkeypatch.setattr("core.engine.kv_cache.BLOCK_FRAMES", frames)
    cases = [case for case in CASES if CASES[case] == context]
    engine = tiny_engine(weights, context, slots=len(cases) + 1)
    try:
        before = [engine.open(Prompt("5 6 7"), GREEDY, longest_s=seconds) for seconds in (1, 4)]
        for call in before:
            await call.close()
        calls = [engine.open(prompt_of(golden, case), GREEDY) for case in cases]
        other = engine.open(Prompt("5 6 7"), GREEDY, longest_s=2)
        *said, _ = await asyncio.gather(
            *(talk(call, golden[f"{case}/user_codes"]) for call, case in zip(calls, cases, strict=True)),
            talk(other, golden[f"{cases[0]}/user_codes"][:25]),
        )
        assert all(same(tokens, golden, case) for tokens, case in zip(said, cases, strict=True))
    finally:
        engine.close()
