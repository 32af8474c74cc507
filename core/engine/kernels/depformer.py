"""The depformer's attention on a GPU, in one launch."""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit  # type: ignore[untyped-decorator]
def _codebook_attention(  # type: ignore[no-untyped-def]
    cached_pointer, out_pointer, row_stride, codebook_stride, codebook, scale,
    HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, CODEBOOKS: tl.constexpr,
):  # fmt: skip
    """Attend from one codebook in one head of one row."""
    row = tl.program_id(0)
    head = tl.program_id(1)
    dim = tl.num_programs(1) * HEAD_DIM
    channel = tl.arange(0, PADDED)
    other = tl.arange(0, CODEBOOKS)
    inside = channel < HEAD_DIM
    visible = (other <= codebook)[:, None] & inside[None, :]
    query_at = cached_pointer + row * row_stride + head * HEAD_DIM + channel
    key_at = query_at[None, :] + other[:, None] * codebook_stride + dim
    query = tl.load(query_at + codebook * codebook_stride, mask=inside, other=0.0).to(tl.float32)
    keys = tl.load(key_at, mask=visible, other=0.0).to(tl.float32)
    values = tl.load(key_at + dim, mask=visible, other=0.0).to(tl.float32)
    scores = tl.where(other <= codebook, tl.sum(keys * query[None, :], axis=1) * scale, -float("inf"))
    weights = tl.exp(scores - tl.max(scores))
    out = tl.sum(values * weights[:, None], axis=0) / tl.sum(weights)
    tl.store(out_pointer + row * dim + head * HEAD_DIM + channel, out.to(out_pointer.dtype.element_ty), mask=inside)


def codebook_attention(cached: Tensor, codebook: int, heads: int) -> Tensor:
    """Compute what `reference_codebook_attention` in `core.engine.depformer` does.

    `cached`: `[rows, codebook, 3 * dim]`, filled up to and including `codebook`. Returns `[rows, dim]`.
    """
    rows, codebooks, head_dim = len(cached), cached.shape[1], cached.shape[2] // (3 * heads)
    out = torch.empty(rows, heads * head_dim, device=cached.device, dtype=cached.dtype)
    _codebook_attention[(rows, heads)](
        cached, out, cached.stride(0), cached.stride(1), codebook, head_dim**-0.5,
        HEAD_DIM=head_dim, PADDED=triton.next_power_of_2(head_dim), CODEBOOKS=codebooks,
        num_warps=1,
    )  # fmt: skip
    return out
