"""How long the caller's frames may wait: a burst is caught up, and only what comes too late is dropped."""

import asyncio
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.engine.call import FRAME_S, OutputFrame
from core.engine.input_queue import MOST_FRAMES, InputQueue
from core.engine.prompt import Prompt
from core.engine.sampling import Sampling
from core.events import FramesDropped, FrameTimed
from core.session.frames_in_flight import FrameInFlight, FramesInFlight
from core.testing import EchoEngine
from tests.caller import PLAIN, dial
from tests.conftest import Serve, speech

FRAME = np.zeros(1920, np.float32)
TOKENS = np.zeros(9, np.int64)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def answer_all(queue: InputQueue, clock: Clock, step_s: float, until: float) -> list[int]:
    """Step until a moment, as an engine does; the positions answered."""
    positions = []
    while queue and clock.now < until:
        positions.append(queue.pop().position)
        clock.now += step_s
    return positions


@pytest.mark.parametrize("step_s", [0.01, 0.025, 0.05])
def test_pages_of_a_second_are_caught_up(step_s: float) -> None:
    clock = Clock()
    queue = InputQueue(5, clock)
    answered: list[int] = []
    dropped = 0
    for second in range(8):
        clock.now = max(clock.now, second * 1.04)
        dropped += sum(queue.push(FRAME) for _ in range(13))
        answered += answer_all(queue, clock, step_s, (second + 1) * 1.04)
    assert answered == list(range(8 * 13))
    assert dropped == 0


def test_an_engine_that_is_too_slow_answers_the_newest() -> None:
    clock = Clock()
    queue = InputQueue(5, clock)
    waits, answered, dropped, due = [], [], 0, 0.0
    for _ in range(400):
        while due <= clock.now:
            dropped += queue.push(FRAME)
            due += FRAME_S
        waiting = queue.pop()
        waits.append(clock.now - waiting.pushed)
        answered.append(waiting.position)
        clock.now += 0.12
    assert max(waits) < 5 * FRAME_S + 2 * 0.12
    assert all(one < other for one, other in pairwise(answered))
    assert dropped == pytest.approx(400 * 0.12 / FRAME_S - 400, abs=12)


def test_after_a_stall_the_newest_are_kept() -> None:
    clock = Clock()
    queue = InputQueue(5, clock)
    for _ in range(20):
        assert queue.push(FRAME) == 0
    clock.now += 0.41
    assert [waiting.position for waiting in (queue.pop(), queue.pop())] == [15, 16]
    assert queue.push(FRAME) == 15, "what pop has dropped is reported too"
    assert queue.push(FRAME) == 0


def test_no_more_than_the_bound_ever_waits() -> None:
    queue = InputQueue(5, Clock())
    assert sum(queue.push(FRAME) for _ in range(MOST_FRAMES + 10)) == 10
    assert len(queue) == MOST_FRAMES


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4), st.floats(0, 0.5)), max_size=60))
def test_each_answer_gets_the_times_of_its_own_frame(happenings: list[tuple[int, int, float]]) -> None:
    """Whatever is dropped, and whenever that is known."""
    clock = Clock()
    queue, in_flight = InputQueue(2, clock), FramesInFlight()
    pushed = index = 0
    for pushes, pops, passed in happenings:
        for _ in range(pushes):
            in_flight.push(FrameInFlight(float(pushed), 0.0, ()), queue.push(FRAME))
            pushed += 1
        clock.now += passed
        for _ in range(min(pops, len(queue))):
            if not queue:
                break
            waiting = queue.pop()
            answered = in_flight.answered(OutputFrame(index, FRAME, "", TOKENS, 0, 0, waiting.position))
            assert answered is not None
            assert answered.received == waiting.position
            index += 1
            assert in_flight.dropped == waiting.position + 1 - index
            assert in_flight.lag_ms == (pushed - waiting.position - 1) * 80


async def test_a_second_said_at_once_is_answered_whole(serve: Serve) -> None:
    """As ffmpeg, opusenc and GStreamer send: a page a second."""
    running = await serve(EchoEngine(max_waiting=5), **PLAIN)
    samples = speech(3.04)
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        for start in range(0, len(samples), 24_000):
            await caller.say(samples[start : start + 24_000])
        while len(caller.heard) < len(samples) // 1920 * 1920:
            await caller.next()
    assert running.record.of(FramesDropped) == []
    [end] = await running.record.ended()
    assert (end.frames_in, end.frames_out, end.dropped) == (38, 38, 0)
    assert len(running.record.of(FrameTimed)) == 38


async def test_an_echo_engine_keeps_the_promise() -> None:
    """What tests rest on: a stalled engine drops the oldest and tells the positions."""
    engine = EchoEngine(max_waiting=1)
    call = engine.open(Prompt(), Sampling())
    dropped = 0
    while dropped < 10:  # each frame waits for more than 80 ms soon
        dropped += call.push(FRAME)
        await asyncio.sleep(0.02)
    output = await anext(call.frames())
    assert output.index == 0
    assert output.position is not None
    assert output.position >= 10
