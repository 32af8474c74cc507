"""Lines that nobody has spoken, spliced of words from lines that somebody has.

Spoken personas are few, and come so often that a model would know their facts by heart instead of reading its prompt.
To draw a persona takes 3 ms, to speak its lines a minute; so many conversations are about a persona of their own, who
never comes again. What is heard then is each word as its speaker has said it elsewhere, or where it never was said,
another word that is about as long. It does not sound as its text reads, and is not to be learned.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

import numpy as np

from training.dialogues import FRAMES_PER_SECOND
from training.encoded import AgentLine, Codes

CANDIDATES = 4
"""So many other words are looked at for one that was never said; the nearest in length is taken."""


@dataclass(frozen=True)
class _Segment:
    """A word in a spoken line: int16[shifts, frames, 8], and how far into the first frame it begins, in frames."""

    codes: Codes
    late: float
    length: int


class Splicer:
    """All words that one speaker has said."""

    def __init__(self, speaker: str, lines: Iterable[AgentLine]) -> None:
        """Raises ValueError when the speaker has said nothing."""
        self._speaker = speaker
        self._words: dict[str, list[_Segment]] = defaultdict(list)
        self._segments: list[_Segment] = []
        for line in lines:
            for word, segment in _segments(line):
                self._words[word].append(segment)
                self._segments.append(segment)
        if not self._segments:
            raise ValueError(f"{speaker} has said no words.")

    def line(self, rng: Random, text: str) -> AgentLine:
        """A line whose words begin when its sounds do."""
        begin, begins, codes = 0, [], []
        for word in text.split():
            segment = self._segment(rng, word)
            begins.append((begin + segment.late) / FRAMES_PER_SECOND)
            codes.append(segment.codes)
            begin += segment.codes.shape[1]
        return AgentLine(text, self._speaker, tuple(begins), np.concatenate(codes, axis=1))

    def _segment(self, rng: Random, word: str) -> _Segment:
        if (said := self._words.get(word)) is not None:
            return rng.choice(said)
        return min(rng.choices(self._segments, k=CANDIDATES), key=lambda other: abs(other.length - len(word)))


def _segments(line: AgentLine) -> Iterable[tuple[str, _Segment]]:
    """Each word with its frames: from the one in which it begins up to that in which the next one does."""
    begins = [second * FRAMES_PER_SECOND for second in line.words]
    frames = [int(begin) for begin in begins]
    for number, (word, begin) in enumerate(zip(line.text.split(), begins, strict=True)):
        end = frames[number + 1] if number + 1 < len(frames) else line.codes.shape[1]
        codes = line.codes[:, frames[number] : end]
        if codes.shape[1]:
            yield word, _Segment(codes, begin - frames[number], len(word))
