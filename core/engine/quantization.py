"""Vectors in 8 bits: integers from -127 to 127, with a scale for each vector. And in 4 bits, for storage alone."""

import torch
from torch import Tensor

INT8_MAX = 127
LEAST_MAGNITUDE = 1e-30
"""What counts as the largest magnitude of a vector of zeros, so that its scale is not zero."""
NIBBLE_MAX, NIBBLES = 15, 8
"""The largest of the integers of 4 bits, and how many of them are in 32 bits."""
GROUP = 32
"""Neighbouring weights in 4 bits that have a scale in common."""
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


def quantize_4_bits(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Quantize a matrix, `[rows, columns]`, to uint32[rows, columns / 8] and, of every 32 weights of a row, the scale
    and the least weight, float16[rows, columns / 32] each.

    Of a word of 32 bits the lowest 4 are of the first weight. A weight is its integer times the scale, plus the least.
    """
    groups = x.float().view(len(x), x.shape[1] // GROUP, GROUP)
    least, most = groups.aminmax(dim=-1, keepdim=True)
    scale = ((most - least) / NIBBLE_MAX).clamp(min=torch.finfo(torch.float16).tiny).half()
    least = least.half()
    integers = ((groups - least) / scale).round().clamp(0, NIBBLE_MAX).to(torch.uint8).flatten(1)
    packed = (integers[:, ::2] | integers[:, 1::2] << 4).contiguous().view(torch.uint32)
    return packed, scale[..., 0], least[..., 0]


def dequantize_4_bits(packed: Tensor, scale: Tensor, least: Tensor) -> Tensor:
    """What `quantize_4_bits` has made of a matrix, float32[rows, columns]."""
    octets = packed.contiguous().view(torch.uint8)
    integers = torch.stack([octets & NIBBLE_MAX, octets >> 4], dim=-1).flatten(1)
    groups = integers.view(*scale.shape, GROUP).float()
    return (groups * scale.float()[..., None] + least.float()[..., None]).flatten(1)


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
