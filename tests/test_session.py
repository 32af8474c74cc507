"""The rooms of a session that need no socket: the queue, the limits, the query."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.engine.prompt import Prompt
from core.engine.sampling import Sampling
from core.errors import AudioError, EngineBusyError, EngineError, ProtocolError
from core.events import EndReason
from core.plugin.doors import CallEnded
from core.plugin.server_messages import Preparing, Queued, Ready, ReadyEngine, Stats, Warned
from core.session import call_end
from core.session.admission import Caller, EngineAdmission, TooManyCallsError
from core.session.ahead import MOST_HELD, AudioClock
from core.session.chat_request import parse_query
from core.session.limits import BURST_S, WORK_RATE, Due, RateLimits, TimeLimits
from core.session.protocol import CloseCode, Echo, ServerMetadata, encode_metadata
from core.settings.sections import ServerConfig, SessionConfig
from core.testing import EchoEngine


class Clock:
    """Time that passes when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Guest:
    """Somebody in the queue, and the places heard of."""

    def __init__(self, admission: EngineAdmission, name: str = "ann", address: str = "192.0.2.1") -> None:
        self.party = Caller(name, address)
        self.places: list[int] = []
        self.inside = asyncio.Event()
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit(admission))

    async def _visit(self, admission: EngineAdmission) -> None:
        async def moved(place: int) -> None:
            self.places.append(place)

        async with admission.slot(self.party, Prompt(), Sampling(), moved):
            self.inside.set()
            await self.leave.wait()


def queue(engine: EchoEngine, places: int = 3, wait_s: float = 60, **limits: Any) -> EngineAdmission:
    return EngineAdmission(engine, ServerConfig(queue=places, queue_wait_s=wait_s, **limits))


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_queue_is_served_in_order_and_tells_the_places() -> None:
    admission = queue(EchoEngine(slots=1))
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
    admission = queue(engine)
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
    admission = queue(engine)
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
    admission = queue(engine, 1, 0.01)
    waiting, refused = Guest(admission), Guest(admission)
    with pytest.raises(EngineBusyError, match="1 caller waits"):
        await refused.task
    with pytest.raises(EngineBusyError, match=r"0\.01 s"):
        await waiting.task
    assert admission.waiting == 0


async def test_callers_of_different_names_take_turns() -> None:
    admission = queue(EchoEngine(slots=1), 9)
    greedy = [Guest(admission, "ann") for _ in range(4)]
    await settle()
    bob = Guest(admission, "bob")
    await settle()
    assert [guest.places for guest in (*greedy, bob)] == [[], [1, 2], [2, 3], [3, 4], [1]]
    order = []
    for _ in range(5):
        [inside] = [guest for guest in (*greedy, bob) if guest.inside.is_set() and guest not in order]
        order.append(inside)
        inside.leave.set()
        await settle()
    assert order == [greedy[0], bob, *greedy[1:]]


async def test_where_all_have_one_name_addresses_take_turns() -> None:
    admission = queue(EchoEngine(slots=1), 9)
    greedy = [Guest(admission, "caller", "192.0.2.1") for _ in range(4)]
    await settle()
    others = [Guest(admission, "caller", f"192.0.2.{number}") for number in (2, 3)]
    await settle()
    assert [guest.places[-1] for guest in (*greedy[1:], *others)] == [3, 4, 5, 1, 2]
    for guest in (*greedy, *others):
        guest.task.cancel()


async def test_one_name_cannot_fill_the_queue() -> None:
    admission = queue(EchoEngine(slots=1), 3)
    greedy = [Guest(admission, "ann") for _ in range(4)]
    await settle()
    bob = Guest(admission, "bob")
    with pytest.raises(EngineBusyError, match="3 callers wait"):
        await greedy[3].task  # the last in the queue gives way
    another = Guest(admission, "ann")
    with pytest.raises(EngineBusyError, match="3 callers wait"):
        await another.task
    assert bob.places == [1]
    assert admission.waiting == 3
    for guest in (*greedy, bob):
        guest.task.cancel()
    await settle()
    assert admission.waiting == 0


