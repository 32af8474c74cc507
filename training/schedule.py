"""How a stage spends its time: by the clock, since a machine with a GPU is lent by the minute."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

SAVED_S = 60.0
"""Seconds between two saves of what learns, so that a machine that is lost takes little with it."""


@dataclass(frozen=True)
class Schedule:
    """A stage's part of the whole training.

    `seconds` is what this run takes; it leads from `start` to `end`, shares of the whole. `cooled` is the share at
    which the learning rate begins to fall, towards nothing at the end of the whole.
    """

    seconds: float
    start: float = 0.0
    end: float = 1.0
    warm_up: int = 200
    cooled: float = 0.3

    def progress(self, elapsed: float) -> float:
        """The share of the whole that is done after `elapsed` seconds of this run; 1 and more when it is over."""
        if elapsed >= self.seconds:
            return 1.0
        return min(self.start + (self.end - self.start) * elapsed / self.seconds, 0.9999)

    def rate(self, progress: float, steps: int) -> float:
        """The learning rate's factor: rises for `warm_up` steps, stays, then falls along a cosine."""
        warm = min(1.0, (steps + 1) / self.warm_up)
        fallen = max(0.0, (progress - self.cooled) / (1 - self.cooled))
        return warm * max(0.02, 0.5 * (1 + math.cos(math.pi * fallen)))


def save_atomically(path: Path, state: dict[str, Any]) -> None:
    """Write a state whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    torch.save(state, part)
    part.replace(path)
