"""What was learned in files small enough to be sent elsewhere: mean weights, matrices in 8 bits.

A model of 41 million parameters takes 42 MB so: a machine that is lent may give back no more than some 64 MB at a time.
To go on needs no more: the optimiser's momenta last for some twenty steps, and each run warms up for ten times as many.
The language model is in pieces, a set of them for each packing. A set is written beside the older one, which is deleted
when the new one is whole: whenever it is interrupted, there is a whole one.
"""

import re
from collections import defaultdict
from pathlib import Path

import click
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.engine.quantization import dequantize, quantize
from training.lm import TrainingState
from training.schedule import save_atomically

PIECE_BYTES = 15_000_000
PIECES = "lm-*-*-of-*.safetensors"
_PIECE = re.compile(r"lm-(\d+)-(\d+)-of-(\d+)\.safetensors")
"""Steps, number of the piece, number of pieces."""
SCALE = ".scale"
"""What the name of the scales of a matrix's rows ends with."""
DECODER = "decoder.pt"


def pack(path: Path, target: Path) -> list[Path]:
    """Write the mean weights of the language model at `path` into files in `target`, where older ones are deleted."""
    state: TrainingState = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    pieces: list[dict[str, Tensor]] = [{}]
    for name, tensor in state["mean"].items():
        packed = {name: tensor}
        if tensor.dim() > 1:
            packed[name], packed[name + SCALE] = quantize(tensor)
        if sum(map(bytes_of, (*pieces[-1].values(), *packed.values()))) > PIECE_BYTES:
            pieces.append({})
        pieces[-1] |= packed
    target.mkdir(parents=True, exist_ok=True)
    for unfinished in target.glob(f"{PIECES}.part"):
        unfinished.unlink()
    paths = [target / f"lm-{state['steps']}-{number}-of-{len(pieces)}.safetensors" for number in range(len(pieces))]
    parts = [path.with_name(f"{path.name}.part") for path in paths]
    for piece, part in zip(pieces, parts, strict=True):
        save_file(piece, part, {"steps": str(state["steps"])})
    for part, path in zip(parts, paths, strict=True):
        part.replace(path)
    for old in set(target.glob(PIECES)) - set(paths):
        old.unlink()
    return paths


def pieces_in(source: Path) -> list[Path]:
    """The pieces of the whole set with the most steps in a folder, in order; raises ClickException if there is none."""
    sets: dict[tuple[int, int], dict[int, Path]] = defaultdict(dict)
    for path in source.glob(PIECES):
        if found := _PIECE.fullmatch(path.name):
            steps, number, count = map(int, found.groups())
            sets[steps, count][number] = path
    if not sets:
        raise click.ClickException(f"{source} has no {PIECES}: pack an lm.pt first.")
    for (_, count), pieces in sorted(sets.items(), reverse=True):
        if len(pieces) == count:
            return [pieces[number] for number in range(count)]
    (_, count), pieces = max(sets.items())
    raise click.ClickException(f"{source} has {len(pieces)} of {count} pieces: copy them all.")


def unpack(source: Path, path: Path) -> int:
    """Make the state at `path` of what `pack` has written into `source`: both the last weights and their mean.

    Returns the steps behind them.
    """
    weights: dict[str, Tensor] = {}
    pieces = pieces_in(source)
    for piece in pieces:
        packed = load_file(piece)
        for name, tensor in packed.items():
            if tensor.dtype == torch.int8:
                weights[name] = dequantize(tensor, packed[name + SCALE], torch.float32)
            elif not name.endswith(SCALE):
                weights[name] = tensor.float()
    with safe_open(pieces[0], framework="pt") as file:  # type: ignore[no-untyped-call]
        described: dict[str, str] = file.metadata()
    state: TrainingState = {"network": weights, "mean": weights, "steps": int(described["steps"])}
    save_atomically(path, dict(state))
    return state["steps"]


def pack_decoder(path: Path, target: Path) -> Path:
    """Write the mean of the decoder's weights of the codec at `path` into a file in `target`.

    The file is itself a `codec.pt` to go on from.
    """
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    mean = {name: tensor.to(torch.bfloat16) for name, tensor in state["mean"].items()}
    save_atomically(target / DECODER, {"mean": mean, "shape": state["shape"], "steps": state.get("steps", 0)})
    return target / DECODER


def bytes_of(tensor: Tensor) -> int:
    """The memory that a tensor takes."""
    return tensor.numel() * tensor.element_size()
