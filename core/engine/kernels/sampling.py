"""Sampling of every row's token on a GPU, in one launch."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from core.engine.architecture import STREAMS

GOLDEN: tl.constexpr = tl.constexpr(0x9E3779B97F4A7C15)
"""SplitMix64's increment."""


@triton.jit
def _splitmix(x):  # type: ignore[no-untyped-def]
    """The finaliser of SplitMix64."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit  # type: ignore[untyped-decorator]
def _sample(  # type: ignore[no-untyped-def]
    logits_pointer,
    temperature_pointer,
    top_k_pointer,
    seed_pointer,
    position_pointer,
    out_pointer,
    vocab_size,
    stream,
    STREAMS: tl.constexpr,
    PADDED: tl.constexpr,
):
    """Sample the token of one row."""
    row = tl.program_id(0)
    token = tl.arange(0, PADDED)
    inside = token < vocab_size
    temperature = tl.load(temperature_pointer + row)
    logits = tl.load(logits_pointer + row.to(tl.int64) * vocab_size + token, mask=inside, other=-float("inf"))
    scaled = logits / tl.where(temperature == 0, 1.0, temperature)
    # The k-th largest, found bit by bit in an order-preserving integer form of float32.
    bits = scaled.to(tl.int32, bitcast=True)
    order = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    top_k = tl.minimum(tl.load(top_k_pointer + row), vocab_size)
    # The bound needs 64 bits, as the highest bit's step leaves 32; it is compared in 32 bits, which is faster.
    least = tl.full((), -(1 << 31), dtype=tl.int64)
    for bit in tl.static_range(31, -1, -1):
        higher = least + (1 << bit)
        least = tl.where(tl.sum((order >= higher.to(tl.int32)).to(tl.int32)) >= top_k, higher, least)
    seed = tl.load(seed_pointer + row).to(tl.uint64)
    position = tl.load(position_pointer + row).to(tl.uint64)
    key = _splitmix(seed + _splitmix(position * STREAMS + stream))
    noise = _splitmix(key + GOLDEN * (token + 1).to(tl.uint64))
    uniform = ((noise >> 41).to(tl.float32) + 0.5) * 1.1920928955078125e-07
    gumbel = -tl.log(-tl.log(uniform))
    score = scaled + tl.where(temperature == 0, 0.0, gumbel)
    tl.store(
        out_pointer + row, tl.argmax(tl.where((order >= least.to(tl.int32)) & inside, score, -float("inf")), axis=0)
    )


def sample(logits: Tensor, temperature: Tensor, top_k: Tensor, seed: Tensor, position: Tensor, stream: int) -> Tensor:
    """Compute what `reference_sample` in `core.engine.sampler` does, with the noise of `gumbel_noise` for one stream.

    `logits`: float32[rows, vocab_size]; the other tensors have one value a row. Returns int64[rows].
    """
    rows, vocab_size = logits.shape
    out = torch.empty(rows, dtype=torch.int64, device=logits.device)
    padded = triton.next_power_of_2(vocab_size)
    warps = 8 if padded <= 4096 else 32
    _sample[(rows,)](
        logits, temperature, top_k, seed, position, out, vocab_size, stream,
        STREAMS=STREAMS, PADDED=padded, num_warps=warps,
    )  # fmt: skip
    return out
