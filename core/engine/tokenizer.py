"""Text to tokens and back, with the SentencePiece model that a checkpoint brings."""

import codecs
import re
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import sentencepiece

from core.engine.architecture import END_OF_PADDING, PADDING
from core.engine.prompt import SYSTEM_TAG, Tokens, without_system_tags
from core.engine.spoken_numbers import spell_numbers
from core.errors import CheckpointError, SayError

MAX_PIECES = 16
"""Pieces that are said without a pause, more than a word has unless it is spelled in bytes."""
_HYPHEN = re.compile(r"(?<=[^\W\d_])[-\u2010\u2011](?=[^\W\d_])")
"""What stands between two parts of a word, such as `tune-up`, and is not heard."""


class Detokenizer(Protocol):
    """Turns the text tokens of one call into text, one after another."""

    def decode(self, token: int) -> str:
        """The text that this token completes, often ""."""


class Tokenizer(Protocol):
    """What the engine needs of a tokenizer."""

    def prompt(self, text: str) -> Tokens:
        """The tokens of a text prompt, int64[n], wrapped as the model was trained; none for an empty one."""

    def words(self, text: str) -> list[list[int]]:
        """The tokens of a sentence to be said, word by word. Raises SayError for what cannot be spelled."""

    def detokenizer(self) -> Detokenizer:
        """A detokenizer for a new call."""


def spelled(text: str) -> str:
    """A text as one says it, for a model that was trained so: numbers in words, and no hyphens inside words."""
    return _HYPHEN.sub(" ", spell_numbers(text))


class SentencePieceTokenizer:
    """The checkpoint's own SentencePiece model. Raises CheckpointError when the file holds none.

    With `spell`, numbers in prompts and sentences are written as one says them, and words without hyphens: the model
    was trained without either.
    """

    def __init__(self, path: Path, spell: bool = False) -> None:
        self._spell = spell
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{path} is not a SentencePiece model: {error}") from error

    def prompt(self, text: str) -> Tokens:
        words = self._spelled(without_system_tags(text))
        if not words:
            return np.empty(0, dtype=np.int64)
        return np.array(self._processor.encode(f"{SYSTEM_TAG} {words} {SYSTEM_TAG}"), dtype=np.int64)

    def words(self, text: str) -> list[list[int]]:
        words: list[list[int]] = self._processor.encode(self._spelled(text).split())
        if any(token in (END_OF_PADDING, PADDING) or self._processor.is_unknown(token) for token in chain(*words)):
            raise SayError("A sentence has characters that this model's vocabulary cannot spell: leave them out.")
        return [word[start : start + MAX_PIECES] for word in words for start in range(0, len(word), MAX_PIECES)]

    def _spelled(self, text: str) -> str:
        return spelled(text) if self._spell else text

    def detokenizer(self) -> "SentencePieceDetokenizer":
        return SentencePieceDetokenizer(self._processor)


class SentencePieceDetokenizer:
    """Pieces to text; a character that the vocabulary spells in bytes appears with its last byte."""

    def __init__(self, processor: sentencepiece.SentencePieceProcessor) -> None:
        self._processor = processor
        self._bytes = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def decode(self, token: int) -> str:
        if token in (END_OF_PADDING, PADDING) or token >= self._processor.vocab_size():
            return ""
        piece: str = self._processor.id_to_piece(token)
        if self._processor.is_byte(token):
            return self._bytes.decode(bytes([int(piece[3:5], 16)]))  # a piece like <0xE2>
        if self._processor.is_control(token) or self._processor.is_unknown(token):
            return ""
        return self._bytes.decode(b"", final=True) + piece.replace("\N{LOWER ONE EIGHTH BLOCK}", " ")
