"""The calls that strangers make: what each caller does, kind by kind."""

import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from core.engine.call import FRAME_S, FRAME_SAMPLES, SAMPLE_RATE, Frame
from core.evaluation.callers import Line
from core.evaluation.calls import CallerFrames, Echo
from core.evaluation.script import BEGINS_S, Caller
from core.evaluation.speech import Samples
from training.judging.backgrounds import background
from training.judging.strangers import WORDINGS, Author, FactKind, Stranger, lines, strangers
from training.judging.voices import StrangerVoices

SceneKind = Literal[
    "memory",
    "facts",
    "unpleasant",
    "unknown",
    "arithmetic",
    "monologue",
    "backchannel",
    "echo",
    "music",
    "typing",
    "office",
    "silence",
    "recording",
]
TurnKind = Literal[
    FactKind, "talk", "goodbye", "unpleasant", "unknown", "arithmetic", "monologue", "backchannel", "recording"
]
QUIET_KINDS: tuple[SceneKind, ...] = ("echo", "music", "typing", "office", "silence")
"""In which the caller never speaks."""
QUIET_S = 20.0
"""How long the agent is to be silent in these, after its greeting."""
SETTLED_S = 0.8
"""So much more silence, after the 0.8 s that callers wait, ends a greeting."""
MARKS_MIN = (0.5, 3.0, 6.0)
"""When a caller who talks about other things asks for the name."""
ECHO_DB = -10.0
ECHO_DELAYS_S = (FRAME_S, 0.3)
GROUP = 5
"""Lines to a call, of those that go with any persona."""
PAUSES_S = (0.2, 0.5)
"""Inside a monologue."""
SPOKEN_S = 1.0
"""How far into what the agent says the caller says `mhm`."""
NOISY, NOISE_DB = 0.35, (-60.0, -45.0)
"""The share of callers with noise, and its level."""


@dataclass(frozen=True)
class Scale:
    """How many calls of each kind: a full run, or with `quick` one that takes about three minutes on two cores."""

    personas: int = 24
    quick: bool = False
    author: Author = "first"
    """Whose personas they are."""

    def everybody(self) -> tuple[Stranger, ...]:
        """All personas of that author, of whom `personas` are called."""
        return strangers(self.author)

    def wordings(self) -> range:
        """Which of each fact's wordings are asked, each in a call of its own."""
        return range(1 if self.quick else WORDINGS)

    def calls(self, kind: SceneKind) -> int:
        """The number of calls of other kinds."""
        full = {"memory": 12, "unpleasant": 12, "unknown": 4, "arithmetic": 2, "monologue": 6, "backchannel": 10}
        few = {"memory": 2, "unpleasant": 4, "unknown": 1, "arithmetic": 1, "monologue": 2, "backchannel": 3}
        return few.get(kind, 6) if self.quick else full.get(kind, 20)

    @property
    def marks(self) -> tuple[float, ...]:
        """When the name is asked for."""
        return MARKS_MIN[:2] if self.quick else MARKS_MIN


@dataclass(frozen=True)
class Turn:
    """Something that a caller said, as frames (begin, end) of the call; `fact` is the number of the fact asked for.

    `spoke` says of a backchannel whether the agent was speaking.
    """

    kind: TurnKind
    text: str
    begin: int
    end: int
    fact: int | None = None
    minute: float | None = None
    spoke: bool = True


@dataclass(frozen=True)
class Scene:
    """A call that is to be held: number `number` of its kind. The caller has voice `caller`."""

    kind: SceneKind
    number: int
    stranger: Stranger
    caller: int

    @property
    def seed(self) -> int:
        """Of the agent, always the same."""
        return zlib.crc32(f"{self.kind} {self.number} {self.stranger.name}".encode())

    @property
    def echo(self) -> Echo | None:
        """What the caller's microphone hears of the agent."""
        if self.kind != "echo":
            return None
        return Echo(random.Random(f"echo {self.number}").uniform(*ECHO_DELAYS_S), ECHO_DB)

    @property
    def wording(self) -> int:
        """Of a call for facts, which of their wordings are asked."""
        return self.number % WORDINGS


def scenes(scale: Scale, kinds: Sequence[SceneKind], recorded: bool) -> Iterator[Scene]:
    """All calls of these kinds, the longest first. `recorded` says whether there is a recording to be played."""
    everybody = chosen(scale.everybody(), scale.personas)
    service = [each for each in everybody if each.style == "service"] or everybody
    for kind in kinds:
        if kind == "facts":
            for place, each in enumerate(everybody):
                for wording in scale.wordings():
                    number = scale.everybody().index(each) * WORDINGS + wording
                    yield Scene(kind, number, each, place + wording)
        elif kind != "recording" or recorded:
            count = 4 if kind == "recording" else scale.calls(kind)
            among = service if kind == "memory" else everybody
            for number in range(min(count, len(service)) if kind == "memory" else count):
                yield Scene(kind, number, among[number % len(among)], number)


def chosen(everybody: Sequence[Stranger], count: int) -> list[Stranger]:
    """So many of them, in each group of five three with service roles and two in free styles while there are any."""
    service = iter([each for each in everybody if each.style == "service"])
    free = iter([each for each in everybody if each.style == "free"])
    order = [next(service if place % 5 < 3 else free, None) for place in range(2 * len(everybody))]
    return [each for each in order if each is not None][:count]


