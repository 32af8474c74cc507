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
FLOATING = ("F64", "F32", "F16", "BF16")
"""The floating-point dtypes that may be stored, as safetensors calls them."""
SHOWN_PROBLEMS = 8
"""Problems that an error names; of more it says how many there are."""


class StoredWeights:
    """An open file. `names` are its tensors', without those of magnitudes; `problems` says what is wrong with them."""

    def __init__(self, file: Any) -> None:
        self._file = file
        dtypes = {name: file.get_slice(name).get_dtype() for name in sorted(file.keys())}
        self.quantized = {name for name, dtype in dtypes.items() if dtype == "I8"}
        self.names = dtypes.keys() - {name + MAGNITUDES for name in self.quantized}
        self.problems = [
            f"{name} has the dtype {dtype}, not {' or '.join(FLOATING)}"
            for name, dtype in dtypes.items()
            if dtype not in FLOATING and name not in self.quantized
        ] + [
            f"{name} has 8 bits, and no {name}{MAGNITUDES} has a number for each of its rows"
            for name in sorted(self.quantized)
            if len(self.shape(name)) != 2
            or name + MAGNITUDES not in dtypes
            or self.shape(name + MAGNITUDES) != self.shape(name)[:1]
        ]

    def shape(self, name: str) -> list[int]:
        """The shape of a tensor as it is stored."""
        shape: list[int] = self._file.get_slice(name).get_shape()
        return shape

    def rows(self, name: str, count: int) -> Tensor:
        """The first rows of a tensor; bfloat16 where it has 8 bits, so that it is the same on every device, and CPUs
        can pack it."""
        if name not in self.quantized:
            rows: Tensor = self._file.get_slice(name)[:count]
            return rows
        return dequantize(*self.integers(name, count), torch.float32).to(torch.bfloat16)

    def integers(self, name: str, count: int) -> tuple[Tensor, Tensor]:
        """The first rows of a matrix that has 8 bits, int8[count, columns], and their scales, float32[count]."""
        integers, magnitudes = (self._file.get_slice(stored)[:count] for stored in (name, name + MAGNITUDES))
        return integers, magnitudes.float() / INT8_MAX

    def tensor(self, name: str) -> Tensor:
        """A whole tensor, of any shape, as `rows` gives it."""
        if name in self.quantized:
            return self.rows(name, self.shape(name)[0])
        tensor: Tensor = self._file.get_tensor(name)
        return tensor


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
    """All tensors of a file, those in 8 bits as bfloat16.

    Raises CheckpointError when it is none or broken, or naming tensors that cannot be read.
    """
    with open_weights(path) as stored:
        raise_problems(path, stored.problems)
        return {name: stored.tensor(name) for name in sorted(stored.names)}


def raise_problems(path: Path, problems: list[str]) -> None:
    """Raise CheckpointError with the first of the problems, if there are any."""
    if problems:
        more = f"; and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        raise CheckpointError(f"{path} does not fit its config: {'; '.join(problems[:SHOWN_PROBLEMS])}{more}.")


def in_8_bits(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What to store of some tensors so that matrices, `[rows, columns]`, take 8 bits a weight; others stay.

    A matrix becomes int8 of its shape, beside float32[rows] of magnitudes.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dim() == 2:
            stored[name], scale = quantize(tensor)
            stored[name + MAGNITUDES] = scale * INT8_MAX
        else:
            stored[name] = tensor
    return stored
