"""Vectors in 8 bits: integers from -127 to 127, with a scale for each vector."""

import torch
from torch import Tensor

INT8_MAX = 127
LEAST_MAGNITUDE = 1e-30
"""What counts as the largest magnitude of a vector of zeros, so that its scale is not zero."""


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize the vectors of `[..., width]`: int8 of that shape, and their scales, float32[...].

    A component is its integer times the scale of its vector, which is the vector's largest magnitude over 127.
    """
    exact = x.float()
    scale = exact.abs().amax(dim=-1).clamp(min=LEAST_MAGNITUDE) / INT8_MAX
    return (exact / scale[..., None]).round().to(torch.int8), scale


def dequantize(x: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """What `quantize` has made of vectors, `[..., width]`, computed in `dtype`."""
    return x.to(dtype) * scale[..., None].to(dtype)
