"""Mimi's weights, from `moshi`'s modules, arranged so that each layer is a product of one matrix with what is in a row.

Sound and features are kept time by time, with their channels together. The samples that a convolution looks at then lie
in one piece, and it is a matrix product over a window that slides on; a transposed convolution makes all samples of a
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
    """A convolution, or one transposed, as a matrix over a window.

    `matrix`: `[times_out * channels_out, taps * channels_in]`; the window moves on by `stride` times, and each place of
    it makes `times_out` times of output. `activated`: it reads its input through ELU. `skips`: the input of the layer
    before last is added to the output, as residual blocks do.
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
        return self.matrix.shape[1] // self.taps

    @property
    def channels_out(self) -> int:
        return self.matrix.shape[0] // self.times_out

    @property
    def context(self) -> int:
        """Times of input that it remembers."""
        return self.taps - self.stride


@dataclass(frozen=True)
class Layer:
    """A layer of a transformer: norms' weights are in the matrices after them, layer scales in those before them."""

    in_proj: Tensor
    in_bias: Tensor
    out_proj: Tensor
    linear1: Tensor
    bias1: Tensor
    linear2: Tensor


@dataclass(frozen=True)
class Layers:
    """A transformer."""

    layers: tuple[Layer, ...]
    heads: int
    context: int
    max_period: float


@dataclass(frozen=True)
class Codebooks:
    """The quantizer. `project`: `[2 * width, dim]`, for the first codebook and for the others.

    `vectors`: `[codebook, code, width]`; `halves`: half of their squares; `spoken`: `[codebook, code, dim]`, what each
    code adds to the decoder's input.
    """

    project: Tensor
    vectors: Tensor
    halves: Tensor
    spoken: Tensor


def convolution(module: Any, activated: bool = False, skips: bool = False) -> Convolution:
    """Arrange a convolution; one that looks at every n-th time only has zeros between."""
    conv = module.conv.conv
    rows, channels, taps = conv.weight.shape
    reach = (taps - 1) * conv.dilation[0] + 1
    spread = conv.weight.new_zeros(rows, reach, channels)
    spread[:, :: conv.dilation[0]] = conv.weight.detach().transpose(1, 2)
    return Convolution(spread.flatten(1), detached(conv.bias), reach, conv.stride[0], 1, activated, skips)


def transposed(module: Any, activated: bool = False) -> Convolution:
    """Arrange a transposed convolution, whose taps are two strides: the time before brings the second half of them."""
    conv = module.convtr.convtr
    stride = conv.stride[0]
    now, before = torch.split(conv.weight.detach().permute(2, 1, 0), stride)  # [tap, channel out, channel in]
    matrix = torch.cat([before, now], dim=-1).flatten(0, 1)
    bias = None if conv.bias is None else conv.bias.detach().repeat(stride)
    return Convolution(matrix, bias, 2, 1, stride, activated)


def convolutions(model: Any) -> Iterator[Convolution]:
    """The convolutions of Mimi's encoder or decoder, in order."""
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
    """Arrange a transformer."""
    first = module.transformer.layers[0].self_attn
    arranged = tuple(layer(each) for each in module.transformer.layers)
    return Layers(arranged, first.num_heads, first.context, first.rope.max_period)


def layer(module: Any) -> Layer:
    """Arrange one layer of a transformer."""
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
    """A matrix and a bias that do what the norm's own weights and the matrix do one after the other."""
    wide = weight.detach().double()
    return (wide * norm.weight.detach()).to(weight.dtype), (wide @ norm.bias.detach().double()).to(weight.dtype)


def codebooks(quantizer: Any) -> Codebooks:
    """Arrange the quantizer."""
    parts = quantizer.rvq_first, quantizer.rvq_rest
    vectors = [[each.embedding.detach() for each in part.vq.layers[: part.n_q]] for part in parts]
    spoken = [each @ part.output_proj.weight.detach()[:, :, 0].T for part, some in zip(parts, vectors, strict=True)
              for each in some]  # fmt: skip
    stacked = torch.stack([each for some in vectors for each in some])
    return Codebooks(
        torch.cat([part.input_proj.weight.detach()[:, :, 0] for part in parts]),
        stacked,
        stacked.double().square().sum(-1).div(2).to(stacked.dtype),
        torch.stack(spoken),
    )


def detached(bias: nn.Parameter | None) -> Tensor | None:
    return None if bias is None else bias.detach()
