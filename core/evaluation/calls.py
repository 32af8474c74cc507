"""Calls with an engine, as fast as it steps: a caller says something in each frame, and what the agent does is kept."""

import time
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from core.engine.call import Engine, Frame
from core.engine.prompt import Prompt
from core.engine.sampling import Sampling
from core.evaluation.speech import LOUD, Samples

CallerFrames = Generator[Frame, bool, None]
"""The caller's frames, float32[1920]; each but the first is asked for with whether the agent spoke meanwhile."""


@dataclass(frozen=True)
class Recording:
    """A call: both sides' sound, float32[frames * 1920] each, the agent's text by frame, and how long things took."""

    agent: Samples
    caller: Samples
    text: tuple[str, ...]
    step_ms: tuple[float, ...]
    """The time of each frame's step."""
    ready_s: float
    """From opening the call until the prompt was in its slot."""
    broken: int
    """Frames with samples that are no numbers; they are silence in `agent`."""

    def said(self, begin: int, end: int) -> str:
        """The agent's text in frames `begin` to `end`."""
        return "".join(self.text[begin:end])


async def hold_call(engine: Engine, prompt: Prompt, caller: CallerFrames, sampling: Sampling) -> Recording:
    """Have a caller talk with an agent from the beginning to the end. Raises what the engine raises."""
    opened = time.monotonic()
    call = engine.open(prompt, sampling)
    heard: list[Frame] = []
    spoken: list[Frame] = []
    text: list[str] = []
    steps: list[float] = []
    broken = 0
    try:
        await call.ready()
        ready_s = time.monotonic() - opened
        answers = call.frames()
        frame = next(caller, None)
        while frame is not None:
            call.push(frame)
            output = await anext(answers)
            whole = bool(np.isfinite(output.pcm).all())
            broken += not whole
            heard.append(frame)
            spoken.append(output.pcm if whole else np.zeros_like(output.pcm))
            text.append(output.text)
            steps.append(output.step_ms)
            try:
                frame = caller.send(bool(np.sqrt((spoken[-1] ** 2).mean()) > LOUD))
            except StopIteration:
                frame = None
    finally:
        await call.close()
    return Recording(np.concatenate(spoken), np.concatenate(heard), tuple(text), tuple(steps), ready_s, broken)
