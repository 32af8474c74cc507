"""Nano's vocabulary: a thousand SentencePiece pieces, cut from the scripts."""

import io
import random
from pathlib import Path

import sentencepiece

from training.scripts import episode, shipped_episodes
from training.shape import ARCHITECTURE

EPISODES = 4000
SIZE = ARCHITECTURE.text_vocab_size


def make_tokenizer(path: Path, size: int = SIZE, count: int = EPISODES) -> None:
    """Write a SentencePiece model of `size` pieces, cut from `count` episodes.

    Ids 0 and 3 are end-of-padding and padding, as in Moshi's.
    """
    rng = random.Random("vocabulary")
    episodes = [episode(rng) for _ in range(count)] + list(shipped_episodes(rng))
    texts = [text for chosen in episodes for text in (chosen.prompt, *chosen.lines())]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=size,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=1.0,
        user_defined_symbols=["<system>"],
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        minloglevel=2,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.getvalue())


def read_tokenizer(path: Path) -> sentencepiece.SentencePieceProcessor:
    """The vocabulary at `path`."""
    return sentencepiece.SentencePieceProcessor(model_file=str(path))
