"""What a caller does in a call: ask, pause, interrupt, talk on, ask again after minutes, and be silent."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.engine.call import FRAME_S, FRAME_SAMPLES, Frame, frames_of
from core.evaluation.callers import Callers, Line
from core.evaluation.calls import CallerFrames
from core.evaluation.personas import COMPANY, LONG, NAME, PAUSED, PRICE, SMALL_TALK, Subject
from core.evaluation.speech import Samples

QUIET_S = 0.8
"""After so long a silence the agent has finished, and the caller speaks."""
BEGINS_S = 4.0
"""How long the caller waits for the agent to begin."""
LONGEST_S = 12.0
"""How long the caller listens at most, to an agent who does not end."""
PAUSE_S = 1.5
"""A pause inside a turn."""
INTERRUPTS_S = 1.0
"""How far into an answer the caller interrupts it."""
SILENCE_S = 6.0
"""The silent stretch at the end."""
MARKS_MIN = (0.5, 1.0, 3.0, 5.0, 10.0, 15.0)
"""After so many minutes the caller asks for the same facts again."""

TurnKind = Literal["name", "company", "price", "small talk", "pause", "interruption", "recording"]


@dataclass(frozen=True)
class Turn:
    """Something the caller did, as frames (begin, end) of the call."""

    kind: TurnKind
    wanted: str
    """What a right answer mentions; "" where there is none."""
    begin: int
    end: int
    after_min: float | None = None
    """The mark at which it asked for a fact."""
    spoke: bool = False
    """Of an interruption: whether there was an answer to interrupt."""


class Caller:
    """Plays sound, waits and listens, frame by frame: what every caller of an evaluation can do."""

    def __init__(self) -> None:
        self.count = 0
        """Frames so far."""

    def play(self, pcm: Samples) -> CallerFrames:
        """Say something, float32[n]."""
        for frame in frames_of(pcm):
            yield self.sound(frame)

    def wait(self, seconds: float) -> CallerFrames:
        """Be silent."""
        for _ in range(round(seconds / FRAME_S)):
            yield self.sound()

    def listen(self) -> CallerFrames:
        """Be silent until the agent has spoken and is quiet, or does not begin, or does not end."""
        begun, quiet = False, 0.0
        for frame in range(round(LONGEST_S / FRAME_S)):
            speaks = yield self.sound()
            begun |= speaks
            quiet = 0.0 if speaks else quiet + FRAME_S
            if quiet >= QUIET_S and (begun or frame * FRAME_S >= BEGINS_S):
                return

    def sound(self, frame: Frame | None = None) -> Frame:
        """The caller's next frame; None is silence."""
        self.count += 1
        return np.zeros(FRAME_SAMPLES, np.float32) if frame is None else frame


class ScriptedCaller(Caller):
    """One caller; when `frames` has ended, `turns` and `silent_from` say what happened when."""

    def __init__(
        self, subject: Subject, callers: Callers | None, recordings: Sequence[Line], number: int, minutes: float
    ) -> None:
        """`callers` speaks lines; None where there are only `recordings`, which are played one after another."""
        super().__init__()
        self._subject = subject
        self._callers = callers
        self._recordings = recordings
        self._number = number
        self._minutes = minutes
        self._rng = random.Random(f"script {number}")
        self.turns: list[Turn] = []
        self.silent_from = 0

    def frames(self) -> CallerFrames:
        """The caller's frames; each wants to be sent whether the agent spoke meanwhile."""
        yield from self.listen()
        if self._callers is not None:
            yield from self._facts(self._callers, 0.0)
            yield from self._pause(self._callers)
            yield from self._interrupt(self._callers)
        for line in self._recordings:
            yield from self._turn(line.pcm, "recording", "")
        if self._callers is not None:
            yield from self._until_the_end(self._callers)
        self.silent_from = self.count
        yield from self.wait(SILENCE_S)

    @property
    def _now_min(self) -> float:
        return self.count * FRAME_S / 60

    def _until_the_end(self, callers: Callers) -> CallerFrames:
        """Small talk, and at each mark the facts once more."""
        marks: Iterator[float] = iter([mark for mark in MARKS_MIN if mark <= self._minutes])
        mark = next(marks, None)
        while mark is not None or self._now_min < self._minutes:
            if mark is not None and self._now_min >= mark:
                yield from self._facts(callers, mark)
                mark = next(marks, None)
            else:
                yield from self._turn(
                    callers.say("small talk", self._choose(SMALL_TALK), self._number).pcm, "small talk", ""
                )

    def _facts(self, callers: Callers, mark: float) -> CallerFrames:
        thing, price = self._rng.choice(self._subject.prices)
        wanted: list[tuple[TurnKind, Sequence[str], str]] = [
            ("name", NAME, self._subject.name),
            ("company", COMPANY, self._subject.company),
            ("price", PRICE, price),
        ]
        for kind, wordings, answer in wanted:
            text = self._choose(wordings).format(thing=thing)
            yield from self._turn(callers.say(kind, text, self._number).pcm, kind, answer, mark)

    def _choose(self, wordings: Sequence[str]) -> str:
        return self._rng.choice(list(wordings))

    def _turn(self, pcm: Samples, kind: TurnKind, wanted: str, mark: float | None = None) -> CallerFrames:
        """Say something, and listen."""
        begin = self.count
        yield from self.play(pcm)
        self.turns.append(Turn(kind, wanted, begin, self.count, mark))
        yield from self.listen()

    def _pause(self, callers: Callers) -> CallerFrames:
        """A turn with a pause inside: the turn is the pause."""
        thing, _ = self._rng.choice(self._subject.prices)
        before, after = self._rng.choice(PAUSED)
        yield from self.play(callers.say("pause", before, self._number).pcm)
        begin = self.count
        yield from self.wait(PAUSE_S)
        self.turns.append(Turn("pause", "", begin, self.count))
        yield from self.play(callers.say("pause", after.format(thing=thing), self._number).pcm)
        yield from self.listen()

    def _interrupt(self, callers: Callers) -> CallerFrames:
        """Ask for much, and ask something else when the agent has begun."""
        yield from self.play(callers.say("long", LONG, self._number).pcm)
        spoken = 0.0
        for _ in range(round((BEGINS_S + INTERRUPTS_S) / FRAME_S)):
            spoken += FRAME_S * (yield self.sound())
            if spoken >= INTERRUPTS_S:
                break
        begin = self.count
        yield from self.play(callers.say("name", self._choose(NAME), self._number).pcm)
        self.turns.append(Turn("interruption", self._subject.name, begin, self.count, spoke=spoken >= INTERRUPTS_S))
        yield from self.listen()
