"""The audio transforms of one side of one session, called frame by frame."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from core.engine.call import FRAME_SAMPLES, Frame
from core.events import TransformFailed
from core.plugin.hookspecs import Transform

Times = tuple[tuple[str, float], ...]
"""Plugins, each with the milliseconds of the processor that its transform took for a frame."""
OVERRUNS = 5
WINDOW = 50
"""A transform that makes the chain overrun its budget in 5 of 50 frames (4 s) is not unlucky but too slow."""


class _Step:
    """One plugin's transform and in which of the last frames it was too slow."""

    def __init__(self, plugin: str, transform: Transform) -> None:
        self.plugin = plugin
        self.transform = transform
        self.observes = bool(getattr(transform, "observes", False))
        """Whether it only listens: it changes nothing and counts for no budget."""
        self.slow: deque[bool] = deque(maxlen=WINDOW)
        self.seconds = 0.0


class Chain:
    """Runs a frame through the transforms in order. One that fails is left out from then on.

    A transform fails when it raises, returns anything but finite float32[1920], or is the slowest in 5 of 50
    frames, and those took the chain longer than its budget. `on_failure` is told each time. Time is what the thread
    itself computed: on a busy machine a transform waits for others, which is not its doing.

    A transform whose attribute `observes` is true, such as a recording's, gets each frame and gives nothing back. It is
    no part of the budget, and only left out when it raises.
    """

    def __init__(
        self,
        transforms: Sequence[tuple[str, Transform]],
        budget_ms: float,
        on_failure: Callable[[TransformFailed], None],
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._steps = [_Step(plugin, transform) for plugin, transform in transforms]
        self._budget = budget_ms / 1000
        self._on_failure = on_failure
        self._clock = clock
        self.times: Times = ()
        """What the last frame took of the processor, failed transforms included."""

    @property
    def plugins(self) -> tuple[str, ...]:
        """Names of the plugins whose transforms are still in the chain, in order."""
        return tuple(step.plugin for step in self._steps)

    def process(self, frame: Frame) -> Frame:
        """Take and return float32[1920]. Never raises for what a plugin does; never in two threads at once."""
        steps = tuple(self._steps)
        for step in steps:
            began = self._clock()
            try:
                changed = step.transform.process(frame.copy())  # a copy: one that fails half-way leaves no trace
                problem = "" if step.observes else _wrong(changed)
            except (Exception, SystemExit) as error:  # whatever a plugin raises ends only its transform
                problem = f"{type(error).__name__}: {error}"
            step.seconds = self._clock() - began
            if problem:
                self._leave_out(step, problem)
            elif not step.observes:
                frame = changed
        self.times = tuple((step.plugin, step.seconds * 1000) for step in steps)
        self._watch_budget()
        return frame

    def _watch_budget(self) -> None:
        steps = [step for step in self._steps if not step.observes]
        if not steps:
            return
        over = sum(step.seconds for step in steps) > self._budget
        slowest = max(steps, key=lambda step: step.seconds)
        for step in steps:
            step.slow.append(over and step is slowest)
        if sum(slowest.slow) >= OVERRUNS:
            self._leave_out(slowest, f"too slow: over {self._budget * 1000:g} ms in {OVERRUNS} of {WINDOW} frames")

    def _leave_out(self, step: _Step, reason: str) -> None:
        self._steps.remove(step)
        self._on_failure(TransformFailed(step.plugin, reason))


def _wrong(frame: Any) -> str:
    """What keeps `frame` from being one, or ""."""
    if not isinstance(frame, np.ndarray):
        return f"returned {type(frame).__name__}, not a float32[{FRAME_SAMPLES}] array"
    if frame.dtype != np.float32 or frame.shape != (FRAME_SAMPLES,):
        return f"returned {frame.dtype}{list(frame.shape)}, not float32[{FRAME_SAMPLES}]"
    if not np.isfinite(frame).all():
        return "returned samples that are not finite"
    return ""
