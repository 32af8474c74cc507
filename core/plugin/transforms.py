"""The chain of audio transforms for one direction of one session, run on every frame."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from core.engine.call import FRAME_SAMPLES, Frame
from core.events import SessionInfo, TransformFailed
from core.plugin.foreign_code import foreign_code
from core.plugin.hook_calls import HookCaller, describe_error
from core.plugin.hookspecs import Transform
from core.plugin.worker_threads import HangingError

Times = tuple[tuple[str, float], ...]
"""Names of plugins, each with the milliseconds of CPU time that its transform took for one frame."""
OVERRUNS = 5
"""A transform that makes the chain overrun its budget in this many of the last WINDOW frames is left out."""
WINDOW = 50
"""Frames, 4 s: so long that one pause of the machine's does not count against a transform."""


class _Stage:
    """One plugin's transform in the chain, and its timing."""

    def __init__(self, plugin: str, transform: Transform) -> None:
        self.plugin = plugin
        self.transform = transform
        self.observes = bool(getattr(transform, "observes", False))
        """Whether it only listens: it changes nothing, and its time is no part of the budget."""
        self.seconds = 0.0
        """What the last frame took."""
        self.overruns: deque[bool] = deque(maxlen=WINDOW)
        """For each of the last frames, whether the chain overran its budget with this transform as the slowest."""


class Chain:
    """Runs each frame through the transforms in order. A transform that fails is left out from then on.

    A transform fails when it raises, when it returns anything but finite float32[1920], or when in 5 of 50 frames the
    chain took longer than its budget and this transform was the slowest. `on_failure` is called once for each. Time is
    the CPU time of the thread: on a busy machine a transform waits for others, which is not its doing.

    A transform whose attribute `observes` is true, such as a recording's, gets each frame and gives nothing back. It is
    no part of the budget, and left out only when it raises.
    """

    def __init__(
        self,
        transforms: Sequence[tuple[str, Transform]],
        budget_ms: float,
        on_failure: Callable[[TransformFailed], None],
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._stages = [_Stage(plugin, transform) for plugin, transform in transforms]
        self._budget = budget_ms / 1000
        self._on_failure = on_failure
        self._clock = clock
        self.running = ""
        """The plugin whose transform is processing a frame now, or ""."""
        self.times: Times = ()
        """The CPU time that each transform took for the last frame, those that failed in it included."""

    @property
    def plugins(self) -> tuple[str, ...]:
        """Names of the plugins whose transforms are still in the chain, in order."""
        return tuple(stage.plugin for stage in self._stages)

    def process(self, frame: Frame) -> Frame:
        """Transform one frame, float32[1920]. Never raises what a plugin raises. Not thread-safe."""
        stages = tuple(self._stages)
        for stage in stages:
            began = self._clock()
            self.running = stage.plugin
            try:
                with foreign_code():  # the copy: a failure half-way leaves the frame whole
                    transformed = stage.transform.process(frame.copy())
                problem = "" if stage.observes else _problem_with(transformed)
            except Exception as error:  # whatever a plugin raises ends only its transform
                problem = describe_error(error) or type(error).__name__
            stage.seconds = self._clock() - began
            if problem:
                self._leave_out(stage, problem)
            elif not stage.observes:
                frame = transformed
        self.running = ""
        self.times = tuple((stage.plugin, stage.seconds * 1000) for stage in stages)
        self._check_budget()
        return frame

    def _check_budget(self) -> None:
        """Note whether the last frame overran the budget, and leave out a transform that caused too many overruns."""
        stages = [stage for stage in self._stages if not stage.observes]
        if not stages:
            return
        overrun = sum(stage.seconds for stage in stages) > self._budget
        slowest = max(stages, key=lambda stage: stage.seconds)
        for stage in stages:
            stage.overruns.append(overrun and stage is slowest)
        if sum(slowest.overruns) >= OVERRUNS:
            self._leave_out(slowest, f"too slow: over {self._budget * 1000:g} ms in {OVERRUNS} of {WINDOW} frames")

    def _leave_out(self, stage: _Stage, reason: str) -> None:
        self._stages.remove(stage)
        self._on_failure(TransformFailed(stage.plugin, reason))


def open_chain(
    hooks: HookCaller,
    hook_name: str,
    session: SessionInfo,
    budget_ms: float,
    on_failure: Callable[[TransformFailed], None],
) -> Chain:
    """New transforms of all plugins that have one for this session, by `transform_input` or `transform_output`."""
    transforms: list[tuple[str, Transform]] = []
    for hook in hooks.implementations(hook_name):
        try:
            if hooks.threads.hanging(hook.plugin_name, "process"):
                raise HangingError("is left out, since it has not returned in another call")
            transform = hooks.call_on_loop(hook, session=session)
            if transform is None:
                continue
            if not callable(getattr(transform, "process", None)):
                raise TypeError(f"{type(transform).__name__} has no method process(frame)")
        except Exception as error:
            hooks.log_failure(hook, error)
            on_failure(TransformFailed(hook.plugin_name, describe_error(error)))
        else:
            transforms.append((hook.plugin_name, transform))
    return Chain(transforms, budget_ms, on_failure)


def _problem_with(frame: Any) -> str:
    """Why a transform's result is not a frame, or "" when it is one."""
    if not isinstance(frame, np.ndarray):
        return f"returned {type(frame).__name__}, not a float32[{FRAME_SAMPLES}] array"
    if frame.dtype != np.float32 or frame.shape != (FRAME_SAMPLES,):
        return f"returned {frame.dtype}{list(frame.shape)}, not float32[{FRAME_SAMPLES}]"
    if not np.isfinite(frame).all():
        return "returned samples that are not finite"
    return ""
