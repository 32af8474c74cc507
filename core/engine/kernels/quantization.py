"""Quantization inside Triton kernels; `core.engine.quantization` has the same in plain torch."""

import triton
import triton.language as tl

from core.engine.quantization import INT8_MAX as _INT8_MAX
from core.engine.quantization import LEAST_MAGNITUDE as _LEAST_MAGNITUDE

INT8_MAX: tl.constexpr = tl.constexpr(float(_INT8_MAX))
LEAST_MAGNITUDE: tl.constexpr = tl.constexpr(_LEAST_MAGNITUDE)
ROUNDING: tl.constexpr = tl.constexpr(1.5 * 2**23)
"""Where float32 has no more bits for fractions: adding it rounds small numbers to integers, halves to even ones."""


@triton.jit
def quantize(x):  # type: ignore[no-untyped-def]
    """Quantize one float32 vector: its components, integers but still in float32, and its scale."""
    scale = tl.div_rn(tl.maximum(tl.max(tl.abs(x)), LEAST_MAGNITUDE), INT8_MAX)
    return (tl.div_rn(x, scale) + ROUNDING) - ROUNDING, scale


@triton.jit
def to_float32(x):  # type: ignore[no-untyped-def]
    """Convert int8 to float32, exactly.

    The conversion instruction has fewer units on a GPU than those used here. With its sign bit flipped, x is
    x + 128 in an unsigned byte, and that is the last byte of the float32 2^23 + 128 + x.
    """
    beyond = x.to(tl.uint8, bitcast=True).to(tl.uint32) ^ 0x4B000080
    return beyond.to(tl.float32, bitcast=True) - (2.0**23 + 128)
