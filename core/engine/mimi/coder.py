"""Mimi's encoder and decoder in few launches, for some of many streams at once.

The arithmetic is that of `moshi`'s Mimi, which is the reference in the tests. The state of a stream is stored by slot:
a step loads it into its rows, and rows that are active save the state that the next frame needs.
"""

import torch
from moshi.models.compression import MimiModel
from torch import Tensor

from core.engine.call import FRAME_SAMPLES
from core.engine.mimi.features import ConvolutionChain, Features, StreamState
from core.engine.mimi.linear import fused_linear
from core.engine.mimi.transformer import Transformer
from core.engine.mimi.weights import Codebooks, convolution, convolutions, layers


class Encoder:
    """From sound to codes."""

    def __init__(self, mimi: MimiModel, quantizer: Codebooks, slots: int, device: torch.device) -> None:
        self._quantizer = quantizer
        self._downsample = convolution(mimi.downsample.conv)
        chain = list(convolutions(mimi.encoder.model))
        self._chain = ConvolutionChain(FRAME_SAMPLES, chain, output_context=self._downsample.context)
        self.transformer = Transformer(layers(mimi.encoder_transformer), slots, device)
        self.state = StreamState([*self._chain.inputs, self._chain.output], self._chain.end, slots, device)

    def run(self, pcm: Tensor, active: Tensor, slots: Tensor) -> Tensor:
        """Encode a frame in each row: float32[rows, 1920] -> int64[rows, 8]."""
        rows = self.state.load(slots)
        self._chain.inputs[0].frame(rows).copy_(pcm[:, :, None])
        self._chain.run(rows)
        features = self._chain.output
        x, past = features.frame(rows), features.past(rows)
        new = (self.transformer.position[slots] == 0)[:, None, None]
        self.transformer.run(x, slots, active)
        past.copy_(torch.where(new, x[:, :1], past))  # A stream is padded by repeating its first time.
        self.state.save(rows, slots, active)
        windows = features.windows(rows, self._downsample.taps, self._downsample.stride)
        latent = fused_linear(windows, self._downsample.matrix)
        return nearest_codes(fused_linear(latent, self._quantizer.project)[:, 0], self._quantizer)


class Decoder:
    """From codes to sound."""

    def __init__(self, mimi: MimiModel, quantizer: Codebooks, slots: int, device: torch.device) -> None:
        self._quantizer = quantizer
        upsample = mimi.upsample.convtr.convtr.convtr
        channels, ratio = len(upsample.weight), upsample.stride[0]
        self._now, self._before = torch.split(upsample.weight.detach()[:, 0].T.contiguous(), ratio)
        self._latent = Features(0, 1, 1, channels)
        self._chain = ConvolutionChain(ratio, list(convolutions(mimi.decoder.model)), start=self._latent.end)
        self.transformer = Transformer(layers(mimi.decoder_transformer), slots, device)
        self.state = StreamState([self._latent, *self._chain.inputs], self._chain.end, slots, device)

    def run(self, codes: Tensor, active: Tensor, slots: Tensor) -> Tensor:
        """Decode a frame in each row: int64[rows, 8] -> float32[rows, 1920]."""
        rows = self.state.load(slots)
        latent, past = self._latent.frame(rows), self._latent.past(rows)
        x = self._chain.inputs[0].frame(rows)
        dequantize(codes, self._quantizer.decoded, latent)
        x.copy_(latent * self._now + past * self._before)
        self.transformer.run(x, slots, active)
        self._chain.run(rows)
        self.state.save(rows, slots, active)
        return self._chain.output.frame(rows)[:, :, 0]


def dequantize(codes: Tensor, decoded: Tensor, out: Tensor) -> None:
    """Write to `out`, `[rows, 1, dim]`, the sum of the vectors that a frame's codes, int64[rows, 8], stand for."""
    codebook = torch.arange(len(decoded), device=codes.device)
    out.copy_(decoded[codebook, codes].sum(1, keepdim=True))


def nearest_codes(projected: Tensor, quantizer: Codebooks) -> Tensor:
    """Quantize `[rows, 2 * width]` to int64[rows, 8]: each code is the nearest to the residual of those before it."""
    if projected.is_cuda:
        from core.engine.kernels import mimi as kernels  # Triton comes with torch's CUDA builds only

        return kernels.nearest_codes(projected, quantizer.vectors, quantizer.half_squares)
    return reference_nearest_codes(projected, quantizer.vectors, quantizer.half_squares)


def reference_nearest_codes(projected: Tensor, vectors: Tensor, half_squares: Tensor) -> Tensor:
    """Residual vector quantization in plain torch: `[rows, 2 * width]` to int64[rows, codebooks].

    The first codebook quantizes the first half of `projected`; the others quantize the second half, one after another.
    `vectors` is `[codebook, code, width]`, and `half_squares`, `[codebook, code]`, half of their squared lengths.
    """
    first, residual = projected.chunk(2, dim=-1)
    codes = [nearest_code(first, vectors[0], half_squares[0])]
    for number in range(1, len(vectors)):
        codes.append(nearest_code(residual, vectors[number], half_squares[number]))
        residual = residual - vectors[number, codes[-1]]
    return torch.stack(codes, dim=1)


def nearest_code(x: Tensor, vectors: Tensor, half_squares: Tensor) -> Tensor:
    """The nearest vector's number, int64[rows], by half the squared distance less what is the same for all vectors."""
    return torch.addmm(half_squares, x, vectors.T, alpha=-1).argmin(dim=-1)