async def test_nobody_has_more_calls_than_allowed() -> None:
    admission = queue(EchoEngine(slots=1), calls_per_identity=2, calls_per_address=3)
    guests = [Guest(admission, "ann"), Guest(admission, "ann"), Guest(admission, "bob")]
    await settle()
    with pytest.raises(TooManyCallsError, match="You have 2 calls"):
        await Guest(admission, "ann", "192.0.2.9").task
    with pytest.raises(TooManyCallsError, match="3 calls come from your address"):
        await Guest(admission, "cid").task
    guests[2].task.cancel()
    await settle()
    cid = Guest(admission, "cid")
    guests[0].leave.set()
    guests[1].leave.set()
    await settle()
    assert cid.inside.is_set()
    cid.leave.set()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=12), st.integers(0, 6))
async def test_whoever_comes_the_queue_is_bounded_and_nobody_is_forgotten(
    parties: list[tuple[str, str]], places: int
) -> None:
    engine = EchoEngine(slots=1)
    admission = queue(engine, places)
    guests = [Guest(admission, *party) for party in parties]
    await settle()
    assert admission.waiting == max(0, min(places, len(parties) - 1))
    waiting = [guest for guest in guests if not guest.task.done() and not guest.inside.is_set()]
    assert sorted(guest.places[-1] for guest in waiting) == list(range(1, len(waiting) + 1))
    for guest in guests:
        guest.leave.set()
    served = await asyncio.gather(*(guest.task for guest in guests), return_exceptions=True)
    assert sum(answer is None for answer in served) == min(len(parties), places + 1)
    assert engine.calls == []


async def test_an_engine_that_fails_lets_those_who_wait_know() -> None:
    engine = EchoEngine(slots=1)
    admission = queue(engine)
    first, second = Guest(admission), Guest(admission)
    await settle()
    engine.faults.open = EngineError("The engine is gone.")
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
    limits.observe(np.full(1920, 0.1, np.float32))
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
    limits.observe(np.full(1920, 0.001, np.float32))
    assert limits.due() == [Due("idle", 0)]


def test_messages_without_sound_may_not_come_faster_than_talk() -> None:
    clock = Clock()
    traffic = RateLimits(SessionConfig(max_messages_per_s=20), clock)
    for _ in range(round(20 * BURST_S)):
        assert traffic.count(2) == 0
    with pytest.raises(CallEnded, match="too_fast") as ended:
        traffic.count(2)
    assert ended.value.code == CloseCode.TOO_FAST
    clock.now += 1
    for _ in range(19):
        assert traffic.count(2) == 0


def test_sound_that_comes_too_fast_is_held_up_and_only_ended_when_it_goes_on() -> None:
    clock = Clock()
    traffic = RateLimits(SessionConfig(max_messages_per_s=20, max_ahead_s=3), clock)
    for _ in range(round(20 * BURST_S)):
        assert traffic.count(100, 1920) == 0
    held = traffic.count(100, 1920)
    assert held == pytest.approx(1 / 20)
    while clock.now < 102.9:
        clock.now += traffic.count(100, 1920)
    clock.now += 0.2
    for _ in range(4):
        traffic.count(0)  # what has come back in 0.2 s
    with pytest.raises(CallEnded, match="too_fast"):
        traffic.count(100, 1920)
    clock.now += BURST_S
    assert traffic.count(100, 1920) == 0


@pytest.mark.parametrize(
    ("size", "samples", "overhead"), [(0, 240_000, 0), (0, 0, 240_000), (640_000, 0, 0), (640_000, 24_000, 0)]
)
def test_bytes_pages_and_stream_starts_count_as_sound_does(size: int, samples: int, overhead: int) -> None:
    traffic = RateLimits(SessionConfig(), Clock())
    for _ in range(round(WORK_RATE * BURST_S / 10)):
        assert traffic.count(size, samples, overhead) == 0
    if samples:
        assert traffic.count(size, samples, overhead) == pytest.approx(10 / WORK_RATE)
    else:
        with pytest.raises(CallEnded, match="too_fast"):
            traffic.count(size, samples, overhead)


def talk(audio: AudioClock[int], clock: Clock, frames: Iterable[int], pace_s: float) -> tuple[list[int], int]:
    """Send frames at a pace; those that were passed on, and how many were dropped."""
    passed: list[int] = []
    dropped = 0
    for frame in frames:
        clock.now += pace_s
        dropped += audio.add(frame)
        passed += audio.due()
    return passed, dropped


