"""A bank of finished conversations, from which the language model's batches are drawn."""

import random
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from moshi.models.compression import MimiModel
from torch import Tensor

from core.engine.call import FRAME_SAMPLES
from core.engine.prompt import SpecialCodes, Tokens
from training.dialogues import PADDING, Composer, Dialogue, positions_of
from training.pool import coloured_noise
from training.schedule import save_atomically

ENCODED_FRAMES = 12_000
"""Frames of callers' sound that are encoded at a time."""
MUTED = 0.25
"""The share of callers whose microphone gives perfect silence between their words."""

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Some conversations' tokens, begins, speaking, sounds and heard, see `Bank`."""


@dataclass(frozen=True)
class Bank:
    """Conversations of one length.

    `tokens`: int16[conversations, positions, 17]; `begins`: the prompts' lengths, int64[conversations];
    `speaking`: whether the agent does, bool[conversations, positions]; `sounds`: whether its codes sound as its text
    reads, and are to be learned, bool[conversations]; `heard`: the text pieces of what the caller says, PADDING between
    them and in the prompt, int16[conversations, positions].
    """

    tokens: Tensor
    begins: Tensor
    speaking: Tensor
    sounds: Tensor
    heard: Tensor

    def batch(self, size: int) -> Batch:
        """Some conversations at random."""
        rows = torch.randint(len(self.tokens), (size,), device=self.tokens.device)
        heard = self.heard[rows].long()
        return self.tokens[rows].long(), self.begins[rows], self.speaking[rows], self.sounds[rows], heard

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        save_atomically(path, {field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "Bank":
        """Read what `save` has written."""
        return cls(**torch.load(path, map_location=device, weights_only=True))


@torch.inference_mode()
def build_bank(
    composer: Composer, mimi: MimiModel, special: SpecialCodes, count: int, positions: int, seed: int
) -> Bank:
    """Compose `count` conversations of so many positions and encode their callers."""
    rng = random.Random(seed)
    device = next(mimi.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    tokens = np.empty((count, positions, 17), dtype=np.int16)
    speaking = np.zeros((count, positions), dtype=np.bool_)
    begins = np.empty(count, dtype=np.int64)
    sounds = np.empty(count, dtype=np.bool_)
    heard = np.full((count, positions), PADDING, dtype=np.int16)
    rows = max(1, ENCODED_FRAMES // positions)
    for start in range(0, count, rows):
        dialogues = [composer.compose(rng, positions + 1) for _ in range(min(rows, count - start))]
        users = encode_callers(mimi, dialogues, rng, generator)
        for row, (dialogue, user) in enumerate(zip(dialogues, users, strict=True), start):
            begin = len(dialogue.prompt)
            tokens[row] = positions_of(dialogue, user, special)
            speaking[row, begin:] = dialogue.speaking
            begins[row], sounds[row] = begin, dialogue.sounds
    return Bank(*(torch.from_numpy(array) for array in (tokens, begins, speaking, sounds, heard)))


def encode_callers(
    mimi: MimiModel, dialogues: list[Dialogue], rng: random.Random, generator: torch.Generator
) -> list[Tokens]:
    """Mix each caller's lines with the noise of a room, and encode: int64[frames, 8] each."""
    device = generator.device
    frames = max(len(dialogue.text) for dialogue in dialogues)
    sound = torch.zeros(len(dialogues), frames * FRAME_SAMPLES, device=device)
    for row, dialogue in enumerate(dialogues):
        gain = 10 ** (rng.uniform(-12, 4) / 20)
        for start, line in dialogue.caller:
            piece = torch.from_numpy(line).to(device)[: max(0, sound.shape[1] - start)]
            sound[row, start : start + len(piece)] += gain * piece
    level = torch.empty(len(dialogues), 1, device=device).uniform_(-75, -34, generator=generator)
    heard = torch.rand(len(dialogues), 1, device=device, generator=generator) >= MUTED
    sound += heard * 10 ** (level / 20) * coloured_noise((len(dialogues), sound.shape[1]), device)
    sound += bursts(len(dialogues), frames, generator)
    codes = mimi.encode(sound.clamp(-1, 1)[:, None]).transpose(1, 2).cpu().numpy().astype(np.int64)
    return [codes[row, : len(dialogue.text)] for row, dialogue in enumerate(dialogues)]


def bursts(count: int, frames: int, generator: torch.Generator) -> Tensor:
    """Breath, knocks and hum for some callers: noise under a slow envelope, or a few steady tones."""
    device, samples = generator.device, frames * FRAME_SAMPLES
    chance = torch.rand(count, 1, device=device, generator=generator)
    envelope = torch.rand(count, 1, frames // 3 + 2, device=device, generator=generator)
    envelope = torch.nn.functional.interpolate((envelope - 0.8).clamp(min=0) * 5, samples, mode="linear")[:, 0]
    noise = 0.04 * envelope * coloured_noise((count, samples), device)
    time = torch.arange(samples, device=device) / 24_000
    pitches = 80 + 900 * torch.rand(count, 3, 1, device=device, generator=generator)
    hum = 0.01 * torch.sin(2 * torch.pi * pitches * time).sum(dim=1)
    return torch.where(chance < 0.15, noise, torch.where(chance > 0.95, hum, torch.zeros_like(noise)))
