"""A bank of finished conversations, from which the language model's batches are drawn."""

import random
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from moshi.models.compression import MimiModel
from torch import Tensor

from core.engine.call import FRAME_SAMPLES
from core.engine.prompt import SpecialCodes, Tokens
from training.acoustics import ECHOES, around
from training.composer import Composer
from training.dialogues import PADDING, Dialogue, positions_of
from training.schedule import save_atomically

ENCODED_FRAMES = 6_000
"""Frames of callers' sound that are encoded at a time."""
ROUND = 16
"""Frames that a batch's length is a multiple of: Fourier transforms of such lengths are fast."""

LONG_POSITIONS, LONG_SHARE = 1500, 0.3
"""Positions of the long conversations, and how many of them are in a bank for each short one in another."""

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""Some conversations' tokens, begins, speaking, sounds, heard and given, see `Bank`."""


@dataclass(frozen=True)
class BankSizes:
    """How many conversations are in a bank, and how many positions each has, prompt included.

    Every `long`th bank, if that is not 0, is of fewer conversations of LONG_POSITIONS positions instead.
    """

    count: int
    positions: int
    long: int = 0

    def of(self, number: int) -> tuple[int, int]:
        """Conversations and positions of bank `number`."""
        if self.long and number % self.long == self.long - 1:
            return max(1, round(LONG_SHARE * self.count)), LONG_POSITIONS
        return self.count, self.positions


@dataclass(frozen=True)
class Bank:
    """Conversations of one length.

    `tokens`: int16[conversations, positions, 17]; `begins`: the prompts' lengths, int64[conversations];
    `speaking`: whether the agent does, bool[conversations, positions]; `sounds`: whether its codes sound as its text
    reads, and are to be learned, bool[conversations]; `heard`: what the caller says in text pieces, padding in the
    prompt, int16[conversations, positions]; `given`: where the agent's text is not to be learned, since it is given to
    it or missing by mistake, bool[conversations, positions].
    """

    tokens: Tensor
    begins: Tensor
    speaking: Tensor
    sounds: Tensor
    heard: Tensor
    given: Tensor

    def batch(self, size: int) -> Batch:
        """Some conversations at random."""
        rows = torch.randint(len(self.tokens), (size,), device=self.tokens.device)
        tokens, heard = self.tokens[rows].long(), self.heard[rows].long()
        return tokens, self.begins[rows], self.speaking[rows], self.sounds[rows], heard, self.given[rows]

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        save_atomically(path, {field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "Bank":
        """Read what `save` has written."""
        return cls(**torch.load(path, map_location=device, weights_only=True))


def build_bank(dialogues: Iterable[Dialogue], special: SpecialCodes, count: int, positions: int) -> Bank:
    """Lay out `count` dialogues, whose callers are in codes, of so many positions."""
    tokens = np.empty((count, positions, 17), dtype=np.int16)
    speaking, given = np.zeros((2, count, positions), dtype=np.bool_)
    heard = np.full((count, positions), PADDING, dtype=np.int16)
    begins = np.empty(count, dtype=np.int64)
    sounds = np.empty(count, dtype=np.bool_)
    for row, dialogue in enumerate(dialogues):
        begins[row] = begin = len(dialogue.prompt)
        tokens[row] = positions_of(dialogue, special)
        speaking[row, begin:], heard[row, begin:] = dialogue.speaking, dialogue.heard
        given[row, begin:], sounds[row] = dialogue.given, dialogue.sounds
    return Bank(*(torch.from_numpy(array) for array in (tokens, begins, speaking, sounds, heard, given)))


def encoded(composer: Composer, mimi: MimiModel, count: int, positions: int, seed: int) -> Iterator[Dialogue]:
    """`count` dialogues, their callers encoded: some are composed while those before them are encoded."""
    rng = random.Random(seed)
    generator = torch.Generator(next(mimi.parameters()).device).manual_seed(seed)
    rows = max(1, ENCODED_FRAMES // positions)
    waiting: tuple[list[Dialogue], Future[list[Tokens]]] | None = None
    with ThreadPoolExecutor(1) as encoder:
        for start in range(0, count + rows, rows):
            dialogues = [composer.compose(rng, positions + 1) for _ in range(min(rows, count - start))]
            before, waiting = waiting, None
            if dialogues:
                waiting = dialogues, encoder.submit(encode_callers, mimi, dialogues, generator)
            if before is not None:
                for dialogue, codes in zip(before[0], before[1].result(), strict=True):
                    dialogue.user[:] = codes
                    yield dialogue


@torch.inference_mode()
def encode_callers(mimi: MimiModel, dialogues: list[Dialogue], generator: torch.Generator) -> list[Tokens]:
    """Each caller's lines with the world around them, encoded in one pass: int64[frames, 8] each."""
    device = generator.device
    frames = -(-max(len(dialogue.text) for dialogue in dialogues) // ROUND) * ROUND
    sound = np.zeros((len(dialogues), frames * FRAME_SAMPLES), dtype=np.int16)
    for row, dialogue in enumerate(dialogues):
        for start, line in dialogue.caller:
            piece = line[: max(0, sound.shape[1] - start)]
            sound[row, start : start + len(piece)] = piece
    callers = torch.from_numpy(sound).to(device).float() / 32767
    heard = around(callers, loudspeakers(mimi, dialogues, frames, generator), generator)
    codes = mimi.encode(heard[:, None]).transpose(1, 2).cpu().numpy().astype(np.int64)
    return [codes[row, : len(dialogue.text)] for row, dialogue in enumerate(dialogues)]


def loudspeakers(mimi: MimiModel, dialogues: list[Dialogue], frames: int, generator: torch.Generator) -> Tensor:
    """What callers' loudspeakers play, float32[dialogues, samples]: the agent, for those who have no headset on."""
    device = generator.device
    played = torch.zeros(len(dialogues), frames * FRAME_SAMPLES, device=device)
    chosen = (torch.rand(len(dialogues), device=device, generator=generator) < ECHOES).nonzero()[:, 0].tolist()
    if chosen:
        codes = np.tile(dialogues[0].agent[:1], (len(chosen), frames, 1))
        for row, number in enumerate(chosen):
            codes[row, : len(dialogues[number].agent)] = dialogues[number].agent
        made = mimi.decode(torch.from_numpy(codes).to(device).transpose(1, 2))[:, 0]
        played[chosen] = made[:, : played.shape[1]]
    return played