def test_what_was_stored_while_waiting_is_dropped_oldest_first() -> None:
    clock = Clock()
    audio: AudioClock[int] = AudioClock(12.0, 15.0, clock)
    passed, dropped = talk(audio, clock, range(150), 0.0001)
    assert passed == [0, 1, 2]
    assert dropped == 150 - 3 - MOST_HELD
    live, lost = talk(audio, clock, range(150, 400), 0.08)
    assert live[:4] == [147, 148, 149, 150]
    assert (live[-1], lost) == (399, 0) or live[-1] >= 399 - MOST_HELD


def test_a_client_that_waited_and_stored_nothing_loses_nothing() -> None:
    clock = Clock()
    audio: AudioClock[int] = AudioClock(30.0, 15.0, clock)
    for second in range(5):  # pages of a second
        clock.now += 1
        assert talk(audio, clock, range(12), 0) == (list(range(12)), 0), second


def test_a_network_that_stalled_delivers_all_of_it() -> None:
    clock = Clock()
    audio: AudioClock[int] = AudioClock(30.0, 0.5, clock)
    clock.now += 10
    assert talk(audio, clock, range(125), 0) == (list(range(125)), 0)


def test_audio_may_run_ahead_so_far_and_no_further() -> None:
    clock = Clock()
    audio: AudioClock[int] = AudioClock(0.0, 4.0, clock)
    passed, dropped = talk(audio, clock, range(1000), 0.04)  # twice as fast as real time
    assert passed[:90] == list(range(90))
    assert len(passed) == pytest.approx(1000 * 0.04 / 0.08 + 50, abs=2)
    assert dropped == pytest.approx(450, abs=5)
    assert passed[-1] >= 999 - 2 * MOST_HELD


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
    assert (theirs.voice, theirs.prompt) == ("NATM2", "<system> You are\n kind. <system>")
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


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (Queued(2), b'{"type":"queued","place":2}'),
        (Preparing(), b'{"type":"preparing"}'),
        (
            Ready("0a", "teacher", "NATF2", ReadyEngine("nano", "Small."), 7, 600.0, "1.token"),
            b'{"type":"ready","session":"0a","persona":"teacher","voice":"NATF2",'
            b'"engine":{"name":"nano","notice":"Small."},"seed":7,"max_s":600.0,"resume":"1.token"}',
        ),
        (Stats(160, 1, 25, 0.5), b'{"type":"stats","input_lag_ms":160,"dropped":1,"frames":25,"window":0.5}'),
        (Warned("idle", 9.5), b'{"type":"warning","limit":"idle","seconds":9.5}'),
        (Echo(17), b'{"type":"echo","id":17}'),
    ],
)
def test_metadata_on_the_wire(message: ServerMetadata, wire: bytes) -> None:
    """Existing clients rely on these bytes."""
    assert encode_metadata(message) == wire
    assert msgspec.json.decode(wire, type=ServerMetadata) == message


def test_every_end_of_a_call_has_a_reason_a_close_code_and_a_message() -> None:
    errors = (
        AudioError("x"),
        ProtocolError("x"),
        TooManyCallsError("x"),
        EngineBusyError("x"),
        EngineError("x"),
        OSError(),
    )
    ends = [call_end.from_error(error) for error in errors]
    ends += [call_end.from_time_limit("time"), call_end.from_time_limit("idle"), call_end.from_shutdown()]
    assert [(end.reason, end.code) for end in ends] == [
        ("bad_message", CloseCode.BAD_MESSAGE),
        ("bad_message", CloseCode.BAD_MESSAGE),
        ("too_many_calls", CloseCode.BUSY),
        ("busy", CloseCode.BUSY),
        ("engine", CloseCode.INTERNAL),
        ("fault", CloseCode.INTERNAL),
        ("time", CloseCode.TIME_LIMIT),
        ("idle", CloseCode.IDLE),
        ("shutdown", CloseCode.GOING_AWAY),
    ]
    assert {end.reason for end in ends} <= set(get_args(EndReason))
    assert all(end.message for end in ends), "the caller is told what happened"
