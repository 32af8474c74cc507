"""The rotary embedding inside Triton kernels; `core.engine.rotary` has the same in plain torch."""

import triton
import triton.language as tl


@triton.jit
def rotate_pairs(even, odd, cos, sin):  # type: ignore[no-untyped-def]
    """Rotate pairs of neighbouring channels, given as their even and their odd ones; returns them interleaved again."""
    return tl.interleave(even * cos - odd * sin, even * sin + odd * cos)
