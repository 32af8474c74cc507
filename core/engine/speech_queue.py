"""What an agent is given to say: sentences whose tokens take the place of its own text, at its own pace.

The agent speaks its text stream, in which a word's pieces stand in consecutive frames, padding follows while the word
sounds, and an end of padding announces the next word. So a sentence is said by replacing tokens: a word begins where
the agent begins one of its own, or where it has paused for MAX_PADDINGS frames, and its other pieces follow at once. A
frame of padding stands behind each word: without it an agent, which does not know what comes, hurries.
"""

import threading
from collections import deque
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from core.engine.architecture import END_OF_PADDING, PADDING
from core.engine.call import MAX_SENTENCE, MAX_SENTENCES
from core.engine.prompt import SYSTEM_TAG
from core.errors import SayError

SILENT = (END_OF_PADDING, PADDING)
MAX_PADDINGS = 4
"""Frames without a piece after which the next word is announced, where the agent announces none itself."""
PAUSE_FRAMES = 10
"""So many frames without a piece, 0.8 s, end the agent's own words."""
HUSHED_FRAMES = 25
"""So many frames, 2 s, in which the agent has no words of its own end a hush."""
LONGEST_WAIT_FRAMES = 62
"""How long a sentence waits for the agent's own words to end, and how long these are withheld at most: 5 s."""
LONGEST_WORD_FRAMES = 12
"""How long a sentence that interrupts waits for the agent's own word to end: 1 s."""


class Replaces(IntEnum):
    """Which of the agent's own tokens a forced one replaces; numbers that `force_text` compares."""

    NOTHING = 0
    WORDS = 1
    """Pieces of words; where the agent has padding, or the end of it, that stands."""
    EVERYTHING = 2


class Forced(NamedTuple):
    """The text token that a position is given, and what it replaces."""

    token: int
    replaces: Replaces


UNFORCED = Forced(0, Replaces.NOTHING)


class Given(NamedTuple):
    """Whether a text token belongs to a sentence that was given, and whether it is its last."""

    said: bool = False
    sentence_ended: bool = False


class Sentence:
    """The words of a sentence that are still to be said."""

    def __init__(self, words: Sequence[Sequence[int]]) -> None:
        self.words = deque(words)


def check_sentence(text: str) -> None:
    """Raise SayError for text that no agent can be given to say, whatever its vocabulary."""
    if not isinstance(text, str):
        raise SayError(f"A sentence to be said is text, not {type(text).__name__}.")
    if len(text) > MAX_SENTENCE:
        raise SayError(f"A sentence to be said has at most {MAX_SENTENCE} characters; this one has {len(text)}.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SayError("A sentence to be said holds half of a surrogate pair, which is no character.") from None
    if any(ord(character) < 32 and not character.isspace() for character in text):
        raise SayError("A sentence to be said holds a control character: leave it out.")
    if SYSTEM_TAG in text:
        raise SayError(f"A sentence to be said holds {SYSTEM_TAG}, which only prompts may have: leave it out.")
    if not text.strip():
        raise SayError("A sentence to be said is empty.")


class SpeechQueue:
    """The sentences that wait in one call. The event loop adds and drops; the engine's thread takes tokens."""

    def __init__(self) -> None:
        self.given = Given()
        """What is true of the token that was sampled last; the next frame brings it."""
        self._lock = threading.Lock()
        self._sentences: deque[Sentence] = deque()
        self._interrupts = False
        """Whether the first sentence begins at the next word, in the midst of the agent's own."""
        self._word: tuple[Sequence[int], Sentence] | None = None
        """The word that may begin with the token being sampled."""
        self._rest: deque[int] = deque()
        """The pieces that are left of the word that has begun."""
        self._is_last_word = False
        self._paddings = 0
        """Frames since the last piece of a word."""
        self._announced = False
        """Whether the last token was an end of padding."""
        self._own_words = False
        """Whether the last word was the agent's own, so that it may be in the midst of a sentence."""
        self._waited = 0
        """Frames that the first sentence has waited for."""
        self._withheld = 0
        """Frames for which the agent's own words are still withheld."""

    def add(self, words: Sequence[Sequence[int]], interrupt: bool = False) -> None:
        """Have a sentence said, given as the tokens of its words. Raises SayError where too many wait."""
        with self._lock:
            if interrupt:
                self._sentences.clear()
                self._is_last_word = False  # the word that has begun ends nothing any more
            elif len(self._sentences) >= MAX_SENTENCES:
                raise SayError(f"{MAX_SENTENCES} sentences are waiting to be said: wait until the agent has said some.")
            self._interrupts |= interrupt
            self._withheld = 0
            self._sentences.append(Sentence(words))

    def hush(self) -> None:
        """Drop all sentences and withhold the agent's own words until it has none."""
        with self._lock:
            self._sentences.clear()
            self._withheld, self._paddings = LONGEST_WAIT_FRAMES, 0
            self._interrupts = self._own_words = self._is_last_word = False

    def next(self) -> Forced:
        """What the token that is sampled next is given."""
        with self._lock:
            self._word = None
            if self._rest:
                return Forced(self._rest[0], Replaces.EVERYTHING)
            if self._withheld:
                return Forced(PADDING, Replaces.EVERYTHING)
            if not self._sentences or not self._may_begin():
                return UNFORCED
            if self._paddings == 0 and not self._own_words:
                return Forced(PADDING, Replaces.EVERYTHING)
            if self._paddings >= MAX_PADDINGS and not self._announced:
                return Forced(END_OF_PADDING, Replaces.EVERYTHING)
            word = self._sentences[0].words[0]
            self._word = word, self._sentences[0]
            return Forced(word[0], Replaces.EVERYTHING if self._announced else Replaces.WORDS)

    def _may_begin(self) -> bool:
        """Whether the next word may begin: not in the midst of the agent's own sentence, or word."""
        if not self._own_words:
            return True
        paddings, longest = (1, LONGEST_WORD_FRAMES) if self._interrupts else (PAUSE_FRAMES, LONGEST_WAIT_FRAMES)
        return self._paddings >= paddings or self._waited >= longest

    def sampled(self, token: int, own: int) -> None:
        """Go on by the token that came of `next`, and the one that the agent chose itself."""
        with self._lock:
            self._waited = self._waited + 1 if self._sentences else 0
            self._announced = token == END_OF_PADDING
            if token in SILENT:
                self.given = Given()
                self._paddings = 0 if self._withheld and own not in SILENT else self._paddings + 1
                self._withheld = 0 if self._paddings >= HUSHED_FRAMES else max(0, self._withheld - 1)
                return
            self._paddings = 0
            said = self._took(token)
            self._own_words = not said
            self.given = Given(said, said and self._is_last_word and not self._rest)

    def _took(self, token: int) -> bool:
        """Whether a piece of a word is one that was given, which is then no longer to be said."""
        if self._rest:
            self._rest.popleft()
            return True
        if self._word is None or token != self._word[0][0]:
            return False
        word, sentence = self._word
        sentence.words.popleft()
        self._rest.extend(word[1:])
        self._is_last_word = not sentence.words
        if self._sentences and self._sentences[0] is sentence:  # It may have been dropped meanwhile.
            self._interrupts, self._waited = False, 0
            if self._is_last_word:
                self._sentences.popleft()
        return True
