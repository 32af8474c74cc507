"""The banks of a training folder, drawn so that none is seen much more often than others of its kind."""

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
TAKEN = 8
"""How many are taken in at a time, after the first: reading 78 MB takes a tenth of a second in which nothing is
learned, and mixed banks may come faster than they are learned from."""
MIXED = 0.5
"""The share of steps on mixed banks, where there are both kinds."""
MIXED_PREFIX = "mixed-"
"""How the file names of mixed banks begin."""


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
        """A bank for the next step, of either kind, the rather the less often it has been seen.

        One that comes late catches up little by little: the steps at its coming are not its alone.
        """
        if time.monotonic() >= self._due:
            self._refresh()
        encoded, mixed = self._kinds()
        paths = mixed if mixed and (not encoded or random.random() < MIXED) else encoded
        shares = [self._steps(path) / (1 + self._passes[path]) for path in paths]
        (path,) = random.choices(paths, weights=shares)
        self._passes[path] += 1 / self._steps(path)
        return self._held[path]

    def seen(self) -> str:
        """How many banks there are of each kind, and how often they have been seen."""
        told = []
        for name, paths in zip(("banks", "mixed banks"), self._kinds(), strict=True):
            if paths:
                passes = [self._passes[path] for path in paths]
                told.append(f"{len(passes)} {name}, seen {min(passes):.1f} to {max(passes):.1f} times")
        return "; ".join(told)

    def _kinds(self) -> tuple[list[Path], list[Path]]:
        """Banks that were encoded whole, and those that were mixed."""
        encoded = [path for path in self._held if not is_mixed(path)]
        return encoded, [path for path in self._held if is_mixed(path)]

    def _steps(self, path: Path) -> float:
        """How many steps a pass over a bank takes."""
        conversations, positions, _ = self._held[path].tokens.shape
        return conversations / self._rows(positions)

    def _refresh(self) -> None:
        """Forget what is gone, and take in what is new: encoded banks first, and any of the mixed ones."""
        self._due = time.monotonic() + REFRESH_S
        paths = set(self._folder.glob("*.pt"))
        new = sorted(paths - self._held.keys(), key=lambda path: (is_mixed(path), random.random()))
        new = new[: TAKEN if self._held else None]
        self._held = {path: bank for path, bank in self._held.items() if path in paths}
        for path in new:
            try:
                self._held[path] = Bank.load(path, self._device)
            except FileNotFoundError:
                continue  # It was deleted in this moment.
        if not self._held:
            raise click.ClickException(f"{self._folder} is empty: run the stage `encode` first.")


def is_mixed(path: Path) -> bool:
    """Whether a bank was mixed of lines in codes."""
    return path.name.startswith(MIXED_PREFIX)
