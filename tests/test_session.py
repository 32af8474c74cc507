"""The rooms of a session that need no socket: the queue, the limits, the query."""

import asyncio
import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.admission import Admission
from core.config import SessionConfig
from core.engine.prompt import Prompt
from core.engine.sampling import Sampling
from core.errors import EngineBusyError, EngineError, ProtocolError
from core.limits import AUDIO_AT_ONCE_S, MESSAGES_AT_ONCE, MOST_MESSAGES_A_SECOND, Due, TimeLimits, Traffic
from core.protocol import CloseCode
from core.request import parse_query
from core.wire import Hangup
from tests.echo_engine import EchoEngine


class Clock:
    """Time that passes when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Guest:
    """Somebody in the queue, and the places heard of."""

    def __init__(self, admission: Admission) -> None:
        self.places: list[int] = []
        self.inside = asyncio.Event()
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit(admission))

    async def _visit(self, admission: Admission) -> None:
        async def moved(place: int) -> None:
            self.places.append(place)

        async with admission.slot(Prompt(), Sampling(), moved):
            self.inside.set()
            await self.leave.wait()


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_queue_is_served_in_order_and_tells_the_places() -> None:
    admission = Admission(EchoEngine(slots=1), 3, 60)
    guests = []
    for _ in range(4):
        guests.append(Guest(admission))
        await settle()
    assert [guest.places for guest in guests] == [[], [1], [2], [3]]
    assert admission.waiting == 3
    for index, guest in enumerate(guests):
        assert guest.inside.is_set()
        assert not any(later.inside.is_set() for later in guests[index + 1 :])
        guest.leave.set()
        await settle()
    assert [guest.places for guest in guests] == [[], [1], [2, 1], [3, 2, 1]]
    assert admission.waiting == 0


async def test_who_leaves_the_queue_frees_the_place() -> None:
    engine = EchoEngine(slots=1)
    admission = Admission(engine, 3, 60)
    first, second, third = Guest(admission), Guest(admission), Guest(admission)
    await settle()
    second.task.cancel()
    await settle()
    assert third.places == [2, 1]
    first.leave.set()
    await settle()
    assert third.inside.is_set()
    third.leave.set()
    await settle()
    assert engine.calls == []


async def test_a_newcomer_does_not_pass_those_who_wait() -> None:
    engine = EchoEngine(slots=1)
    admission = Admission(engine, 3, 60)
    first, second = Guest(admission), Guest(admission)
    await settle()
    first.leave.set()
    newcomer = Guest(admission)
    await settle()
    assert second.inside.is_set()
    assert newcomer.places == [2, 1]
    newcomer.task.cancel()


async def test_a_full_queue_and_a_long_wait_are_refused() -> None:
    engine = EchoEngine(slots=0)
    admission = Admission(engine, 1, 0.01)
    waiting, refused = Guest(admission), Guest(admission)
    with pytest.raises(EngineBusyError, match="1 callers wait"):
        await refused.task
    with pytest.raises(EngineBusyError, match=r"0\.01 s"):
        await waiting.task
    assert admission.waiting == 0


async def test_an_engine_that_fails_lets_those_who_wait_know() -> None:
    engine = EchoEngine(slots=1)
    admission = Admission(engine, 3, 60)
    first, second = Guest(admission), Guest(admission)
    await settle()
    engine.troubles.open = EngineError("The engine is gone.")
    first.leave.set()
    with pytest.raises(EngineError, match="gone"):
        await second.task


def test_limits_warn_once_and_end() -> None:
    clock = Clock()
    limits = TimeLimits(SessionConfig(max_s=100, idle_s=50, warn_s=10), clock)
    assert limits.due() == []
    assert limits.next_s() == 40
    clock.now += 42
    assert limits.due() == [Due("idle", 8)]
    assert limits.due() == []
    limits.heard(np.full(1920, 0.1, np.float32))
    clock.now += 45
    assert limits.due() == [Due("idle", 5)]
    clock.now += 4
    assert limits.due() == [Due("time", 9)]
    clock.now += 1
    assert limits.due() == [Due("idle", 0)]


def test_a_hum_is_no_speech() -> None:
    clock = Clock()
    limits = TimeLimits(SessionConfig(max_s=100, idle_s=50, warn_s=10), clock)
    clock.now += 51
    limits.heard(np.full(1920, 0.001, np.float32))
    assert limits.due() == [Due("idle", 0)]


def test_messages_and_audio_may_not_come_faster_than_talk() -> None:
    clock = Clock()
    traffic = Traffic(clock)
    for _ in range(MESSAGES_AT_ONCE):
        traffic.message()
    with pytest.raises(Hangup) as ended:
        traffic.message()
    assert ended.value.code == CloseCode.TOO_FAST
    clock.now += 1
    for _ in range(MOST_MESSAGES_A_SECOND - 1):
        traffic.message()
    traffic.audio(round(AUDIO_AT_ONCE_S * 24_000))
    with pytest.raises(Hangup, match="too_fast"):
        traffic.audio(1920)


def test_both_sets_of_names_are_read() -> None:
    ours = parse_query(
        {"persona": "a", "voice": "NATF2", "seed": "5", "temperature": "1", "top_k": "3", "audio": "pcm"}
    )
    assert (ours.persona, ours.voice, ours.prompt, ours.audio) == ("a", "NATF2", None, "pcm")
    assert ours.sampling == {"seed": 5, "temperature": 1.0, "top_k": 3}
    theirs = parse_query(
        {
            "voice_prompt": "NATM2.pt",
            "text_prompt": "<system> You are\n kind. <system>",
            "text_temperature": "0.7",
            "text_topk": "25",
            "audio_temperature": "0.8",
            "audio_topk": "250",
            "pad_mult": "0",
            "text_seed": "1",
            "audio_seed": "2",
            "repetition_penalty": "1.0",
            "repetition_penalty_context": "64",
        }
    )
    assert (theirs.voice, theirs.prompt) == ("NATM2", "You are kind.")
    assert theirs.sampling == {
        "seed": 2,
        "temperature": 0.8,
        "top_k": 250,
        "text_temperature": 0.7,
        "text_top_k": 25,
    }


@pytest.mark.parametrize("seed", ["-1", "", " "])
def test_no_seed(seed: str) -> None:
    assert parse_query({"seed": seed}).sampling == {}


@given(st.dictionaries(st.sampled_from(["seed", "top_k", "temperature", "audio", "prompt", "voice"]), st.text()))
def test_any_query_is_read_or_refused(query: dict[str, str]) -> None:
    with contextlib.suppress(ProtocolError):
        assert parse_query(query).audio in ("opus", "pcm")
