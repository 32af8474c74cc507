"""Matrices of the model: plain, or with 8-bit weights."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INT8_MAX = 127
ROUNDED_ROWS = 4096
"""Rows of a checkpoint's tensor that are rounded at a time."""


def empty(*shape: int, device: torch.device, dtype: torch.dtype) -> nn.Parameter:
    """A parameter for a checkpoint's tensor to be written into."""
    return nn.Parameter(torch.empty(shape, device=device, dtype=dtype), requires_grad=False)


@dataclass(frozen=True)
class WeightFormat:
    """How weights are held: where, in what dtype, and whether the large matrices have 8 bits."""

    device: torch.device
    dtype: torch.dtype
    int8: bool = False

    def matrix(self, columns: int, rows: int, steps: int = 1) -> "Linear | Int8Linear":
        """A matrix of the large kind."""
        return Int8Linear(columns, rows, self, steps) if self.int8 else Linear(columns, rows, self, steps)


class Linear(nn.Module):
    """`steps` matrices without bias, stacked as checkpoints stack them: `[..., columns] -> [..., rows]`."""

    def __init__(self, columns: int, rows: int, held: WeightFormat, steps: int = 1) -> None:
        super().__init__()
        self.rows = rows
        self.weight = empty(steps * rows, columns, device=held.device, dtype=held.dtype)

    def forward(self, x: Tensor, step: int = 0) -> Tensor:
        return F.linear(x, self.weight[step * self.rows : (step + 1) * self.rows])


class Int8Linear(nn.Module):
    """The same with 8-bit weights and one scale a row: half the bytes of bfloat16 to read.

    A weight is its integer times its row's scale, which is the row's largest magnitude over 127. Activations keep their
    dtype.
    """

    def __init__(self, columns: int, rows: int, held: WeightFormat, steps: int = 1) -> None:
        super().__init__()
        self.rows = rows
        self.weight = empty(steps * rows, columns, device=held.device, dtype=torch.int8)
        self.scale: Tensor
        scale = torch.empty(steps * rows, device=held.device, dtype=torch.float32)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, x: Tensor, step: int = 0) -> Tensor:
        some = slice(step * self.rows, (step + 1) * self.rows)
        if x.is_cuda:
            from core.engine.int8_kernel import int8_linear  # Triton comes with torch's CUDA builds only

            return int8_linear(x, self.weight[some], self.scale[some])
        return int8_linear_plainly(x, self.weight[some], self.scale[some])

    def round(self, weight: Tensor) -> None:
        """Take over a checkpoint's tensor, a part at a time, so that little of it is on the card as it was."""
        for start in range(0, len(weight), ROUNDED_ROWS):
            some = slice(start, start + ROUNDED_ROWS)
            rows = weight[some].to(self.weight.device).float()
            scale = rows.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / INT8_MAX
            self.scale[some] = scale
            self.weight.data[some] = (rows / scale[:, None]).round().to(torch.int8)


def int8_linear_plainly(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """What the kernel computes, in plain torch: `x`: `[..., columns]`, int8[rows, columns], float32[rows]."""
    return (F.linear(x.float(), weight.float()) * scale).to(x.dtype)