@dataclass(eq=False)
class StrangerCaller(Caller):
    """Does what its scene says; when `frames` has ended, `turns` and `quiet_from` say what happened when."""

    scene: Scene
    scale: Scale
    voices: StrangerVoices
    recorded: Sequence[Line] = ()
    turns: list[Turn] = field(default_factory=list)
    quiet_from: int = 0
    """The frame at which the greeting of an agent has ended, in calls in which the caller never speaks."""

    def __post_init__(self) -> None:
        super().__init__()
        scene = self.scene
        self._rng = random.Random(f"stranger {scene.kind} {scene.number} {scene.stranger.name}")
        self._noise = np.random.default_rng(scene.seed)
        quiet = scene.kind in QUIET_KINDS
        level_db = self._rng.uniform(*NOISE_DB)
        self._level = 10 ** (level_db / 20) if not quiet and self._rng.random() < NOISY else 0.0
        noises = scene.kind in ("music", "typing", "office")
        self._background = background(scene.kind, scene.seed, self.voices.say) if noises else None

    def frames(self) -> CallerFrames:
        """The caller's frames; each but the first is asked for with whether the agent spoke meanwhile."""
        match self.scene.kind:
            case "facts":
                yield from self.listen()
                yield from self._facts()
            case "memory":
                yield from self.listen()
                yield from self._memory()
            case "unpleasant" | "unknown" | "arithmetic" as kind:
                yield from self.listen()
                yield from self._group(kind)
            case "monologue":
                yield from self.listen()
                yield from self._monologue()
            case "backchannel":
                yield from self._backchannels()
            case "recording":
                yield from self.listen()
                for line in self.recorded:
                    yield from self._say("recording", "", line.pcm)
            case _:
                yield from self._be_silent()

    def sound(self, frame: Frame | None = None) -> Frame:
        """The next frame, with noise and background."""
        at = self.count * FRAME_SAMPLES
        pcm = super().sound(frame) + self._level * self._noise.standard_normal(FRAME_SAMPLES)
        if self._background is not None:
            pcm = pcm + np.take(self._background, np.arange(at, at + FRAME_SAMPLES), mode="wrap")
        return np.asarray(pcm, dtype=np.float32)

    def _voiced(self, text: str) -> Samples:
        return self.voices.say(text, self.scene.caller)

    def _say(
        self,
        kind: TurnKind,
        text: str,
        pcm: Samples | None = None,
        fact: int | None = None,
        minute: float | None = None,
    ) -> CallerFrames:
        """Say something, and listen."""
        begin = self.count
        yield from self.play(self._voiced(text) if pcm is None else pcm)
        self.turns.append(Turn(kind, text, begin, self.count, fact, minute))
        yield from self.listen()

    def _facts(self) -> CallerFrames:
        facts = list(enumerate(self.scene.stranger.facts))
        self._rng.shuffle(facts)
        for place, fact in facts:
            yield from self._say(fact.kind, fact.asks[self.scene.wording], fact=place)
        yield from self._say("goodbye", self._rng.choice(lines().goodbye))

    def _memory(self) -> CallerFrames:
        """Talk about other things, and at each mark ask for the name and for another fact."""
        facts, talk = self.scene.stranger.facts, list(lines().talk)
        self._rng.shuffle(talk)
        said = 0
        for place, mark in enumerate(self.scale.marks):
            while self.count * FRAME_S < mark * 60:
                yield from self._say("talk", talk[said % len(talk)])
                said += 1
            for number in (0, 1 + (self.scene.number + place) % (len(facts) - 1)):
                fact = facts[number]
                yield from self._say(fact.kind, fact.asks[place % len(fact.asks)], fact=number, minute=mark)

    def _group(self, kind: Literal["unpleasant", "unknown", "arithmetic"]) -> CallerFrames:
        texts = [each.ask for each in lines().arithmetic] if kind == "arithmetic" else list(getattr(lines(), kind))
        if kind == "unpleasant":  # Sad and angry ones in each call, in any number of calls.
            random.Random(kind).shuffle(texts)
        for text in texts[self.scene.number * GROUP :][:GROUP]:
            yield from self._say(kind, text)

    def _monologue(self) -> CallerFrames:
        text = lines().monologues[self.scene.number % len(lines().monologues)]
        pieces = []
        for phrase in text.split("/"):
            pause = self._rng.uniform(*PAUSES_S)
            pieces += [self._voiced(phrase.strip()), np.zeros(round(pause * SAMPLE_RATE), np.float32)]
        yield from self._say("monologue", text, np.concatenate(pieces[:-1]))

    def _backchannels(self) -> CallerFrames:
        """Say `mhm` during the greeting, and again during a long answer."""
        yield from self._backchannel()
        begin, text = self.count, self._rng.choice(lines().everything)
        yield from self.play(self._voiced(text))
        self.turns.append(Turn("talk", text, begin, self.count))
        yield from self._backchannel()

    def _backchannel(self) -> CallerFrames:
        spoken = 0.0
        for _ in range(round((BEGINS_S + SPOKEN_S) / FRAME_S)):
            spoken += FRAME_S * (yield self.sound())
            if spoken >= SPOKEN_S:
                break
        begin, text = self.count, self._rng.choice(lines().backchannels)
        yield from self.play(self._voiced(text))
        self.turns.append(Turn("backchannel", text, begin, self.count, spoke=spoken >= SPOKEN_S))
        yield from self.listen()
        yield from self.wait(3.0)

    def _be_silent(self) -> CallerFrames:
        settled = False
        while not settled and self.count * FRAME_S < 2 * QUIET_S:
            yield from self.listen()
            settled = True
            for _ in range(round(SETTLED_S / FRAME_S)):
                settled &= not (yield self.sound())
        self.quiet_from = self.count
        yield from self.wait(QUIET_S)
