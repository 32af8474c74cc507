"""Drawing every row's token on a CUDA card in one launch. Its twin is `draw_plainly` in `drawing.py`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from core.engine.architecture import STREAMS

GOLDEN: tl.constexpr = tl.constexpr(0x9E3779B97F4A7C15)


@triton.jit
def _scramble(x):  # type: ignore[no-untyped-def]
    """The finaliser of SplitMix64."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit  # type: ignore[untyped-decorator]
def _draw(  # type: ignore[no-untyped-def]
    logits_pointer,
    temperature_pointer,
    top_k_pointer,
    seed_pointer,
    position_pointer,
    out_pointer,
    card,
    stream,
    STREAMS: tl.constexpr,
    PADDED: tl.constexpr,
):
    row = tl.program_id(0)
    token = tl.arange(0, PADDED)
    real = token < card
    temperature = tl.load(temperature_pointer + row)
    logits = tl.load(logits_pointer + row.to(tl.int64) * card + token, mask=real, other=-float("inf"))
    scaled = logits / tl.where(temperature == 0, 1.0, temperature)
    # The k-th largest, found bit by bit in an order-preserving integer form of float32.
    bits = scaled.to(tl.int32, bitcast=True)
    order = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    top_k = tl.minimum(tl.load(top_k_pointer + row), card)
    # One number in 64 bits, as the highest bit's step leaves 32; what it is held against has 32, which is faster.
    least = tl.full((), -(1 << 31), dtype=tl.int64)
    for bit in tl.static_range(31, -1, -1):
        higher = least + (1 << bit)
        least = tl.where(tl.sum((order >= higher.to(tl.int32)).to(tl.int32)) >= top_k, higher, least)
    seed = tl.load(seed_pointer + row).to(tl.uint64)
    position = tl.load(position_pointer + row).to(tl.uint64)
    key = _scramble(seed + _scramble(position * STREAMS + stream))
    noise = _scramble(key + GOLDEN * (token + 1).to(tl.uint64))
    uniform = ((noise >> 41).to(tl.float32) + 0.5) * 1.1920928955078125e-07
    gumbel = -tl.log(-tl.log(uniform))
    score = scaled + tl.where(temperature == 0, 0.0, gumbel)
    tl.store(out_pointer + row, tl.argmax(tl.where((order >= least.to(tl.int32)) & real, score, -float("inf")), axis=0))


def draw(logits: Tensor, temperature: Tensor, top_k: Tensor, seed: Tensor, position: Tensor, stream: int) -> Tensor:
    """int64[rows] from float32[rows, card]; the others are one value a row."""
    rows, card = logits.shape
    out = torch.empty(rows, dtype=torch.int64, device=logits.device)
    padded = triton.next_power_of_2(card)
    warps = 8 if padded <= 4096 else 32
    _draw[(rows,)](
        logits, temperature, top_k, seed, position, out, card, stream, STREAMS=STREAMS, PADDED=padded, num_warps=warps
    )
    return out
