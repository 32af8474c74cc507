"""The engine that serves calls: slots, seeds, failures, and what one call can do to another (nothing)."""

import asyncio
import math
import threading
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest

from core.engine import scheduler
from core.engine.call import Frame
from core.engine.input_queue import InputQueue
from core.engine.model import StepOutputs
from core.engine.prefix_cache import PrefixCacheEntry
from core.engine.prompt import Prompt, PromptLayout, Voice
from core.engine.sampling import USUAL, Sampling
from core.engine.scheduler import SlotEngine
from core.engine.speech_queue import Forced
from core.errors import EngineBusyError, EngineError, PromptError, SamplingError
from tests.engines import FRAMES, alone, converse, frame_of, persona, speech, tiny_engine


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture
def engine(weights: Path) -> Iterator[SlotEngine]:
    engine = tiny_engine(weights, slots=3)
    yield engine
    engine.close()


async def test_a_seeded_call_says_the_same_whoever_else_talks(engine: SlotEngine) -> None:
    """Two personas at once, each with its own seed, and a stranger: the same tokens as each alone."""
    expected = [await alone(engine, number) for number in (1, 2)]
    calls = [engine.open(persona(number), Sampling(seed=number)) for number in (3, 2, 1)]
    said = await asyncio.gather(*(converse(call, speech(n)) for call, n in zip(calls, (3, 2, 1), strict=True)))
    assert np.array_equal(said[1], expected[1])
    assert np.array_equal(said[2], expected[0])
    assert not np.array_equal(said[0], said[1])
    for call in calls:
        await call.close()


async def test_without_a_seed_each_call_is_another(engine: SlotEngine) -> None:
    said = []
    for _ in range(2):
        call = engine.open(persona(1), Sampling())
        said.append(await converse(call, speech(1)))
        await call.close()
    assert not np.array_equal(said[0], said[1])


async def test_what_a_call_does_not_ask_for_is_as_the_checkpoint_has_it(tmp_path: Path) -> None:
    greedy = replace(USUAL, temperature=0.0, text_temperature=0.0)
    engine = tiny_engine(tmp_path, sampling=greedy)
    try:
        said = []
        for asked in (Sampling(), Sampling(top_k=3), Sampling(temperature=1.0, text_temperature=1.0)):
            call = engine.open(persona(1), asked)
            said.append(await converse(call, speech(1)))
            await call.close()
    finally:
        engine.close()
    assert np.array_equal(said[0], said[1])
    assert not np.array_equal(said[0], said[2])


async def test_a_call_says_which_seed_it_used(engine: SlotEngine) -> None:
    call = engine.open(persona(1), Sampling())
    said = await converse(call, speech(1))
    await call.close()
    again = engine.open(persona(1), Sampling(seed=call.seed))
    assert np.array_equal(await converse(again, speech(1)), said)
    await again.close()


async def test_answers_are_numbered_and_carry_text_and_times(engine: SlotEngine) -> None:
    call = engine.open(persona(1), Sampling(seed=1))
    await call.ready()
    answers = call.frames()
    for index in range(3):
        assert call.push(frame_of(speech(1)[index])) == 0
        answer = await anext(answers)
        assert (answer.index, answer.text) == (index, f" {answer.tokens[0]}")
        assert answer.pcm.shape == (1920,)
        assert answer.wait_ms >= 0
        assert answer.step_ms > 0
    await call.close()


async def test_busy_until_someone_hangs_up(engine: SlotEngine) -> None:
    calls = [engine.open(persona(number), Sampling()) for number in range(3)]
    assert engine.health().busy == 3
    with pytest.raises(EngineBusyError, match="Try again"):
        engine.open(persona(9), Sampling())
    await calls[1].close()
    await calls[1].close()
    assert engine.health().busy == 2
    calls[1] = engine.open(persona(9), Sampling())
    await calls[1].ready()
    for call in calls:
        await call.close()
    assert engine.health().busy == 0


