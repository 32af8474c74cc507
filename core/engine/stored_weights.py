"""The tensors of a safetensors file, of which matrices may be in 8 or in 4 bits.

Moshi's quantized checkpoints have the layout of 8 bits, too (`moshi.utils.quantize`): beside the int8 matrix `NAME`
stand the largest magnitudes of its rows as `NAME_scb`, float32[rows]. A weight is its integer times the magnitude over
127. That of 4 bits is MLX's (`mlx.core.quantize`): beside the matrix `NAME.weight`, eight weights in a uint32, stand
`NAME.scales` and `NAME.biases` of every 32 weights of a row.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from core.engine.quantization import (
    GROUP,
    INT8_MAX,
    NIBBLES,
    dequantize,
    dequantize_4_bits,
    quantize,
    quantize_4_bits,
)
from core.errors import CheckpointError

MAGNITUDES = "_scb"
"""What the name of a matrix's magnitudes ends with."""
WEIGHT, SCALES, BIASES = ".weight", ".scales", ".biases"
"""What the names of a matrix in 4 bits and of what stands beside it end with."""
FLOATING = ("F64", "F32", "F16", "BF16")
"""The floating-point dtypes that may be stored, as safetensors calls them."""
SHOWN_PROBLEMS = 8
"""Problems that an error names; of more it says how many there are."""


class StoredWeights:
    """An open file.

    `names` are its tensors', without those that stand beside a matrix of few bits; `problems` says what is wrong with
    them.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        dtypes = {name: file.get_slice(name).get_dtype() for name in sorted(file.keys())}
        self.quantized = {name for name, dtype in dtypes.items() if dtype == "I8"}
        self._packed = {name for name, dtype in dtypes.items() if dtype == "U32" and name.endswith(WEIGHT)}
        self._beside = {name: [name + MAGNITUDES] for name in self.quantized}
        self._beside |= {name: [stem_of(name) + SCALES, stem_of(name) + BIASES] for name in self._packed}
        self.names = dtypes.keys() - {name for names in self._beside.values() for name in names}
        self.problems = [
            f"{name} has the dtype {dtype}, not {' or '.join(FLOATING)}"
            for name, dtype in dtypes.items()
            if dtype not in FLOATING and name not in self._beside
        ]
        for name, others in sorted(self._beside.items()):
            shape, few = self.shape(name), name in self._packed
            wanted = [*shape[:1], *(columns // GROUP for columns in shape[1:])] if few else shape[:1]
            bits, each = (4, f"every {GROUP} weights") if few else (8, "each")
            if few and shape and shape[-1] % GROUP:
                self.problems.append(
                    f"{name} has 4 bits, and rows of {shape[-1]} weights, which are no groups of {GROUP}"
                )
            elif len(shape) != 2 or any(
                dtypes.get(other) not in FLOATING or self.shape(other) != wanted for other in others
            ):
                self.problems.append(
                    f"{name} has {bits} bits, and no {' or '.join(others)} has a number for {each} of its rows"
                )

    def shape(self, name: str) -> list[int]:
        """The shape of a tensor; a matrix has as many columns as it has weights in a row."""
        shape: list[int] = self._file.get_slice(name).get_shape()
        return [*shape[:-1], NIBBLES * shape[-1]] if name in self._packed and shape else shape

    def rows(self, name: str, count: int) -> Tensor:
        """The first rows of a tensor; bfloat16 where it has fewer bits, so that it is the same on every device, and
        CPUs can pack it."""
        if name in self._packed:
            stored = (self._file.get_slice(one)[:count] for one in (name, *self._beside[name]))
            return dequantize_4_bits(*stored).to(torch.bfloat16)
        if name in self.quantized:
            return dequantize(*self.integers(name, count), torch.float32).to(torch.bfloat16)
        rows: Tensor = self._file.get_slice(name)[:count]
        return rows

    def integers(self, name: str, count: int) -> tuple[Tensor, Tensor]:
        """The first rows of a matrix that has 8 bits, int8[count, columns], and their scales, float32[count]."""
        integers, magnitudes = (self._file.get_slice(stored)[:count] for stored in (name, name + MAGNITUDES))
        return integers, magnitudes.float() / INT8_MAX

    def tensor(self, name: str) -> Tensor:
        """A whole tensor, of any shape, as `rows` gives it."""
        if name in self._beside:
            return self.rows(name, self.shape(name)[0])
        tensor: Tensor = self._file.get_tensor(name)
        return tensor


def stem_of(name: str) -> str:
    """The name of a matrix in 4 bits without its ending."""
    return name.removesuffix(WEIGHT)


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
    """All tensors of a file, those in 8 or 4 bits as bfloat16.

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


def in_few_bits(tensors: Mapping[str, Tensor], in_4_bits: Callable[[str], bool] = lambda _: False) -> dict[str, Tensor]:
    """What to store of some tensors so that matrices, `[rows, columns]`, take 8 bits a weight, and 5 with all that
    stands beside them where `in_4_bits` says so of their names and rows divide into groups of 32; others stay."""
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dim() != 2:
            stored[name] = tensor
        elif in_4_bits(name) and name.endswith(WEIGHT) and tensor.shape[1] % GROUP == 0:
            stored[name], stored[stem_of(name) + SCALES], stored[stem_of(name) + BIASES] = quantize_4_bits(tensor)
        else:
            stored[name], scale = quantize(tensor)
            stored[name + MAGNITUDES] = scale * INT8_MAX
    return stored
