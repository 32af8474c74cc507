"""A conversation out of lines made separately: what the agent does and what the caller says, frame by frame.

The agent's side is laid out in codes. The caller's is kept as sound, to be mixed with the world around it and encoded
whole; lines that have codes already are laid out in them as well.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from core.engine.architecture import AGENT_CODEBOOKS, STREAMS
from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE
from core.engine.prompt import SpecialCodes, Tokens
from training.callers import Sound, Utterance
from training.encoded import SHIFTS, AgentLine

PADDING, END_OF_PADDING = 3, 0
LEAD = 0.24
"""Seconds by which a word's text comes before its sound, so that a whole short word is known when it begins."""
HEARD_AFTER = 3
"""Frames between the one in which a caller's word ends and its text. All codes of a frame are known two frames later,
and a word is known by what follows it, too."""
FRAMES_PER_SECOND = SAMPLE_RATE / FRAME_SAMPLES
VOICE_FRAMES = 25

Pieces = Callable[[str], list[int]]
"""A word's pieces of text."""


@dataclass
class Dialogue:
    """One conversation: what the agent does, frame by frame, and where the caller's lines begin, in samples.

    `user`, int64[frames, 8], is the caller in codes: silence at first, and lines that have codes.
    `heard`, int64[frames], is what the caller says in text pieces, each word's from HEARD_AFTER frames after its end.
    `given`, bool[frames], is where the agent's text is not to be learned: what it is given to say, and missed answers.
    `sounds` is whether the agent's codes sound as its text reads: not where it was spliced.
    """

    prompt: Tokens
    text: npt.NDArray[np.int64]
    agent: npt.NDArray[np.int64]
    user: npt.NDArray[np.int64]
    speaking: npt.NDArray[np.bool_]
    heard: npt.NDArray[np.int64]
    given: npt.NDArray[np.bool_]
    caller: list[tuple[int, Sound]] = field(default_factory=list)
    sounds: bool = True
    free: int = 0
    """The first frame into which the next word that is heard may be written."""

    @classmethod
    def silent(cls, prompt: Tokens, frames: int, special: SpecialCodes, sounds: bool) -> "Dialogue":
        """One of so many frames in which nobody speaks yet."""
        text, heard = np.full((2, frames), PADDING, dtype=np.int64)
        agent, user = np.tile(np.array(special.silence, dtype=np.int64), (2, frames, 1))
        speaking, given = np.zeros((2, frames), dtype=np.bool_)
        return cls(prompt, text, agent, user, speaking, heard, given, sounds=sounds)

    def speak(self, line: AgentLine, begin: int, shift: int, pieces: Pieces) -> int:
        """The agent says a line, as it was encoded at `shift`, from frame `begin` on. Returns the frame after it."""
        codes = line.codes[shift][: max(0, len(self.text) - begin)]
        end = begin + len(codes)
        self.agent[begin:end] = codes
        self.speaking[begin:end] = True
        free = max(0, begin - 2)
        for word, second in zip(line.text.split(), line.words, strict=True):
            second += shift / SHIFTS / FRAMES_PER_SECOND - LEAD
            start = max(free, begin + int(second * FRAMES_PER_SECOND))
            if start > free and start - 1 < len(self.text):
                self.text[start - 1] = END_OF_PADDING
            free = write(self.text, start, pieces(word))
        return end

    def stop(self, begin: int, end: int, special: SpecialCodes) -> None:
        """The agent is silent from frame `begin` to `end`, whatever it was to say."""
        self.agent[begin:end] = special.silence
        self.text[begin - 1 : end] = PADDING
        self.speaking[begin:end] = False

    def say(self, said: Utterance, start: int, pieces: Pieces) -> int:
        """The caller says something from sample `start` on, later than all before. Returns the sample after it.

        What has codes begins in the same frame, at its own place in it.
        """
        if said.codes is not None:
            frame = start // FRAME_SAMPLES
            start = frame * FRAME_SAMPLES + said.place
            room = self.user[frame : -(-(start + len(said.sound)) // FRAME_SAMPLES)]
            room[:] = said.codes[: len(room)]
        self.caller.append((start, said.sound))
        for word, end in zip(said.words, said.ends, strict=True):
            self.free = write(self.heard, max(self.free, (start + end) // FRAME_SAMPLES + HEARD_AFTER), pieces(word))
        return start + len(said.sound)


def write(stream: npt.NDArray[np.int64], start: int, pieces: list[int]) -> int:
    """Write a word into a stream of text, as far as there is room. Returns the frame after it."""
    room = stream[start : start + len(pieces)]
    room[:] = pieces[: len(room)]
    return start + len(pieces)


def positions_of(dialogue: Dialogue, special: SpecialCodes) -> Tokens:
    """All seventeen streams by position, int64[positions, 17], with their delays.

    The position after the prompt holds the delayed codes of the prompt's last frame.
    """
    start, end = len(dialogue.prompt), len(dialogue.prompt) + len(dialogue.text)
    tokens = np.empty((end, STREAMS), dtype=np.int64)
    tokens[:start] = dialogue.prompt
    tokens[start:, 0] = dialogue.text
    for first, codes, before in (
        (1, dialogue.agent, special.silence),
        (1 + AGENT_CODEBOOKS, dialogue.user, special.sine),
    ):
        last = first + AGENT_CODEBOOKS
        tokens[start:, first] = codes[:, 0]
        tokens[start, first + 1 : last] = before[1:]
        tokens[start + 1 :, first + 1 : last] = codes[:-1, 1:]
    return tokens