async def test_a_call_may_end_in_any_phase(engine: SlotEngine) -> None:
    """Before its prompt, in the middle of it, unanswered, unread: the slot comes back, again and again."""
    for turn in range(40):
        call = engine.open(persona(100 + turn, voice_frames=150), Sampling())
        if turn % 4 == 1:
            await asyncio.sleep(0)
        if turn % 4 >= 2:
            await call.ready()
            call.push(frame_of(speech(1)[0]))
        if turn % 4 == 3:
            await anext(call.frames())
        await call.close()
        assert engine.health().busy == 0
    assert (await alone(engine, 1)).shape == (FRAMES, 9)


async def test_reading_ends_when_the_call_is_closed(engine: SlotEngine) -> None:
    call = engine.open(persona(1), Sampling())
    await call.ready()

    async def read() -> list[int]:
        return [answer.index async for answer in call.frames()]

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    await call.close()
    assert await reading == []


async def test_a_caller_who_lags_loses_the_oldest_frames(weights: Path) -> None:
    """They are pushed while the engine cannot step, and have waited for longer than 320 ms when it can."""
    engine = tiny_engine(weights, slots=1, max_lag_ms=320)
    try:
        call = engine.open(persona(1), Sampling(seed=1))
        clock = [0.0]
        with engine.inputs_changed():  # Whoever holds this keeps the engine from taking frames.
            call.inputs = InputQueue(4, lambda: clock[0])
            dropped = sum(call.push(frame_of(codes)) for codes in speech(1))
            assert dropped == 0
            clock[0] = 0.33
        await call.ready()
        answers = call.frames()
        outputs = [await anext(answers) for _ in range(4)]
        said = [output.tokens for output in outputs]
        assert [output.index for output in outputs] == [0, 1, 2, 3]
        assert [output.position for output in outputs] == [FRAMES - 4, FRAMES - 3, FRAMES - 2, FRAMES - 1]
        await call.close()
        again = engine.open(persona(1), Sampling(seed=1))
        assert np.array_equal(said, await converse(again, speech(1)[-4:]))
        await again.close()
    finally:
        engine.close()


@pytest.mark.parametrize("frame", [np.full(1920, np.nan), np.full(1920, np.inf), np.full(1920, -1e30)])
async def test_a_frame_that_is_no_sound_harms_nobody(engine: SlotEngine, frame: npt.NDArray[np.float32]) -> None:
    expected = await alone(engine, 2)
    hostile, other = engine.open(persona(1), Sampling()), engine.open(persona(2), Sampling(seed=2))
    await hostile.ready()
    hostile.push(frame.astype(np.float32))
    assert np.array_equal(await converse(other, speech(2)), expected)
    assert np.isfinite((await anext(hostile.frames())).pcm).all()
    with pytest.raises(ValueError, match="1920"):
        hostile.push(np.zeros(100, np.float32))
    await hostile.close()
    await other.close()


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(" ".join(["7"] * 300)), "300 tokens; with this voice there is room for 187"),
        (Prompt("", Voice("long", codes=np.zeros((300, 8), np.int64))), "room for 0"),
        (Prompt("", Voice("other", codes=np.full((3, 8), 9999))), "Voice other .* another checkpoint"),
        (Prompt("", Voice("other", embeddings=np.zeros((9, 32), np.float32), ring=np.zeros((17, 4), np.int64))), "32"),
    ],
)
async def test_a_prompt_that_cannot_be_used_says_why_and_harms_nobody(
    engine: SlotEngine, prompt: Prompt, message: str
) -> None:
    expected = await alone(engine, 2)
    wrong, other = engine.open(prompt, Sampling()), engine.open(persona(2), Sampling(seed=2))
    with pytest.raises(PromptError, match=message):
        await wrong.ready()
    assert np.array_equal(await converse(other, speech(2)), expected)
    await wrong.close()
    await other.close()
    assert engine.health().busy == 0


async def test_an_empty_prompt_is_a_prompt(engine: SlotEngine) -> None:
    call = engine.open(Prompt(), Sampling())
    assert (await converse(call, speech(1))).shape == (FRAMES, 9)
    await call.close()


