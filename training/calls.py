"""Calls for evaluation: a scripted caller talks with the engine, waits for its answers, and at last is silent."""

import random
from collections.abc import Generator, Iterable
from dataclasses import dataclass

import numpy as np

from core.engine.call import FRAME_S, FRAME_SAMPLES, Engine, Frame, OutputFrame, frames_of
from core.engine.prompt import Prompt
from core.engine.sampling import Sampling
from training.episodes import Episode
from training.measures import LOUD
from training.teachers import Samples

QUIET_S = 0.8
"""After so long a silence the agent has finished, and the caller speaks."""
BEGINS_S = 4.0
"""How long the caller waits for the agent to begin."""
LONGEST_S = 12.0
"""How long the caller listens at most, to an agent who does not end."""
SILENCE_S = 4.0
"""The silent stretch at the end."""
NOISY = 0.35
"""The share of callers with noise."""


@dataclass(frozen=True)
class CallerLine:
    """Something the caller says: an exchange's `kind`, or `recording`."""

    kind: str
    text: str
    pcm: Samples


@dataclass(frozen=True)
class CallerTurn:
    """When a line was said, in frames."""

    line: CallerLine
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


class ScriptedCaller:
    """Says its lines one after the other, each when the agent has finished."""

    def __init__(self, lines: Iterable[CallerLine], rng: random.Random) -> None:
        """Each line is asked for when it is to be said."""
        self._lines = lines
        self._noise = np.random.default_rng(rng.randrange(2**32))
        self._level = 10 ** (rng.uniform(-60, -38) / 20) if rng.random() < NOISY else 0.0
        self.count = 0
        """Frames so far."""
        self.turns: list[CallerTurn] = []
        self.silent_from = 0

    def frames(self) -> Generator[Frame, bool, None]:
        """The caller's frames; each wants to be sent whether the agent spoke meanwhile."""
        yield from self._listen()
        for line in self._lines:
            begin = self.count
            for frame in frames_of(line.pcm):
                yield self._sound(frame)
            self.turns.append(CallerTurn(line, begin, self.count))
            yield from self._listen()
        self.silent_from = self.count
        for _ in range(round(SILENCE_S / FRAME_S)):
            yield self._sound()

    def _listen(self) -> Generator[Frame, bool, None]:
        """Silence until the agent has spoken and is quiet, or does not begin, or does not end."""
        begun, quiet = False, 0.0
        for frame in range(round(LONGEST_S / FRAME_S)):
            speaks = yield self._sound()
            begun |= speaks
            quiet = 0.0 if speaks else quiet + FRAME_S
            if quiet >= QUIET_S and (begun or frame * FRAME_S >= BEGINS_S):
                return

    def _sound(self, frame: Frame | None = None) -> Frame:
        self.count += 1
        noise = self._level * self._noise.standard_normal(FRAME_SAMPLES)
        return (noise if frame is None else frame + noise).astype(np.float32)


class Conversation:
    """A caller talking with an agent: the caller's next `frame`, until it has `ended`, and all that was heard."""

    def __init__(self, episode: Episode, voice: str, caller: ScriptedCaller) -> None:
        self.episode, self.voice = episode, voice
        self._caller, self._frames = caller, caller.frames()
        self._heard: list[Frame] = []
        self._spoken: list[Frame] = []
        self._text: list[str] = []
        self.frame: Frame = next(self._frames)
        self.ended = False

    def answer(self, output: OutputFrame) -> None:
        """Take the agent's answer to `frame`, and go on to the next one."""
        self._heard.append(self.frame)
        self._spoken.append(output.pcm)
        self._text.append(output.text)
        try:
            self.frame = self._frames.send(bool(np.sqrt((output.pcm**2).mean()) > LOUD))
        except StopIteration:
            self.ended = True

    def record(self) -> CallRecord:
        """The whole of it."""
        return CallRecord(
            self.episode,
            self.voice,
            np.concatenate(self._spoken),
            np.concatenate(self._heard),
            tuple(self._text),
            tuple(self._caller.turns),
            self._caller.silent_from,
        )


async def hold_call(
    engine: Engine, episode: Episode, voice: str, caller: ScriptedCaller, sampling: Sampling
) -> CallRecord:
    """Have the caller talk with an agent from the begin to the end."""
    conversation = Conversation(episode, voice, caller)
    call = engine.open(Prompt(episode.prompt, engine.voice(voice)), sampling)
    try:
        await call.ready()
        answers = call.frames()
        while not conversation.ended:
            call.push(conversation.frame)
            conversation.answer(await anext(answers))
    finally:
        await call.close()
    return conversation.record()
