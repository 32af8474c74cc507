"""The Mimi codec for all slots at once: frames to codes and back, each slot with its own streams."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from moshi.models.compression import MimiModel
from moshi.utils.compile import no_compile, no_cuda_graph
from torch import Tensor

from core.engine.mimi.coder import Decoder, Encoder
from core.engine.mimi.spectral import SpectralMimi
from core.engine.mimi.spectral_decoder import SpectralDecoder
from core.engine.mimi.weights import codebooks


class Codec(Protocol):
    """What the model needs of a codec, which has streams of its own for each slot.

    A step has a row for each of `slots`, int64[rows]. Rows that are not `active`, bool[rows], do not count: their slots
    keep their state, and may be among those of other rows.
    """

    def encode(self, pcm: Tensor, active: Tensor, slots: Tensor) -> Tensor:
        """Encode a frame in each row: float32[rows, 1920] -> int64[rows, 8]."""

    def decode(self, codes: Tensor, active: Tensor, slots: Tensor) -> Tensor:
        """Decode a frame in each row: int64[rows, 8] -> float32[rows, 1920]."""

    def reset(self, chosen: Tensor) -> None:
        """Begin new streams in the slots where `chosen`, bool[slots], is true."""


@contextmanager
def eager_moshi() -> Iterator[None]:
    """Keep moshi from compiling and capturing parts of Mimi by itself: the engine captures the step as a whole."""
    with no_compile(), no_cuda_graph():
        yield


class MimiCodec:
    """A `Codec` with the weights of `moshi`'s Mimi, copied and rearranged so that a frame takes few launches."""

    @torch.inference_mode()
    def __init__(self, mimi: MimiModel, slots: int) -> None:
        device = next(mimi.parameters()).device
        quantizer = codebooks(mimi.quantizer)
        self._encoder = Encoder(mimi, quantizer, slots, device)
        self._decoder = (
            SpectralDecoder(mimi.spectral, quantizer, slots, device)
            if isinstance(mimi, SpectralMimi)
            else Decoder(mimi, quantizer, slots, device)
        )

    def encode(self, pcm: Tensor, active: Tensor, slots: Tensor) -> Tensor:
        return self._encoder.run(pcm, active, slots)

    def decode(self, codes: Tensor, active: Tensor, slots: Tensor) -> Tensor:
        return self._decoder.run(codes, active, slots)

    def reset(self, chosen: Tensor) -> None:
        for side in (self._encoder, self._decoder):
            side.state.reset(chosen)
            side.transformer.reset(chosen)