async def test_cached_prompts_are_bounded_and_change_nothing(weights: Path) -> None:
    """A prefix cache with room for one prompt: the second evicts the first, and all say what they said before."""
    engine = tiny_engine(weights, slots=1, budget=2 * 3 * 64 * 32 * 4)
    try:
        first = [await alone(engine, number) for number in (1, 2, 1)]
        again = [await alone(engine, number) for number in (1, 2, 1)]
        assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    finally:
        engine.close()


async def test_a_failing_step_ends_its_calls_and_nothing_else(
    engine: SlotEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await alone(engine, 1)
    calls = [engine.open(persona(number), Sampling()) for number in (1, 2)]
    for call in calls:
        await call.ready()
    with monkeypatch.context() as broken:
        broken.setattr(engine._model, "step", fail)
        calls[0].push(frame_of(speech(1)[0]))
        for call in calls:
            with pytest.raises(EngineError, match="Please call again"):
                await anext(call.frames())
            await call.close()
    assert engine.health().busy == 0
    assert engine.health().problem == ""
    assert np.array_equal(await alone(engine, 1), expected)


def fail(*_: object) -> None:
    raise RuntimeError("CUDA error: the GPU fell off the bus")


async def test_an_engine_that_keeps_failing_says_so(engine: SlotEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine._model, "step", fail)
    for _ in range(scheduler.MAX_FAILURES):
        call = engine.open(persona(1), Sampling())
        await call.ready()
        call.push(frame_of(speech(1)[0]))
        with pytest.raises(EngineError):
            await anext(call.frames())
        await call.close()
    assert "the GPU fell off" in engine.health().problem
    with pytest.raises(EngineError, match="Restart the process"):
        engine.open(persona(1), Sampling())


async def test_a_device_that_does_not_recover_is_reported(engine: SlotEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine._model, "step", fail)
    monkeypatch.setattr(engine._model, "reset", fail)
    call = engine.open(persona(1), Sampling())
    await call.ready()
    call.push(frame_of(speech(1)[0]))
    with pytest.raises(EngineError):
        await anext(call.frames())
    await call.close()
    assert "does not recover" in engine.health().problem


async def test_a_stuck_step_shows_in_health_and_in_its_call(
    engine: SlotEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = threading.Event()
    monkeypatch.setattr(engine._model, "step", lambda *_: let_go.wait())
    monkeypatch.setattr(scheduler, "STALL_SECONDS", 0.01)
    monkeypatch.setattr("core.engine.slot_call.ANSWER_SECONDS", 0.1)
    call = engine.open(persona(1), Sampling())
    await call.ready()
    call.push(frame_of(speech(1)[0]))
    with pytest.raises(EngineError, match="does not answer"):
        await anext(call.frames())
    assert "restart the process" in engine.health().problem
    await call.close()
    assert engine.health().busy == 1
    let_go.set()
    monkeypatch.setattr(scheduler, "STALL_SECONDS", 10)


async def test_a_caller_who_was_silent_for_long_is_answered(
    engine: SlotEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time to answer counts from a frame's push, not from the last answer."""
    monkeypatch.setattr("core.engine.slot_call.ANSWER_SECONDS", 0.2)
    call = engine.open(persona(1), Sampling())
    await call.ready()
    step, going = engine._model.step, threading.Event()

    def slow(frames: Mapping[int, Frame], forced: Mapping[int, Forced]) -> object:
        going.wait(0.15)
        return step(frames, forced)

    monkeypatch.setattr(engine._model, "step", slow)
    reading = asyncio.ensure_future(anext(call.frames()))
    asyncio.get_running_loop().call_later(0.15, call.push, frame_of(speech(1)[0]))
    assert (await reading).index == 0
    going.set()
    await call.close()


async def test_a_frame_waits_for_one_chunk_of_somebody_elses_prompt(
    engine: SlotEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    talking = engine.open(persona(1), Sampling())
    await talking.ready()
    done, until_ready = list[str](), list[str]()
    forward, step = engine._prefill._forward, engine._model.step

    def chunk_by_chunk(layout: PromptLayout) -> Generator[None, None, PrefixCacheEntry]:
        chunks = forward(layout)
        while True:
            talking.push(frame_of(speech(1)[0]))  # It comes while the chunk is computed.
            try:
                next(chunks)
            except StopIteration as end:
                until_ready.extend(done)
                return cast(PrefixCacheEntry, end.value)
            done.append("chunk")
            yield

    def stepped(frames: Mapping[int, Frame], forced: Mapping[int, Forced]) -> StepOutputs:
        done.append("step")
        return step(frames, forced)

    monkeypatch.setattr(engine._prefill, "_chunk", 4)
    monkeypatch.setattr(engine._prefill, "_forward", chunk_by_chunk)
    monkeypatch.setattr(engine._model, "step", stepped)
    newcomer = engine.open(persona(2), Sampling())
    await newcomer.ready()
    assert until_ready.count("chunk") > 2
    assert until_ready == ["chunk", "step"] * until_ready.count("chunk")
    await newcomer.close()
    await talking.close()


async def test_a_device_that_dies_during_a_prefill_is_reported(
    engine: SlotEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._prefill, "_forward", fail)
    monkeypatch.setattr(engine._model, "step", fail)
    for number in range(scheduler.MAX_FAILURES):
        call = engine.open(persona(number), Sampling())
        with pytest.raises(EngineError, match="Please call again"):
            await call.ready()
        await call.close()
    assert "the GPU fell off" in engine.health().problem


class Panic(BaseException):
    """As a library in Rust raises it."""


def panic(*_: object) -> None:
    raise Panic("index out of bounds")


async def test_a_panic_ends_its_calls_and_not_the_engines_thread(
    engine: SlotEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(engine._prefill, "_forward", panic)
        call = engine.open(persona(1), Sampling())
        with pytest.raises(EngineError, match="could not be prepared"):
            await call.ready()
        await call.close()
    with monkeypatch.context() as broken:
        call = engine.open(persona(1), Sampling())
        await call.ready()
        broken.setattr(engine._model, "step", panic)
        call.push(frame_of(speech(1)[0]))
        with pytest.raises(EngineError, match="Please call again"):
            await anext(call.frames())
        await call.close()
    assert await alone(engine, 1) is not None
    assert engine.health().problem == ""


async def test_a_thread_that_ends_is_reported(engine: SlotEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    call = engine.open(persona(1), Sampling())
    await call.ready()
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(engine, "_recover", fail)
    monkeypatch.setattr(engine._model, "step", fail)
    call.push(frame_of(speech(1)[0]))
    with pytest.raises(EngineError, match="Please call again"):
        await anext(call.frames())
    assert "thread ended" in engine.health().problem
    await asyncio.to_thread(engine._thread.join)
    assert not engine.release(call)  # nobody is left to do it
    monkeypatch.setattr("core.engine.slot_call.CLOSE_SECONDS", math.inf)
    await call.close()


async def test_closing_the_engine_ends_its_calls(weights: Path) -> None:
    engine = tiny_engine(weights, slots=2)
    call = engine.open(persona(1), Sampling())
    await call.ready()
    await asyncio.to_thread(engine.close)
    with pytest.raises(EngineError, match="shutting down"):
        await anext(call.frames())
    await call.close()
    with pytest.raises(EngineError, match="shutting down"):
        engine.open(persona(1), Sampling())


def test_a_loop_that_dies_gives_its_slots_back(engine: SlotEngine) -> None:
    async def vanish() -> None:
        for _ in range(3):
            await engine.open(persona(1), Sampling()).ready()

    asyncio.run(vanish())

    async def next_loop() -> None:
        call = None
        while call is None:
            try:
                call = engine.open(persona(2), Sampling())
            except EngineBusyError:
                await asyncio.sleep(0.001)
        await call.ready()
        await call.close()

    asyncio.run(asyncio.wait_for(next_loop(), 10))


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -0.1}, {"temperature": float("nan")}, {"text_temperature": 99}, {"top_k": 0}, {"seed": -1}],
)
def test_sampling_out_of_limits_is_named(wrong: dict[str, float]) -> None:
    with pytest.raises(SamplingError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]
