"""Who calls, and what they can say: callers' lines by wish and by voice, and speech that nobody understands."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt

from core.engine.call import SAMPLE_RATE
from training.encoded import CallerLine, Codes
from training.garbling import garbled
from training.teachers import MARGIN
from training.voices import RECORDED_VOICES

SHARES = {"kokoro": 0.3, "espeak": 0.28, "flite": 0.14, "rhvoice": 0.18, "pico": 0.1}
"""How often callers speak by which teacher."""
Sound = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Utterance:
    """What a caller says: sound from the first word to the last, and the samples at which each word ends.

    `codes` and `place` are as in CallerLine.
    """

    sound: Sound
    words: tuple[str, ...]
    ends: tuple[int, ...]
    codes: Codes | None = None
    place: int = 0


def utterance(line: CallerLine) -> Utterance:
    """A line with its words' ends. A word ends where the next begins, and the last where the silence does."""
    begins = (int(second * SAMPLE_RATE) for second in line.words[1:])
    ends = (*begins, len(line.pcm) - int(MARGIN * SAMPLE_RATE))
    return Utterance(line.pcm, tuple(line.text.split()), ends, line.codes, line.place)


def teacher(voice: str) -> str:
    """Who spoke a line in this voice, a name that `training.voices.caller` gives, as SHARES names it."""
    name = voice.partition("-")[0]
    return name if name == "kokoro" or name in RECORDED_VOICES else "espeak"


_Spoken = defaultdict[str, dict[str, list[CallerLine]]]


def _by_wish() -> dict[str, list[CallerLine]]:
    return defaultdict(list)


class Callers:
    """All that callers have said, in one of WORLDS if they are in codes."""

    def __init__(self, lines: dict[str, list[CallerLine]], world: int | None = None) -> None:
        self._lines, self.world = lines, world
        self._wishes = [wish for wish, spoken in lines.items() if spoken]
        self._voices, self._teachers = _Spoken(_by_wish), _Spoken(_by_wish)
        self._names: dict[str, list[str]] = defaultdict(list)
        for wish in self._wishes:
            for line in lines[wish]:
                self._voices[line.voice][wish].append(line)
                self._teachers[teacher(line.voice)][wish].append(line)
                self._names[teacher(line.voice)].append(line.voice)

    def __len__(self) -> int:
        """How many lines they have said."""
        return sum(map(len, self._names.values()))

    def voice(self, rng: Random) -> str:
        """Somebody; empty where there is nobody."""
        there = [name for name in SHARES if name in self._names]
        if not there:
            return ""
        return rng.choice(self._names[rng.choices(there, [SHARES[name] for name in there])[0]])

    def say(self, rng: Random, wishes: Collection[str], voice: str) -> Utterance | None:
        """One of these wishes, in this voice if it has said any, else in one like it; None where nobody has.

        With no voice, it may be anybody.
        """
        voice = voice or self.voice(rng)
        for lines in (self._voices.get(voice, {}), self._teachers.get(teacher(voice), {}), self._lines):
            said = [wish for wish in wishes if lines.get(wish)]
            if said:
                return utterance(rng.choice(lines[rng.choice(said)]))
        return None

    def has(self, wish: str) -> bool:
        """Whether anybody has said it."""
        return bool(self._lines.get(wish))

    def garble(self, rng: Random, said: Utterance) -> Utterance | None:
        """It in such a way that nobody understands a word, and about as loud; None where it is in codes already."""
        if said.codes is not None:
            return None
        other = self.say(rng, rng.sample(self._wishes, min(8, len(self._wishes))), "") or said
        sound = garbled(said.sound.astype(np.float32), other.sound.astype(np.float32), rng)
        before, after = (max(1.0, float(np.abs(samples).max(initial=0))) for samples in (said.sound, sound))
        return Utterance((sound * min(1.0, 1.2 * before / after)).clip(-32767, 32767).astype(np.int16), (), ())


def by_world(lines: Mapping[str, Sequence[CallerLine]]) -> list[Callers]:
    """All callers by the worlds in which they are heard, since nobody changes theirs in a call."""
    worlds: dict[int | None, dict[str, list[CallerLine]]] = defaultdict(_by_wish)
    for wish, spoken in lines.items():
        for line in spoken:
            worlds[line.world][wish].append(line)
    return [Callers(said, world) for world, said in worlds.items()] or [Callers({})]
