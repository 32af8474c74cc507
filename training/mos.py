"""How natural speech sounds: mean opinion scores as DistillMOS predicts them, by the package `distillmos`.

Stahl and Gamper, "Distillation and Pruning for Scalable Self-Supervised Representation-Based Speech Quality Assessment"
(ICASSP 2025); its weights are inside the package.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import soxr
import torch

from core.engine.call import SAMPLE_RATE
from core.evaluation.speech import Samples

MOS_RATE = 16_000
LONGEST = 122_880
"""Samples that it looks at together: 7.68 s. What is shorter is padded with silence, as its package does."""
BATCH = 8


class DistillMos:
    """Scores speech from 1, bad, to 5, excellent."""

    def __init__(self, device: str = "cpu") -> None:
        """Raises ImportError without the package."""
        from distillmos import ConvTransformerSQAModel

        with contextlib.redirect_stdout(io.StringIO()):  # It prints where its weights are.
            model = ConvTransformerSQAModel(segmenting_in_forward=False)
        self._model: Any = model.eval().to(device)
        self._device = device

    def scores(self, sounds: Sequence[Samples]) -> list[float]:
        """The score of each float32[samples] at 24 kHz; of longer ones the first 7.68 s count."""
        padded = np.zeros((len(sounds), LONGEST), np.float32)
        for row, sound in zip(padded, sounds, strict=True):
            piece = soxr.resample(sound, SAMPLE_RATE, MOS_RATE)[:LONGEST]
            row[: len(piece)] = piece
        with torch.inference_mode():
            return [
                float(score)
                for first in range(0, len(padded), BATCH)
                for score in self._model(torch.from_numpy(padded[first : first + BATCH]).to(self._device)).flatten()
            ]
