"""The depformer's attention on a CUDA card, in one launch. Its twin is `attend_plainly` in `depformer.py`."""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]
    kept_pointer, out_pointer, batch_stride, codebook_stride, codebook, scale,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, CODEBOOKS: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(0)
    head = tl.program_id(1)
    dim = tl.num_programs(1) * WIDTH
    channel = tl.arange(0, PADDED)
    before = tl.arange(0, CODEBOOKS)
    real = channel < WIDTH
    visible = (before <= codebook)[:, None] & real[None, :]
    query_at = kept_pointer + batch * batch_stride + head * WIDTH + channel
    key_at = query_at[None, :] + before[:, None] * codebook_stride + dim
    query = tl.load(query_at + codebook * codebook_stride, mask=real, other=0.0).to(tl.float32)
    keys = tl.load(key_at, mask=visible, other=0.0).to(tl.float32)
    values = tl.load(key_at + dim, mask=visible, other=0.0).to(tl.float32)
    scores = tl.where(before <= codebook, tl.sum(keys * query[None, :], axis=1) * scale, -float("inf"))
    weights = tl.exp(scores - tl.max(scores))
    out = tl.sum(values * weights[:, None], axis=0) / tl.sum(weights)
    tl.store(out_pointer + batch * dim + head * WIDTH + channel, out.to(out_pointer.dtype.element_ty), mask=real)


def attend(kept: Tensor, codebook: int, heads: int) -> Tensor:
    """`kept`: `[batch, codebook, 3 * dim]`, filled up to `codebook`; returns `[batch, dim]`."""
    batch, codebooks, width = len(kept), kept.shape[1], kept.shape[2] // (3 * heads)
    out = torch.empty(batch, heads * width, device=kept.device, dtype=kept.dtype)
    _attend[(batch, heads)](
        kept, out, kept.stride(0), kept.stride(1), codebook, width**-0.5,
        WIDTH=width, PADDED=triton.next_power_of_2(width), CODEBOOKS=codebooks,
        num_warps=1,
    )  # fmt: skip
    return out
