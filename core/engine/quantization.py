"""Vectors in 8 bits: integers from -127 to 127, with a scale for each vector."""

import torch
from torch import Tensor

INT8_MAX = 127
LEAST_MAGNITUDE = 1e-30
"""What counts as the largest magnitude of a vector of zeros, so that its scale is not zero."""
PAIRED_FEATURES = 256
"""Input features of 8-bit weights that `pair` arranges together."""


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


def pair(weight: Tensor) -> Tensor:
    """Arrange 8-bit weights in pairs, as the matmul kernel reads them: int8[out_features, in_features] in and out.

    Of each 256 input features, a feature of the first half and one of the second are neighbours. A pair is loaded as
    one number of 16 bits, and the two halves are then multiplied one after the other. The last features may be fewer
    than 256, but must be even in number.
    """
    return _transpose_blocks(weight, (2, -1))


def unpair(weight: Tensor) -> Tensor:
    """Undo `pair`."""
    return _transpose_blocks(weight, (-1, 2))


def _transpose_blocks(weight: Tensor, shape: tuple[int, int]) -> Tensor:
    """Transpose each block of a row's input features, taken as a matrix of this shape."""
    whole = weight.shape[1] // PAIRED_FEATURES * PAIRED_FEATURES
    parts = weight[:, :whole].reshape(-1, PAIRED_FEATURES), weight[:, whole:]
    rows = len(weight)
    return torch.cat([part.reshape(len(part), *shape).mT.reshape(rows, -1) for part in parts if part.numel()], dim=1)
