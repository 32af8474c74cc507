"""What is heard of callers who say nothing, in codes: rooms, music, typing, and the noise of their microphones.

Conversations that are laid out of lines in codes have it between the lines, where otherwise all would be silent.
"""

import fcntl
from pathlib import Path
from random import Random

import click
import numpy as np
import torch
from moshi.models.compression import MimiModel

from core.engine.call import FRAME_SAMPLES
from training.acoustics import WORLDS, around
from training.encoded import Codes
from training.whole_files import whole_file

STRETCHES, SMALL_STRETCHES = (24, 1600), (2, 96)
"""Stretches in each of WORLDS and the frames of each, more than a long conversation has; and those of a rehearsal."""
AT_ONCE = 4
"""Stretches that are encoded at a time."""
FILE = "ambience.npy"


def make_ambience(folder: Path, mimi: MimiModel, device: torch.device, rows: int, frames: int) -> None:
    """Write `ambience.npy`, int16[worlds, rows, frames, 8], unless it is there.

    Of several processes one does it, which takes it a minute, and the others return at once: they may look again, if
    that one should be ended before.
    """
    with (folder / f"{FILE}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if has_ambience(folder):
            return
        made = np.stack([_encoded(mimi, device, world, rows, frames) for world in range(len(WORLDS))])
        with whole_file(folder / FILE) as part, part.open("wb") as file:
            np.save(file, made)


def has_ambience(folder: Path) -> bool:
    """Whether somebody has made it."""
    return (folder / FILE).exists()


def read_ambience(folder: Path) -> Codes:
    """What `make_ambience` has written; none of it is read before it is used.

    Raises ClickException where nobody has.
    """
    if not has_ambience(folder):
        raise click.ClickException(f"{folder / FILE} is missing: run the stage `encode --lines`.")
    codes: Codes = np.load(folder / FILE, mmap_mode="r")
    return codes


def stretch(ambience: Codes, rng: Random, world: int, frames: int) -> Codes:
    """Any stretch of one of the worlds, int16[frames, 8]; it begins anew where it is at an end."""
    _, rows, most, _ = ambience.shape
    places = (rng.randrange(max(1, most - frames + 1)) + np.arange(frames)) % most
    found: Codes = ambience[world, rng.randrange(rows)][places]
    return found


@torch.inference_mode()
def _encoded(mimi: MimiModel, device: torch.device, world: int, rows: int, frames: int) -> Codes:
    generator = torch.Generator(device).manual_seed(world)
    made = []
    for first in range(0, rows, AT_ONCE):
        quiet = torch.zeros(min(AT_ONCE, rows - first), frames * FRAME_SAMPLES, device=device)
        heard = around(quiet, quiet, generator, torch.full((len(quiet),), world, device=device))
        made.append(mimi.encode(heard[:, None]).transpose(1, 2).to(torch.int16).cpu().numpy())
    return np.concatenate(made)
