"""Calls with an engine, as fast as it steps: a caller says something in each frame, and what the agent does is kept."""

import math
import time
from collections.abc import AsyncIterator, Generator, Iterable
from dataclasses import dataclass

import numpy as np

from core.engine.call import FRAME_S, FRAME_SAMPLES, SAMPLE_RATE, Engine, Frame, OutputFrame
from core.engine.prompt import Prompt
from core.engine.sampling import Sampling
from core.engine.scheduler import SlotEngine
from core.engine.slot_call import SlotCall
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


@dataclass(frozen=True)
class Echo:
    """A caller's microphone hears the agent too: `delay_s` after the frame was computed, at `gain_db` of its level."""

    delay_s: float
    gain_db: float

    def __post_init__(self) -> None:
        if self.delay_s < FRAME_S:
            raise ValueError(f"An echo comes a frame later at the earliest, after {FRAME_S} s.")


class Conversation:
    """A caller talking with an agent, frame by frame: the caller's next `frame`, until it has `ended`."""

    def __init__(self, caller: CallerFrames, echo: Echo | None = None) -> None:
        self._caller = caller
        self._echo = echo
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
            frame = self._caller.send(bool(np.sqrt((self._spoken[-1] ** 2).mean()) > LOUD))
            self.frame = frame if self._echo is None else frame + self._echoed(self._echo)
        except StopIteration:
            self.ended = True

    def _echoed(self, echo: Echo) -> Frame:
        """What comes back of the agent's sound in the next frame."""
        delay = round(echo.delay_s * SAMPLE_RATE)
        recent = self._spoken[-math.ceil(delay / FRAME_SAMPLES) :]
        sound = np.concatenate([np.zeros(delay, np.float32), *recent])[-delay:][:FRAME_SAMPLES]
        return np.asarray(sound * 10 ** (echo.gain_db / 20), dtype=np.float32)

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


@dataclass(frozen=True, eq=False)
class PlannedCall:
    """A call that is to be held."""

    prompt: Prompt
    caller: CallerFrames
    sampling: Sampling
    echo: Echo | None = None


async def hold_together(
    engine: SlotEngine, calls: Iterable[PlannedCall], at_once: int
) -> AsyncIterator[tuple[int, Recording]]:
    """Hold calls in step, so many at once, and give each with its place among them when it ends.

    A frame of each is answered before the next of any, so that the engine computes all of them in one step; where one
    ends, the next begins. Raises what the engine raises.
    """
    waiting = enumerate(calls)
    held: list[tuple[int, SlotCall, AsyncIterator[OutputFrame], Conversation]] = []
    try:
        while True:
            opened = time.monotonic()
            while len(held) < at_once and (following := next(waiting, None)) is not None:
                number, planned = following
                call = engine.open(planned.prompt, planned.sampling)
                held.append((number, call, call.frames(), Conversation(planned.caller, planned.echo)))
                await call.ready()
            if not held:
                return
            ready_s = time.monotonic() - opened
            with engine.inputs_changed():  # So that the engine sees all frames at once, and steps once.
                for _, call, _, conversation in held:
                    call.push(conversation.frame)
            for _, _, answers, conversation in held:
                conversation.answer(await anext(answers))
            for number, call, _, conversation in [each for each in held if each[3].ended]:
                await call.close()
                yield number, conversation.recording(ready_s)
            held = [each for each in held if not each[3].ended]
    finally:
        for _, call, _, _ in held:
            await call.close()
