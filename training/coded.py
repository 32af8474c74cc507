"""Speech as codes and sound side by side, for the codec's decoder: long rows, encoded once by the frozen encoder."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from moshi.models.compression import MimiModel
from torch import Tensor

from core.engine.architecture import AGENT_CODEBOOKS
from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE
from training.pool import LABEL_SAMPLES, LABELS_PER_FRAME, SpeechPool
from training.shards import Line, LineRecord

ROW_FRAMES = 256
"""Frames of a row, which the encoder hears from its beginning."""
ENCODED_FRAMES = 12_000
"""Frames that are encoded at a time."""
SHIFTS = 4
"""Each row is encoded at this many places within a frame, each time at another level."""
LEVEL_DB = (-8.0, 3.0)
"""By how much a row is made louder: the agent's lines are all of about one level, which the decoder is to keep."""
GAPS_S = ((0.1, 0.4), (0.3, 0.3), (0.9, 0.2), (2.6, 0.1))
"""Seconds of silence between two lines, with their shares. In the longest the codes of silence become steady."""

WRONG = (0.0, 0.0, 0.0, 0.01, 0.02, 0.03, 0.04, 0.05)
"""How often a code is replaced by any other, by codebook, in the rows where that is done at all."""
WRONGED = 0.4
"""The share of rows with wrong codes, as a language model makes them."""


@dataclass(frozen=True)
class Crops:
    """Pieces of rows: codes int64[batch, frames, 8], sound float32[batch, samples], labels int64[batch, frames * 4]."""

    codes: Tensor
    sound: Tensor
    labels: Tensor


class CodedSpeech:
    """Rows of sound and of what the encoder makes of them at every shift."""

    @torch.no_grad()
    def __init__(self, mimi: MimiModel, lines: Sequence[Line], device: torch.device, seed: int = 0) -> None:
        """Lay the lines out in random order, with silence between them, and encode them."""
        pool = SpeechPool(spaced(lines, random.Random(seed)), torch.device("cpu"))
        row = ROW_FRAMES * FRAME_SAMPLES
        self.rows = -(-len(pool.sound) // row)
        samples = self.rows * row + FRAME_SAMPLES
        self._sound = padded(pool.sound, samples).to(device)
        self._labels = padded(pool.labels, samples // LABEL_SAMPLES).to(device)
        generator = torch.Generator(device).manual_seed(seed)
        decibels = torch.empty(SHIFTS, self.rows, device=device).uniform_(*LEVEL_DB, generator=generator)
        self._gain = 10 ** (decibels / 20)
        self._codes = torch.empty(SHIFTS, self.rows, ROW_FRAMES, AGENT_CODEBOOKS, dtype=torch.int16, device=device)
        count = max(1, ENCODED_FRAMES // ROW_FRAMES)
        for shift in range(SHIFTS):
            start = shift * (FRAME_SAMPLES // SHIFTS)
            sound = self._sound[start : start + self.rows * row].view(self.rows, row)
            for first in range(0, self.rows, count):
                some = slice(first, first + count)
                heard = self._gain[shift, some, None] * (sound[some].float() / 32767)
                self._codes[shift, some] = mimi.encode(heard.clamp(-1, 1)[:, None]).transpose(1, 2).to(torch.int16)
        self._bins = int(mimi.cardinality)
        self._wrong = torch.tensor(WRONG, device=device)

    @property
    def hours(self) -> float:
        """How long it is, silence included."""
        return self.rows * ROW_FRAMES * FRAME_SAMPLES / SAMPLE_RATE / 3600

    def crops(self, batch: int, frames: int) -> Crops:
        """Random pieces of so many frames; draws on the device alone, as a CUDA graph must."""
        device = self._sound.device
        shift = torch.randint(SHIFTS, (batch, 1), device=device)
        row = torch.randint(self.rows, (batch, 1), device=device)
        start = torch.randint(ROW_FRAMES - frames + 1, (batch, 1), device=device)
        codes = self._codes[shift, row, start + torch.arange(frames, device=device)].long()
        # A shift is a whole number of labels.
        label = (row * ROW_FRAMES + start) * LABELS_PER_FRAME + shift * LABELS_PER_FRAME // SHIFTS
        places = label * LABEL_SAMPLES + torch.arange(frames * FRAME_SAMPLES, device=device)
        sound = (self._gain[shift, row] * self._sound[places].float() / 32767).clamp(-1, 1)
        labels = self._labels[label + torch.arange(frames * LABELS_PER_FRAME, device=device)].long()
        return Crops(self._wronged(codes), sound, labels)

    def _wronged(self, codes: Tensor) -> Tensor:
        chosen = torch.rand(len(codes), 1, 1, device=codes.device) < WRONGED
        wrong = chosen & (torch.rand(codes.shape, device=codes.device) < self._wrong)
        return torch.where(wrong, torch.randint(self._bins, codes.shape, device=codes.device), codes)


def spaced(lines: Sequence[Line], rng: random.Random) -> list[Line]:
    """The lines in random order, with silence after each."""
    gaps, shares = zip(*GAPS_S, strict=True)
    found: list[Line] = []
    for line in rng.sample(lines, len(lines)):
        (gap,) = rng.choices(gaps, shares)
        silence = np.zeros(round(rng.uniform(0.7, 1.3) * gap * SAMPLE_RATE), dtype=np.int16)
        found += [line, Line(LineRecord("", "", "", 0, len(silence), (), ()), silence)]
    return found


def padded(tensor: Tensor, length: int) -> Tensor:
    """A tensor with zeros behind it."""
    return torch.cat([tensor, tensor.new_zeros(length - len(tensor))])
