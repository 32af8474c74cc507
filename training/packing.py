"""`lm.pt` in pieces small enough to be sent where files must be: its mean weights, rounded as an export's are.

To go on needs no more: the optimiser's momenta last for some twenty steps, and each run warms up for ten times as many.
"""

from pathlib import Path

import click
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.lm import TrainingState
from training.schedule import save_atomically

PIECE_BYTES = 15_000_000
PIECES = "lm-*.safetensors"


def pack(path: Path, target: Path) -> list[Path]:
    """Write the mean weights of the language model at `path` into files in `target`, where older ones are deleted."""
    state: TrainingState = torch.load(path, map_location="cpu", weights_only=True)
    pieces: list[dict[str, Tensor]] = [{}]
    for name, tensor in state["mean"].items():
        tensor = tensor.to(torch.bfloat16)
        if sum(map(bytes_of, pieces[-1].values())) + bytes_of(tensor) > PIECE_BYTES:
            pieces.append({})
        pieces[-1][name] = tensor
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob(PIECES):
        old.unlink()
    paths = [target / PIECES.replace("*", str(number)) for number in range(len(pieces))]
    for piece, written in zip(pieces, paths, strict=True):
        save_file(piece, written, {"steps": str(state["steps"]), "pieces": str(len(pieces))})
    return paths


def unpack(source: Path, path: Path) -> None:
    """Make the state at `path` of what `pack` has written into `source`: both the last weights and their mean."""
    paths = sorted(source.glob(PIECES))
    if not paths:
        raise click.ClickException(f"{source} has no {PIECES}: pack an lm.pt first.")
    weights: dict[str, Tensor] = {}
    for piece in paths:
        weights |= {name: tensor.float() for name, tensor in load_file(piece).items()}
    with safe_open(paths[0], framework="pt") as file:  # type: ignore[no-untyped-call]
        described: dict[str, str] = file.metadata()
    if len(paths) != int(described["pieces"]):
        raise click.ClickException(f"{source} has {len(paths)} of {described['pieces']} pieces: copy them all.")
    state: TrainingState = {"network": weights, "mean": weights, "steps": int(described["steps"])}
    save_atomically(path, dict(state))


def bytes_of(tensor: Tensor) -> int:
    """The memory that a tensor takes."""
    return tensor.numel() * tensor.element_size()
