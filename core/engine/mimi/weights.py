"""Mimi's weights, taken from `moshi`'s modules and rearranged so that each layer is one matmul.

Sound and features are stored time by time, the channels of a time together. The inputs of a convolution are then
contiguous, and the convolution is a matmul over a sliding window; a transposed convolution computes all samples of a
stride at once from the last two times.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from moshi.modules.conv import StreamingConvTranspose1d
from moshi.modules.seanet import SEANetResnetBlock
from torch import Tensor, nn


@dataclass(frozen=True)
class Convolution:
    """A convolution, or a transposed one, as a matrix over a sliding window.

    `matrix`: `[times_out * channels_out, taps * channels_in]`. The window advances by `stride` times, and each window
    yields `times_out` times of output. `activated`: the input passes through ELU first. `skips`: the input of the
    convolution before this one is added to the output, as residual blocks do.
    """

    matrix: Tensor
    bias: Tensor | None
    taps: int
    stride: int
    times_out: int
    activated: bool = False
    skips: bool = False

    @property
    def channels_in(self) -> int:
        """Channels of the input."""
        return self.matrix.shape[1] // self.taps

    @property
    def channels_out(self) -> int:
        """Channels of the output."""
        return self.matrix.shape[0] // self.times_out

    @property
    def context(self) -> int:
        """Times of earlier input that a window reaches back to."""
        return self.taps - self.stride


@dataclass(frozen=True)
class Layer:
    """A layer of a transformer.

    The weights of norms are folded into the matrices after them, and layer scales into the matrices before them.
    """

    in_proj: Tensor
    in_bias: Tensor
    out_proj: Tensor
    linear1: Tensor
    bias1: Tensor
    linear2: Tensor


@dataclass(frozen=True)
class Layers:
    """The layers of a transformer, and what they have in common."""

    layers: tuple[Layer, ...]
    heads: int
    context: int
    max_period: float


@dataclass(frozen=True)
class Codebooks:
    """The residual vector quantizer.

    - `project`: `[2 * width, dim]`, the input projections for the first codebook and for the others;
    - `vectors`: `[codebook, code, width]`;
    - `half_squares`: `[codebook, code]`, half of the vectors' squared lengths;
    - `decoded`: `[codebook, code, dim]`, what each code adds to the decoder's input.
    """

    project: Tensor
    vectors: Tensor
    half_squares: Tensor
    decoded: Tensor


def convolution(module: Any, activated: bool = False, skips: bool = False) -> Convolution:
    """Rearrange a convolution; a dilated one gets zeros between its taps."""
    conv = module.conv.conv
    rows, channels, taps = conv.weight.shape
    reach = (taps - 1) * conv.dilation[0] + 1
    spread = conv.weight.new_zeros(rows, reach, channels)
    spread[:, :: conv.dilation[0]] = conv.weight.detach().transpose(1, 2)
    return Convolution(spread.flatten(1), detached(conv.bias), reach, conv.stride[0], 1, activated, skips)


def transposed(module: Any, activated: bool = False) -> Convolution:
    """Rearrange a transposed convolution, whose taps span two strides: the second half belongs to the time before."""
    conv = module.convtr.convtr
    stride = conv.stride[0]
    now, before = torch.split(conv.weight.detach().permute(2, 1, 0), stride)  # [tap, channel out, channel in]
    matrix = torch.cat([before, now], dim=-1).flatten(0, 1)
    bias = None if conv.bias is None else conv.bias.detach().repeat(stride)
    return Convolution(matrix, bias, 2, 1, stride, activated)


def convolutions(model: Any) -> Iterator[Convolution]:
    """Rearrange the convolutions of Mimi's encoder or decoder, in order."""
    activated = False
    for module in model:
        if isinstance(module, nn.ELU):
            activated = True
            continue
        if isinstance(module, SEANetResnetBlock):
            yield convolution(module.block[1], activated=True)
            yield convolution(module.block[3], activated=True, skips=True)
        elif isinstance(module, StreamingConvTranspose1d):
            yield transposed(module, activated)
        else:
            yield convolution(module, activated)
        activated = False


def layers(module: Any) -> Layers:
    """Rearrange a transformer."""
    first = module.transformer.layers[0].self_attn
    arranged = tuple(layer(each) for each in module.transformer.layers)
    return Layers(arranged, first.num_heads, first.context, first.rope.max_period)


def layer(module: Any) -> Layer:
    """Rearrange one layer of a transformer."""
    attention = module.self_attn
    (in_proj,), (out_proj,) = attention.in_projs, attention.out_projs
    scales = [getattr(each, "scale", torch.ones(1, device=in_proj.weight.device)).detach()[:, None]
              for each in (module.layer_scale_1, module.layer_scale_2)]  # fmt: skip
    return Layer(
        *with_norm(in_proj.weight, module.norm1),
        out_proj.weight.detach() * scales[0],
        *with_norm(module.linear1.weight, module.norm2),
        module.linear2.weight.detach() * scales[1],
    )


def with_norm(weight: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Fold a norm's own weights into the matrix after it; returns the matrix and its bias."""
    wide = weight.detach().double()
    return (wide * norm.weight.detach()).to(weight.dtype), (wide @ norm.bias.detach().double()).to(weight.dtype)


def codebooks(quantizer: Any) -> Codebooks:
    """Rearrange the quantizer."""
    parts = quantizer.rvq_first, quantizer.rvq_rest
    vectors = [[each.embedding.detach() for each in part.vq.layers[: part.n_q]] for part in parts]
    decoded = [each @ part.output_proj.weight.detach()[:, :, 0].T for part, some in zip(parts, vectors, strict=True)
              for each in some]  # fmt: skip
    stacked = torch.stack([each for some in vectors for each in some])
    return Codebooks(
        torch.cat([part.input_proj.weight.detach()[:, :, 0] for part in parts]),
        stacked,
        stacked.double().square().sum(-1).div(2).to(stacked.dtype),
        torch.stack(decoded),
    )


def detached(bias: nn.Parameter | None) -> Tensor | None:
    """A bias as a plain tensor, or None where there is none."""
    return None if bias is None else bias.detach()
