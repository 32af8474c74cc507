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


FLIPPED_BYTE = 0x4B000080
"""The bits of the float32 2^23, with the sign bit of the last byte set.

Kernels take it as an argument: were it a constant, the assembler would need one more instruction for each byte.
"""


@triton.jit
def words_to_float32(words, flipped_byte):  # type: ignore[no-untyped-def]
    """Convert int8 to float32, exactly: from int32[..., n], four in each, to float32[..., 4 * n].

    The conversion instruction has fewer units on a GPU than those used here. With its sign bit flipped, x is x + 128 in
    an unsigned byte, and that is the last byte of the float32 2^23 + 128 + x, and the last but one of 2^15 + 128 + x.
    One operation takes a byte out of a word, flips its sign bit and sets the bits of the power of two.
    """
    upper = words >> 16
    flipped_next = flipped_byte - (0x4B000080 - 0x47008000)  # the same of 2^15 and the last byte but one
    last = tl.interleave((words & 0xFF) ^ flipped_byte, (upper & 0xFF) ^ flipped_byte)
    next_to_last = tl.interleave((words & 0xFF00) ^ flipped_next, (upper & 0xFF00) ^ flipped_next)
    return tl.interleave(
        last.to(tl.float32, bitcast=True) - (2.0**23 + 128), next_to_last.to(tl.float32, bitcast=True) - (2.0**15 + 128)
    )


_BFLOAT16 = """{{
    .reg .b32 byte, magnitude, bias, one;
    shr.u32 byte, $1, {shift};
    lop3.b32 magnitude, byte, 0x007F007F, 0x43004300, 0xEA;  // (byte & 0x7F) | 128.0
    lop3.b32 bias, byte, 0x00800080, 0xC300C300, 0xEA;  // (byte & 0x80) | -128.0
    mov.b32 one, 0x3F803F80;
    fma.rn.bf16x2 $0, magnitude, one, bias;
}}"""
"""One byte of each of two int16, as two bfloat16.

The lower seven bits of a byte, as the last bits of 128 in bfloat16, make it 128 + those bits. The sign bit makes it 256
in the same place, so that 128 or 256 is what has to be subtracted. All of it is exact.
"""
FIRST_TO_BFLOAT16: tl.constexpr = tl.constexpr(_BFLOAT16.format(shift=0))
SECOND_TO_BFLOAT16: tl.constexpr = tl.constexpr(_BFLOAT16.format(shift=8))


@triton.jit  # type: ignore[untyped-decorator]
def first_of_pair(pair, dtype: tl.constexpr):  # type: ignore[no-untyped-def]
    """The low bytes of int16, each an int8, in a floating-point dtype, exactly."""
    if dtype == tl.bfloat16:
        return tl.inline_asm_elementwise(FIRST_TO_BFLOAT16, "=r,r", [pair], dtype=tl.bfloat16, is_pure=True, pack=2)
    return ((pair << 8) >> 8).to(dtype)


@triton.jit  # type: ignore[untyped-decorator]
def second_of_pair(pair, dtype: tl.constexpr):  # type: ignore[no-untyped-def]
    """The high bytes of int16, each an int8, in a floating-point dtype, exactly."""
    if dtype == tl.bfloat16:
        return tl.inline_asm_elementwise(SECOND_TO_BFLOAT16, "=r,r", [pair], dtype=tl.bfloat16, is_pure=True, pack=2)
    return (pair >> 8).to(dtype)
