"""The tensors of a safetensors file, of which matrices may be in 8 bits.

Moshi's quantized checkpoints have this layout, too (`moshi.utils.quantize`): beside the int8 matrix `NAME` stand the
largest magnitudes of its rows as `NAME_scb`, float32[rows]. A weight is its integer times the magnitude over 127.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from core.engine.quantization import INT8_MAX, dequantize, quantize
from core.errors import CheckpointError

MAGNITUDES = "_scb"
"""What the name of a matrix's magnitudes ends with."""


class StoredWeights:
    """An open file. `names` are its tensors', without those of magnitudes; `problems` says what is wrong with them."""

    def __init__(self, file: Any) -> None:
        self._file = file
        stored = set(file.keys())
        self._quantized = {name for name in stored if file.get_slice(name).get_dtype() == "I8"}
        self.names = stored - {name + MAGNITUDES for name in self._quantized}
        self.problems = [
            f"{name} has 8 bits, and no {name}{MAGNITUDES} has a number for each of its rows"
            for name in sorted(self._quantized)
            if name + MAGNITUDES not in stored or self.shape(name + MAGNITUDES) != self.shape(name)[:1]
        ]

    def shape(self, name: str) -> list[int]:
        """The shape of a tensor as it is stored."""
        shape: list[int] = self._file.get_slice(name).get_shape()
        return shape

    def rows(self, name: str, count: int | None = None) -> Tensor:
        """The first rows of a tensor, or all; float32 where it has 8 bits."""
        tensor: Tensor = self._file.get_slice(name)[:count]
        if name not in self._quantized:
            return tensor
        magnitudes = self._file.get_slice(name + MAGNITUDES)[:count]
        return dequantize(tensor, magnitudes.float() / INT8_MAX, torch.float32)

    def nearest_bfloat16(self, name: str, count: int | None = None) -> Tensor:
        """The same, but bfloat16 where it has 8 bits: what such weights were made from, on every device alike."""
        tensor = self.rows(name, count)
        return tensor.to(torch.bfloat16) if name in self._quantized else tensor


@contextmanager
def open_weights(path: Path) -> Iterator[StoredWeights]:
    """Open a file for the time of a `with` block. Raises CheckpointError when it is none or broken."""
    with open_safetensors(path) as file:
        yield StoredWeights(file)


def open_safetensors(path: Path) -> Any:
    """Open a safetensors file as it is, memory-mapped. Raises CheckpointError when it is none or broken."""
    try:
        return safe_open(str(path), framework="pt")  # type: ignore[no-untyped-call]
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}. Fetch it again.") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, those in 8 bits as bfloat16. Raises CheckpointError when it is none or broken."""
    with open_weights(path) as stored:
        return {name: stored.nearest_bfloat16(name) for name in sorted(stored.names)}


def in_8_bits(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What to store of some tensors so that matrices, `[rows, columns]`, take 8 bits a weight; others stay."""
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dim() == 2:
            stored[name], scale = quantize(tensor)
            stored[name + MAGNITUDES] = scale * INT8_MAX
        else:
            stored[name] = tensor
    return stored
