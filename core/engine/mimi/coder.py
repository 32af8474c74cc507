"""Mimi in few launches: frames to codes and back, for some of many streams at once.

The arithmetic is that of `moshi`'s Mimi, which is its reference in the tests. What a stream remembers is kept by slot;
a step gathers it for its rows, and the rows that count put back what they remember next.
"""

import torch
from moshi.models.compression import MimiModel
from torch import Tensor

from core.engine.call import FRAME_SAMPLES
from core.engine.linear import fast_linear
from core.engine.mimi.features import Features, Memory, Plan
from core.engine.mimi.transformer import Transformer
from core.engine.mimi.weights import Codebooks, convolution, convolutions, layers


class Encoder:
    """From sound to codes."""

    def __init__(self, mimi: MimiModel, quantizer: Codebooks, slots: int, device: torch.device) -> None:
        self._quantizer = quantizer
        self._downsample = convolution(mimi.downsample.conv)
        self._plan = Plan(FRAME_SAMPLES, list(convolutions(mimi.encoder.model)), context_after=self._downsample.context)
        self.transformer = Transformer(layers(mimi.encoder_transformer), slots, device)
        self.memory = Memory([*self._plan.inputs, self._plan.output], self._plan.end, slots, device)

    def run(self, pcm: Tensor, active: Tensor, slots: Tensor) -> Tensor:
        rows = self.memory.recall(slots)
        self._plan.inputs[0].of(rows).copy_(pcm[:, :, None])
        self._plan.run(rows)
        features = self._plan.output
        x, before = features.of(rows), features.remembered(rows)
        new = (self.transformer.position[slots] == 0)[:, None, None]
        self.transformer.run(x, slots, active)
        before.copy_(torch.where(new, x[:, :1], before))  # A stream begins as if its first moment had lasted.
        self.memory.keep(rows, slots, active)
        windows = features.windows(rows, self._downsample.taps, self._downsample.stride)
        latent = fast_linear(windows, self._downsample.matrix)
        return nearest(fast_linear(latent, self._quantizer.project)[:, 0], self._quantizer)


class Decoder:
    """From codes to sound."""

    def __init__(self, mimi: MimiModel, quantizer: Codebooks, slots: int, device: torch.device) -> None:
        self._quantizer = quantizer
        upsample = mimi.upsample.convtr.convtr.convtr
        channels, ratio = len(upsample.weight), upsample.stride[0]
        self._now, self._before = torch.split(upsample.weight.detach()[:, 0].T.contiguous(), ratio)
        self._latent = Features(0, 1, 1, channels)
        self._plan = Plan(ratio, list(convolutions(mimi.decoder.model)), start=self._latent.end)
        self.transformer = Transformer(layers(mimi.decoder_transformer), slots, device)
        self.memory = Memory([self._latent, *self._plan.inputs], self._plan.end, slots, device)

    def run(self, codes: Tensor, active: Tensor, slots: Tensor) -> Tensor:
        rows = self.memory.recall(slots)
        latent, before = self._latent.of(rows), self._latent.remembered(rows)
        x = self._plan.inputs[0].of(rows)
        voiced(codes, self._quantizer.spoken, latent)
        x.copy_(latent * self._now + before * self._before)
        self.transformer.run(x, slots, active)
        self._plan.run(rows)
        self.memory.keep(rows, slots, active)
        return self._plan.output.of(rows)[:, :, 0]


def voiced(codes: Tensor, spoken: Tensor, out: Tensor) -> None:
    """Into `out`, `[rows, 1, dim]`: the sum of what a frame's codes, int64[rows, 8], add to the decoder's input."""
    codebook = torch.arange(len(spoken), device=codes.device)
    out.copy_(spoken[codebook, codes].sum(1, keepdim=True))


def nearest(projected: Tensor, quantizer: Codebooks) -> Tensor:
    """Codes, int64[rows, 8], of `[rows, 2 * width]`: each codebook's nearest to what those before it have left."""
    if projected.is_cuda:
        from core.engine.kernels import mimi as mimi_kernel  # Triton comes with torch's CUDA builds only

        return mimi_kernel.nearest(projected, quantizer.vectors, quantizer.halves)
    return nearest_plainly(projected, quantizer.vectors, quantizer.halves)


def nearest_plainly(projected: Tensor, vectors: Tensor, halves: Tensor) -> Tensor:
    """`vectors`: `[codebook, code, width]`, and `halves` of their squares. The first codebook stands by itself."""
    first, rest = projected.chunk(2, dim=-1)
    codes = [nearest_code(first, vectors[0], halves[0])]
    for number in range(1, len(vectors)):
        codes.append(nearest_code(rest, vectors[number], halves[number]))
        rest = rest - vectors[number, codes[-1]]
    return torch.stack(codes, dim=1)


def nearest_code(x: Tensor, vectors: Tensor, halves: Tensor) -> Tensor:
    """Half the squared distance, less what is the same for all codes."""
    return torch.addmm(halves, x, vectors.T, alpha=-1).argmin(dim=-1)
