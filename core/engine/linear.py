"""Matrices of the model: plain, or with 8-bit weights."""

from dataclasses import dataclass
from typing import Any

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

    def matrix(self, columns: int, rows: int, steps: int = 1) -> "Linear":
        """A matrix of the large kind."""
        return Int8Linear(columns, rows, self, steps) if self.int8 else Linear(columns, rows, self, steps)


class Linear(nn.Module):
    """`steps` matrices without bias, stacked as checkpoints stack them: `[batch, (time,) columns] -> [..., rows]`."""

    def __init__(self, columns: int, rows: int, held: WeightFormat, steps: int = 1) -> None:
        super().__init__()
        self.rows = rows
        self.weight = empty(steps * rows, columns, device=held.device, dtype=held.dtype)
        self.scale: Tensor | None = None

    def forward(
        self,
        x: Tensor,
        step: int = 0,
        *,
        gated: bool = False,
        residual: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """The product with one of the matrices, and what `linear_plainly` says."""
        some = slice(step * self.rows, (step + 1) * self.rows)
        weight, scale = self.weight[some], None if self.scale is None else self.scale[some]
        product = fast_linear if has_one_position(x) or scale is not None else linear_plainly
        return product(x, weight, scale, gated=gated, residual=residual, out=out)


def has_one_position(x: Tensor) -> bool:
    """Whether `[batch, (time,) channels]` is a step's. A prompt's piece has many, where libraries are faster."""
    return x.dim() == 2 or x.shape[1] == 1


class Int8Linear(Linear):
    """The same with 8-bit weights and one scale a row: half the bytes of bfloat16 to read.

    A weight is its integer times its row's scale, which is the row's largest magnitude over 127. Activations keep their
    dtype.
    """

    scale: Tensor

    def __init__(self, columns: int, rows: int, held: WeightFormat, steps: int = 1) -> None:
        super().__init__(columns, rows, WeightFormat(held.device, torch.int8), steps)
        self.scale = torch.empty(steps * rows, device=held.device, dtype=torch.float32)

    def round(self, weight: Tensor) -> None:
        """Take over a checkpoint's tensor, a part at a time, so that little of it is on the card as it was."""
        for start in range(0, len(weight), ROUNDED_ROWS):
            some = slice(start, start + ROUNDED_ROWS)
            rows = weight[some].to(self.weight.device).float()
            scale = rows.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / INT8_MAX
            self.scale[some] = scale
            self.weight.data[some] = (rows / scale[:, None]).round().to(torch.int8)


def fast_linear(x: Tensor, weight: Tensor, scale: Tensor | None = None, **how: Any) -> Tensor:
    """What `linear_plainly` says; on a card by a kernel that is made for few lines."""
    if x.is_cuda:
        from core.engine.kernels.matmul import linear  # Triton comes with torch's CUDA builds only

        return linear(x, weight, scale, **how)
    return linear_plainly(x, weight, scale, **how)


def linear_plainly(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None = None,
    *,
    centred: bool = False,
    epsilon: float = 0.0,
    gated: bool = False,
    bias: Tensor | None = None,
    gelu: bool = False,
    residual: Tensor | None = None,
    out: Tensor | None = None,
    elu: Tensor | None = None,
) -> Tensor:
    """`[..., columns] -> [..., rows]` for `weight`: `[rows, columns]`, of x's dtype, or int8 and float32[rows] `scale`.

    Before the product: `centred`, a layer norm with `epsilon` whose own weights are in the matrix. After it, in this
    order: `bias`; `gated`, where the first half of the rows, through SiLU, weighs the second; `gelu`; `residual` is
    added. The result goes to `out` and, through ELU, to `elu`, where they are given.
    """
    if centred:
        x = F.layer_norm(x, (x.shape[-1],), eps=epsilon)
    if scale is not None:
        y = (F.linear(x.float(), weight.float(), bias) * scale).to(x.dtype)
    else:
        y = F.linear(x, weight, bias)
    if gated:
        gate, value = y.chunk(2, dim=-1)
        y = F.silu(gate) * value
    if gelu:
        y = F.gelu(y)
    if residual is not None:
        y = residual + y
    if elu is not None:
        elu.copy_(F.elu(y))
    return y if out is None else out.copy_(y)
