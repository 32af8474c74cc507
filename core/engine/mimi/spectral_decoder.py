"""The arithmetic of `SpectralNetwork` frame by frame, in few launches, for some of many streams at once."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.engine.mimi.coder import dequantize
from core.engine.mimi.features import Features, StreamState
from core.engine.mimi.linear import fused_linear, packed
from core.engine.mimi.spectral import LOUDEST, SpectralBlock, SpectralNetwork
from core.engine.mimi.transformer import NORM_EPSILON, Transformer
from core.engine.mimi.weights import Codebooks, layers, with_norm


@dataclass(frozen=True)
class Linear:
    """A packed matrix, `[out_features, in_features]`, and its bias. A norm before, or a scale after, is folded in."""

    matrix: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Block:
    """A ConvNeXt block: `taps`, `[kernel, dim]`, oldest first, and `bias` of its depthwise convolution; two layers."""

    taps: Tensor
    bias: Tensor
    widen: Linear
    narrow: Linear


class SpectralDecoder:
    """From codes to sound."""

    def __init__(self, network: SpectralNetwork, quantizer: Codebooks, slots: int, device: torch.device) -> None:
        shape = network.shape
        self._vectors = projected(quantizer.decoded, network.project)
        """`[codebook, code, dim]`, what each code adds to the transformer's input."""
        self.transformer = Transformer(layers(network.transformer), slots, device)
        self._expand = Linear(packed(network.expand.weight.detach()), network.expand.bias.detach())
        self._blocks = [arranged(block) for block in network.blocks if isinstance(block, SpectralBlock)]
        self._spectrum = normed(network.norm, network.spectrum)
        self.envelope = network.hann / network.hann.square().view(-1, shape.hop).sum(0).repeat(
            shape.window // shape.hop
        )
        """What a spectrum's samples are multiplied by before they are added to those of the others: `[window]`."""
        self.synthesis = synthesis_matrix(self.envelope) if device.type == "cuda" else None
        """The inverse Fourier transform as a matrix, where it is one."""
        self._shape = shape
        self._vector = Features(0, 0, 1, shape.dim)
        self._features: list[Features] = []
        """The input of each block, and the output of the last."""
        end = self._vector.end
        for reach in [shape.kernel - 1] * shape.blocks + [0]:
            self._features.append(Features(end, reach, shape.spectra, shape.dim))
            end = self._features[-1].end
        self._overlaps = shape.window // shape.hop
        self._pieces = Features(end, self._overlaps - 1, shape.spectra, shape.window)
        """The samples of each spectrum's window."""
        self.state = StreamState([*self._features, self._pieces], self._pieces.end, slots, device)

    def run(self, codes: Tensor, active: Tensor, slots: Tensor) -> Tensor:
        """Decode a frame in each row: int64[rows, 8] -> float32[rows, 1920]."""
        rows = self.state.load(slots)
        x = self._vector.frame(rows)
        dequantize(codes, self._vectors, x)
        self.transformer.run(x, slots, active)
        first = self._features[0].frame(rows)
        fused_linear(x, self._expand.matrix, bias=self._expand.bias, out=first.view(len(rows), 1, -1))
        for block, here, there in zip(self._blocks, self._features, self._features[1:], strict=False):
            self._run_block(block, here, there, rows)
        spectra = self._normed_linear(self._features[-1].frame(rows), self._spectrum)
        self._transform(spectra, self._pieces.frame(rows))
        sound = self._overlapped(rows)
        self.state.save(rows, slots, active)
        return sound

    def _run_block(self, block: Block, here: Features, there: Features, rows: Tensor) -> None:
        kernel, dim = block.taps.shape
        windows = here.windows(rows, kernel, 1).view(len(rows), here.time, kernel, dim)
        mixed = (windows * block.taps).sum(2) + block.bias
        hidden = self._normed_linear(mixed, block.widen, gelu=True)
        fused_linear(
            hidden, block.narrow.matrix, bias=block.narrow.bias, residual=here.frame(rows), out=there.frame(rows)
        )

    def _normed_linear(self, x: Tensor, layer: Linear, gelu: bool = False) -> Tensor:
        return fused_linear(x, layer.matrix, bias=layer.bias, centred=True, epsilon=NORM_EPSILON, gelu=gelu)

    def _transform(self, spectra: Tensor, pieces: Tensor) -> None:
        """Write the samples of each spectrum's window, under the envelope, to `pieces`: `[rows, spectra, window]`."""
        magnitude, phase = torch.split(spectra, self._shape.bins, dim=2)
        magnitude = magnitude.clamp(max=LOUDEST).exp()
        if self.synthesis is not None:
            parts = torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=2)
            fused_linear(parts, self.synthesis, out=pieces)
        else:
            sound = torch.fft.irfft(torch.polar(magnitude, phase), n=self._shape.window, norm="ortho")
            torch.mul(sound, self.envelope, out=pieces)

    def _overlapped(self, rows: Tensor) -> Tensor:
        """Add up what overlaps: of the newest window its first hop, of each older one the hop after: `[rows, 1920]`."""
        shape, pieces, count = self._shape, self._pieces, self._overlaps
        start = rows.storage_offset() + pieces.start + (count - 1) * shape.hop
        parts = rows.as_strided(
            (len(rows), shape.spectra, count, shape.hop),
            (rows.stride(0), shape.window, shape.window - shape.hop, 1),
            start,
        )
        return parts.sum(2).flatten(1)


def synthesis_matrix(envelope: Tensor) -> Tensor:
    """The inverse Fourier transform and the envelope as a matrix, `[window, 2 * bins]`: real parts, then imaginary.

    On a GPU, libraries' transforms are not for a step: a row's bits may depend on the number of rows beside it.
    """
    unit = torch.eye(len(envelope) // 2 + 1, dtype=torch.complex128)
    parts = [torch.fft.irfft(each, n=len(envelope), norm="ortho") for each in (unit, 1j * unit)]
    return (torch.cat(parts) * envelope.double().cpu()).T.float().contiguous().to(envelope.device)


def projected(decoded: Tensor, project: nn.Linear) -> Tensor:
    """Fold the projection into the vectors of the codes, its bias into those of the first codebook."""
    vectors = decoded.double() @ project.weight.detach().double().T
    vectors[0] += project.bias.detach()
    return vectors.float()


def arranged(block: SpectralBlock) -> Block:
    """Rearrange a block's weights."""
    scale, narrow = block.scale.detach(), block.narrow
    return Block(
        block.depthwise.weight.detach()[:, 0].T.contiguous(),
        block.depthwise.get_parameter("bias").detach(),
        normed(block.norm, block.widen),
        Linear(packed(scale[:, None] * narrow.weight.detach()), scale * narrow.bias.detach()),
    )


def normed(norm: nn.LayerNorm, linear: nn.Linear) -> Linear:
    """A linear layer with the weights of the norm before it folded in."""
    matrix, bias = with_norm(linear.weight, norm)
    return Linear(packed(matrix), bias + linear.bias.detach())
