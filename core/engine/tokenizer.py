"""Text to tokens and back: SentencePiece, as the checkpoint brings it."""

import codecs
from pathlib import Path
from typing import Protocol

import numpy as np
import sentencepiece

from core.engine.prompt import SYSTEM_TAG, Tokens, without_system_tags
from core.errors import CheckpointError

PADDING = (0, 3)
"""Moshi's end-of-padding and padding: never shown."""


class Words(Protocol):
    """Turns one call's text tokens into text to show, in order."""

    def show(self, token: int) -> str:
        """The text that this token completes; often ""."""


class Tokenizer(Protocol):
    """What the engine needs of a tokenizer."""

    def prompt(self, text: str) -> Tokens:
        """The tokens of a text prompt, int64[n], wrapped as the model was trained; none for an empty one."""

    def words(self) -> Words:
        """Begin to show a new call's text."""


class SentencePieceTokenizer:
    """The checkpoint's own SentencePiece model."""

    def __init__(self, path: Path) -> None:
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{path} is not a SentencePiece model: {error}") from error

    def prompt(self, text: str) -> Tokens:
        words = without_system_tags(text)
        if not words:
            return np.empty(0, dtype=np.int64)
        return np.array(self._processor.encode(f"{SYSTEM_TAG} {words} {SYSTEM_TAG}"), dtype=np.int64)

    def words(self) -> "SentencePieceWords":
        return SentencePieceWords(self._processor)


class SentencePieceWords:
    """Pieces to text; characters that the vocabulary spells in bytes appear when their last byte has come."""

    def __init__(self, processor: sentencepiece.SentencePieceProcessor) -> None:
        self._processor = processor
        self._bytes = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def show(self, token: int) -> str:
        if token in PADDING or token >= self._processor.vocab_size():
            return ""
        piece: str = self._processor.id_to_piece(token)
        if self._processor.is_byte(token):
            return self._bytes.decode(bytes([int(piece[3:5], 16)]))  # a piece like <0xE2>
        if self._processor.is_control(token) or self._processor.is_unknown(token):
            return ""
        return self._bytes.decode(b"", final=True) + piece.replace("\N{LOWER ONE EIGHTH BLOCK}", " ")
