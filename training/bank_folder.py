"""The banks of a training folder, drawn so that none is seen much more often than the others."""

import random
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import click
import torch

from training.bank import Bank

REFRESH_S = 15.0
"""How often banks that have been made meanwhile are taken in."""


class BankFolder:
    """Keeps the banks of a folder on a device. A bank whose file is deleted is forgotten."""

    def __init__(self, folder: Path, device: torch.device, rows: Callable[[int], int]) -> None:
        """`rows` says how many conversations of so many positions make a step."""
        self._folder, self._device, self._rows = folder, device, rows
        self._held: dict[Path, Bank] = {}
        self._passes: defaultdict[Path, float] = defaultdict(float)
        """How often a bank's conversations have been seen, on average."""
        self._due = 0.0

    def draw(self) -> Bank:
        """A bank for the next step, the rather the less often it has been seen.

        One that comes late catches up little by little: the steps at its coming are not its alone.
        """
        if time.monotonic() >= self._due:
            self._refresh()
        paths = list(self._held)
        shares = [self._steps(path) / (1 + self._passes[path]) for path in paths]
        (path,) = random.choices(paths, weights=shares)
        self._passes[path] += 1 / self._steps(path)
        return self._held[path]

    def _steps(self, path: Path) -> float:
        """How many steps a pass over a bank takes."""
        conversations, positions, _ = self._held[path].tokens.shape
        return conversations / self._rows(positions)

    def seen(self) -> str:
        """How many banks there are, and how often they have been seen."""
        passes = [self._passes[path] for path in self._held]
        return f"{len(passes)} banks, seen {min(passes):.1f} to {max(passes):.1f} times"

    def _refresh(self) -> None:
        self._due = time.monotonic() + REFRESH_S
        paths = sorted(self._folder.glob("*.pt"))
        if not paths:
            raise click.ClickException(f"{self._folder} is empty: run the stage `encode` first.")
        self._held = {path: self._held.get(path) or Bank.load(path, self._device) for path in paths}
