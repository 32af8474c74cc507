"""Calls with an engine, as fast as it steps: a caller says something in each frame, and what the agent does is kept."""

import time
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from core.engine.call import Engine, Frame, OutputFrame
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


class Conversation:
    """A caller talking with an agent, frame by frame: the caller's next `frame`, until it has `ended`."""

    def __init__(self, caller: CallerFrames) -> None:
        self._caller = caller
        self._heard: list[Frame] = []
        self._spoken: list[Frame] = []
        self._text: list[str] = []
        self._steps: list[float] = []
        self._broken = 0
        self.frame: Frame = next(caller)
        self.ended = False

    def answer(self, output: OutputFrame) -> None:
        """Take the agent's answer to `frame`, and go on to the next one."""
        whole = bool(np.isfinite(output.pcm).all())
        self._broken += not whole
        self._heard.append(self.frame)
        self._spoken.append(output.pcm if whole else np.zeros_like(output.pcm))
        self._text.append(output.text)
        self._steps.append(output.step_ms)
        try:
            self.frame = self._caller.send(bool(np.sqrt((self._spoken[-1] ** 2).mean()) > LOUD))
        except StopIteration:
            self.ended = True

    def recording(self, ready_s: float) -> Recording:
        """All of it."""
        spoken, heard = np.concatenate(self._spoken), np.concatenate(self._heard)
        return Recording(spoken, heard, tuple(self._text), tuple(self._steps), ready_s, self._broken)


async def hold_call(engine: Engine, prompt: Prompt, caller: CallerFrames, sampling: Sampling) -> Recording:
    """Have a caller talk with an agent from the beginning to the end. Raises what the engine raises."""
    opened = time.monotonic()
    call = engine.open(prompt, sampling)
    try:
        await call.ready()
        ready_s = time.monotonic() - opened
        answers, conversation = call.frames(), Conversation(caller)
        while not conversation.ended:
            call.push(conversation.frame)
            conversation.answer(await anext(answers))
    finally:
        await call.close()
    return conversation.recording(ready_s)
