"""Mimi's matmuls, with what comes before and after them: linear layers, and convolutions as windows that slide on."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def fused_linear(x: Tensor, weight: Tensor, **options: Any) -> Tensor:
    """Compute what `reference_linear` does; on a GPU, in one launch."""
    if x.is_cuda:
        from core.engine.kernels.mimi_matmul import linear  # Triton comes with torch's CUDA builds only

        return linear(x, weight, **options)
    return reference_linear(x, weight, **options)


def packed(weight: Tensor) -> Tensor:
    """A matrix laid out for `reference_linear` on this CPU, so that it is not rearranged at every call.

    It is as it was for a GPU, and where torch has no oneDNN.
    """
    if weight.is_cuda or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return weight
    arranged: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return arranged


def reference_linear(
    x: Tensor,
    weight: Tensor,
    *,
    centred: bool = False,
    epsilon: float = 0.0,
    bias: Tensor | None = None,
    gelu: bool = False,
    residual: Tensor | None = None,
    out: Tensor | None = None,
    elu: Tensor | None = None,
) -> Tensor:
    """A linear layer with what surrounds it, in plain torch: `[..., in_features] -> [..., out_features]`.

    `weight` is `[out_features, in_features]`, as it is or `packed`. `centred` normalizes `x` first, as a layer norm
    with `epsilon` whose own weights are folded into the matrix. After the matmul come, in this order: `bias`; `gelu`;
    and the addition of `residual`. The result is written to `out` and, through ELU, to `elu`, where these are given.
    """
    if centred:
        x = F.layer_norm(x, (x.shape[-1],), eps=epsilon)
    y: Tensor
    if weight.is_mkldnn:
        y = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu" if gelu else "none", [], "none")
    else:
        y = F.linear(x, weight, bias)
        y = F.gelu(y) if gelu else y
    if residual is not None:
        y = torch.add(residual, y, out=out)
    elif out is not None:
        y = out.copy_(y)
    if elu is not None:
        elu.copy_(F.elu(y))
    return y
