"""Calls for evaluation with what training's own scripts say: a caller who says its lines and is silent at last."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from core.engine.call import FRAME_SAMPLES, Engine, Frame
from core.engine.prompt import Prompt
from core.engine.sampling import Sampling
from core.evaluation.callers import Line
from core.evaluation.calls import CallerFrames, Recording, hold_call
from core.evaluation.script import Caller
from core.evaluation.speech import Samples
from training.episodes import Episode

SILENCE_S = 4.0
"""The silent stretch at the end."""
NOISY = 0.35
"""The share of callers with noise."""


@dataclass(frozen=True)
class CallerTurn:
    """When a line was said, in frames."""

    line: Line
    begin: int
    end: int


@dataclass(frozen=True)
class CallRecord:
    """A call: both sides' sound, float32[frames * 1920], the agent's text by frame, and the caller's turns.

    From frame `silent_from` on the caller is silent.
    """

    episode: Episode
    voice: str
    agent: Samples
    caller: Samples
    text: tuple[str, ...]
    turns: tuple[CallerTurn, ...]
    silent_from: int

    def parts(self) -> list[tuple[int, int]]:
        """Frames (begin, end) of the greeting and of what follows each begin of the caller's turns."""
        begins = [0, *(turn.begin for turn in self.turns)]
        return list(zip(begins, [*begins[1:], len(self.text)], strict=True))

    def said(self, part: tuple[int, int]) -> str:
        """The agent's text in some frames."""
        return "".join(self.text[part[0] : part[1]])


class ScriptedCaller(Caller):
    """Says its lines one after the other, each when the agent has finished."""

    def __init__(self, lines: Iterable[Line], rng: random.Random) -> None:
        """Each line is asked for when it is to be said."""
        super().__init__()
        self._lines = lines
        self._noise = np.random.default_rng(rng.randrange(2**32))
        self._level = 10 ** (rng.uniform(-60, -38) / 20) if rng.random() < NOISY else 0.0
        self.turns: list[CallerTurn] = []
        self.silent_from = 0

    def frames(self) -> CallerFrames:
        """The caller's frames; each wants to be sent whether the agent spoke meanwhile."""
        yield from self.listen()
        for line in self._lines:
            begin = self.count
            yield from self.play(line.pcm)
            self.turns.append(CallerTurn(line, begin, self.count))
            yield from self.listen()
        self.silent_from = self.count
        yield from self.wait(SILENCE_S)

    def sound(self, frame: Frame | None = None) -> Frame:
        """The caller's next frame, with its noise."""
        noise = self._level * self._noise.standard_normal(FRAME_SAMPLES)
        return np.asarray(super().sound(frame) + noise, dtype=np.float32)


async def record_call(
    engine: Engine, episode: Episode, voice: str, caller: ScriptedCaller, sampling: Sampling
) -> CallRecord:
    """Have the caller talk with an agent from the beginning to the end."""
    prompt = Prompt(episode.prompt, engine.voice(voice))
    return record_of(episode, voice, caller, await hold_call(engine, prompt, caller.frames(), sampling))


def record_of(episode: Episode, voice: str, caller: ScriptedCaller, held: Recording) -> CallRecord:
    """The record of a call that has been held."""
    return CallRecord(episode, voice, held.agent, held.caller, held.text, tuple(caller.turns), caller.silent_from)
