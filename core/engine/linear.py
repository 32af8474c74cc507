"""Linear layers of the model, with weights in the model's dtype or in 8 bits."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.engine.quantization import pair, quantize, unpair

HALF_ERROR = 2.0**-25
"""By how much float16 changes a number below 2^-14 at most."""
QUANTIZED_ROWS = 4096
"""Rows of a checkpoint's tensor that are quantized at a time, so that a copy in its own dtype stays small."""


def empty_parameter(*shape: int, device: torch.device, dtype: torch.dtype) -> nn.Parameter:
    """An uninitialised parameter, to be filled from a checkpoint."""
    return nn.Parameter(torch.empty(shape, device=device, dtype=dtype), requires_grad=False)


@dataclass(frozen=True)
class WeightFormat:
    """How a model's weights are stored: the device, the dtype, and whether the large matrices have 8 bits."""

    device: torch.device
    dtype: torch.dtype
    int8: bool = False

    def linear(self, in_features: int, out_features: int, steps: int = 1) -> "Linear":
        """One of the large linear layers, which have 8-bit weights where the format says so."""
        kind = Int8Linear if self.int8 else Linear
        return kind(in_features, out_features, self, steps)


class Linear(nn.Module):
    """`steps` linear layers without bias, their weights stacked along the rows as checkpoints store them.

    Each maps `[batch, (time,) in_features]` to `[batch, (time,) out_features]`.
    """

    def __init__(self, in_features: int, out_features: int, weight_format: WeightFormat, steps: int = 1) -> None:
        super().__init__()
        self.out_features = out_features
        shape = steps * out_features, in_features
        self.weight = empty_parameter(*shape, device=weight_format.device, dtype=weight_format.dtype)
        self.scale: Tensor | None = None
        self._packed: list[Tensor] = []
        """The weights of each step as `packed_half` has them, where `fits_half` is true."""
        self._zeros = torch.zeros(0)
        """The bias that FBGEMM is given then."""

    def pack(self) -> None:
        """Keep the weights in `_packed` alone, where they fit; call it once they are loaded."""
        if fits_half(self.weight):
            self._packed = [packed_half(weight) for weight in torch.split(self.weight, self.out_features)]
            self._zeros = self.weight.new_zeros(self.out_features)
            self.weight = nn.Parameter(self.weight.new_empty(0, self.weight.shape[1]), requires_grad=False)

    def forward(
        self,
        x: Tensor,
        step: int = 0,
        *,
        gated: bool = False,
        residual: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Apply the layer of one step, with the options that `reference_linear` describes."""
        if self._packed:
            y = torch.fbgemm_linear_fp16_weight_fp32_activation(x, self._packed[step], self._zeros)
            return finished(y, gated, residual, out)
        rows = slice(step * self.out_features, (step + 1) * self.out_features)
        weight, scale = self.weight[rows], None if self.scale is None else self.scale[rows]
        linear = fused_linear if has_one_position(x) or scale is not None else reference_linear
        return linear(x, weight, scale, gated=gated, residual=residual, out=out)


def has_one_position(x: Tensor) -> bool:
    """Whether `[batch, (time,) channels]` is one position a row, as in a step.

    A prefill has many positions a row; there the libraries' kernels are faster than the engine's.
    """
    return x.dim() == 2 or x.shape[1] == 1


class Int8Linear(Linear):
    """`Linear` with 8-bit weights and one float32 scale for each output: half the bytes of bfloat16 to read.

    A weight is its integer times the scale of its row, which is the row's largest magnitude over 127. The integers are
    stored in pairs, as `pair` arranges them. Activations keep their dtype.
    """

    scale: Tensor

    def __init__(self, in_features: int, out_features: int, weight_format: WeightFormat, steps: int = 1) -> None:
        super().__init__(in_features, out_features, WeightFormat(weight_format.device, torch.int8), steps)
        self.scale = torch.empty(steps * out_features, device=weight_format.device, dtype=torch.float32)

    def quantize(self, weight: Tensor) -> None:
        """Fill the layer from a checkpoint's tensor, some rows at a time."""
        for start in range(0, len(weight), QUANTIZED_ROWS):
            rows = slice(start, start + QUANTIZED_ROWS)
            integers, self.scale[rows] = quantize(weight[rows].to(self.weight.device))
            self.weight.data[rows] = pair(integers)

    def fill(self, integers: Tensor, scale: Tensor) -> None:
        """Fill the layer from what is quantized already: int8[steps * out_features, in_features], and its scales."""
        self.weight.data.copy_(pair(integers))
        self.scale.copy_(scale)


def fused_linear(x: Tensor, weight: Tensor, scale: Tensor | None = None, **options: Any) -> Tensor:
    """Compute what `reference_linear` does; on a GPU, in one launch of a kernel made for few rows of activations."""
    if x.is_cuda:
        from core.engine.kernels.matmul import linear  # Triton comes with torch's CUDA builds only

        return linear(x, weight, scale, **options)
    return reference_linear(x, weight, scale, **options)


def reference_linear(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None = None,
    *,
    gated: bool = False,
    residual: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """A linear layer with what comes after it, in plain torch: `[..., in_features] -> [..., out_features]`.

    `weight` is `[out_features, in_features]`, either of the dtype of `x` or int8, in pairs, with `scale`,
    float32[out_features]. After the matmul come, in this order: `gated`, where the first half of the outputs, through
    SiLU, multiplies the second half; and the addition of `residual`. The result is written to `out` where it is given.
    """
    y = F.linear(x, weight) if scale is None else (F.linear(x.float(), unpair(weight).float()) * scale).to(x.dtype)
    return finished(y, gated, residual, out)


def finished(y: Tensor, gated: bool, residual: Tensor | None, out: Tensor | None) -> Tensor:
    """What comes after the matmul of `reference_linear`."""
    if gated:
        gate, value = y.chunk(2, dim=-1)
        y = F.silu(gate) * value
    if residual is not None:
        y = residual + y
    return y if out is None else out.copy_(y)


def fits_half(weight: Tensor) -> bool:
    """Whether FBGEMM can have a matrix in float16 and multiply it by float32 activations, with sums in float32.

    A step on a CPU is bound by reading its weights, of which float16 is half. This is so on x86 CPUs, for float32
    matrices that float16 changes by less than the sums round. Weights that come from bfloat16, which has fewer digits,
    are of this kind: only those below 2^-14 change, by 2^-25 at most.
    """
    has_fbgemm = torch.backends.quantized.engine in ("x86", "fbgemm") and hasattr(torch, "fbgemm_pack_gemm_matrix_fp16")
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not has_fbgemm:
        return False
    return bool(((weight.half() - weight).abs() <= HALF_ERROR).all())


def packed_half(weight: Tensor) -> Tensor:
    """A matrix in float16, arranged for `torch.fbgemm_linear_fp16_weight_fp32_activation`.

    Torch warns, at the first use, that these two functions are deprecated. `torch.ops.quantized.linear_dynamic_fp16`,
    which it does not warn of, makes the same numbers, but its call takes 14 us longer: as long as a matmul of a step.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        packed = torch.fbgemm_pack_gemm_matrix_fp16(weight)
        torch.fbgemm_linear_fp16_weight_fp32_activation(weight[:1], packed, weight.new_zeros(len(weight)))
    return packed
