"""Audio transforms one after another: what a bad one can do to the frames (nothing)."""

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.engine.call import Frame
from core.events import TransformFailed
from core.plugin.transforms import OVERRUNS, WINDOW, Chain

FRAME = np.full(1920, 0.25, np.float32)


class Returns:
    def __init__(self, result: Any) -> None:
        self.result = result

    def process(self, frame: Frame) -> Any:
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


@pytest.mark.parametrize(
    "result",
    [
        None,
        3.0,
        [0.0] * 1920,
        np.zeros(1920),
        np.zeros(1919, np.float32),
        np.zeros((1, 1920), np.float32),
        np.full(1920, np.nan, np.float32),
        np.full(1920, np.inf, np.float32),
        RuntimeError("x"),
        SystemExit(1),
    ],
)
def test_a_transform_that_gives_no_frame_is_left_out_and_the_frame_goes_on(result: object) -> None:
    failures: list[TransformFailed] = []
    quieter = type("Half", (), {"process": lambda self, frame: frame / 2})()
    chain = Chain([("bad", Returns(result)), ("half", quieter)], 1000, failures.append)
    for _ in range(3):
        assert np.array_equal(chain.process(FRAME), FRAME / 2)
    assert [failure.plugin for failure in failures] == ["bad"]
    assert chain.plugins == ("half",)


class Slow:
    """Takes as long as it is told, on a clock that the test moves."""

    def __init__(self, clock: list[float]) -> None:
        self.clock = clock
        self.seconds = 0.0

    def process(self, frame: Frame) -> Frame:
        self.clock[0] += self.seconds
        return frame


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=160))
def test_a_transform_is_left_out_exactly_when_too_slow_again_and_again(pattern: list[bool]) -> None:
    clock = [0.0]
    failures: list[TransformFailed] = []
    slow, quick = Slow(clock), Slow(clock)
    quick.seconds = 0.004
    chain = Chain([("quick", quick), ("slow", slow)], 8, failures.append, clock=lambda: clock[0])
    for index, over in enumerate(pattern):
        slow.seconds = 0.005 if over else 0.003
        chain.process(FRAME)
        left_out = any(sum(pattern[max(0, end - WINDOW) : end]) >= OVERRUNS for end in range(1, index + 2))
        assert (chain.plugins == ("quick",)) is left_out
    assert [failure.plugin for failure in failures] == (["slow"] if left_out else [])


class Asleep:
    """Takes 20 ms by the real clock."""

    def process(self, frame: Frame) -> Frame:
        time.sleep(0.02)
        return frame


def test_a_sleeping_transform_is_found_by_the_real_clock() -> None:
    failures: list[TransformFailed] = []
    chain = Chain([("asleep", Asleep())], 8, failures.append)
    for _ in range(OVERRUNS):
        chain.process(FRAME)
    assert [failure.plugin for failure in failures] == ["asleep"]
    assert "too slow" in failures[0].reason


def test_the_time_of_each_transform_is_known_also_of_one_that_fails() -> None:
    clock = [0.0]
    quick, slow = Slow(clock), Slow(clock)
    quick.seconds, slow.seconds = 0.001, 0.003
    chain = Chain([("quick", quick), ("bad", Returns(None)), ("slow", slow)], 8, lambda _: None, clock=lambda: clock[0])
    assert list(chain.times) == []
    chain.process(FRAME)
    assert [(name, round(ms, 3)) for name, ms in chain.times] == [("quick", 1), ("bad", 0), ("slow", 3)]
    chain.process(FRAME)
    assert [name for name, _ in chain.times] == ["quick", "slow"]
