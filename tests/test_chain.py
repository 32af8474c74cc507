"""Audio transforms one after another: what a bad one can do to the frames (nothing)."""

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.engine.call import Frame
from core.errors import PluginError
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
        PluginError(""),
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


class Computes:
    """Keeps the processor busy for 20 ms."""

    def process(self, frame: Frame) -> Frame:
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass
        return frame


def test_a_transform_that_computes_too_long_is_found_by_the_real_clock() -> None:
    failures: list[TransformFailed] = []
    chain = Chain([("busy", Computes())], 8, failures.append)
    for _ in range(OVERRUNS):
        chain.process(FRAME)
    assert [failure.plugin for failure in failures] == ["busy"]
    assert "too slow" in failures[0].reason


def test_a_transform_that_has_to_wait_for_the_processor_is_not_to_blame() -> None:
    failures: list[TransformFailed] = []

    class Waits:
        def process(self, frame: Frame) -> Frame:
            time.sleep(0.01)
            return frame

    chain = Chain([("waits", Waits())], 8, failures.append)
    for _ in range(2 * OVERRUNS):
        chain.process(FRAME)
    assert failures == []


def test_an_observer_is_no_part_of_the_budget_and_changes_nothing() -> None:
    failures: list[TransformFailed] = []
    heard = []

    class Listens(Computes):
        observes = True

        def process(self, frame: Frame) -> Frame:
            heard.append(super().process(frame)[0])
            frame[:] = 9
            return frame

    half = type("Half", (), {"process": lambda self, frame: frame / 2})()
    chain = Chain([("listens", Listens()), ("half", half)], 8, failures.append)
    for _ in range(2 * OVERRUNS):
        assert np.array_equal(chain.process(FRAME), FRAME / 2)
    assert failures == []
    assert heard == [0.25] * 2 * OVERRUNS
    assert [name for name, _ in chain.times] == ["listens", "half"]


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, StopIteration])
def test_an_observer_that_raises_is_left_out(error: type[BaseException]) -> None:
    failures: list[TransformFailed] = []
    raises = type("Raises", (Returns,), {"observes": True})(error("disk"))
    chain = Chain([("raises", raises)], 8, failures.append)
    assert np.array_equal(chain.process(FRAME), FRAME)
    assert [failure.reason for failure in failures] == [f"{error.__name__}: disk"]
    assert chain.plugins == ()


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
