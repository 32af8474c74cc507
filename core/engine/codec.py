"""Mimi for all slots at once: frames to codes and back, each slot with its own stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from moshi.models.compression import MimiModel
from moshi.modules.conv import StreamingConv1d
from moshi.utils.compile import no_compile, no_cuda_graph
from torch import Tensor

FRAME_SAMPLES = 1920
SAMPLE_RATE = 24_000
FRAME_SECONDS = FRAME_SAMPLES / SAMPLE_RATE


class Codec(Protocol):
    """What the model needs of a codec. Slots that are not `active` (bool[slots]) keep their state."""

    def encode(self, pcm: Tensor, active: Tensor) -> Tensor:
        """float32[slots, 1920] -> int64[slots, 8]."""

    def decode(self, codes: Tensor, active: Tensor) -> Tensor:
        """int64[slots, 8] -> float32[slots, 1920]."""

    def reset(self, chosen: Tensor) -> None:
        """Begin new streams in the slots where `chosen`, bool[slots], is true."""


@contextmanager
def plainly() -> Iterator[None]:
    """Keep moshi from compiling and capturing parts of Mimi by itself: the engine captures the step as a whole."""
    with no_compile(), no_cuda_graph():
        yield


class MimiCodec:
    """`moshi`'s Mimi, streaming `slots` conversations."""

    def __init__(self, mimi: MimiModel, slots: int) -> None:
        """Streams anew, with as many slots, where `mimi` is streaming already."""
        self._mimi = mimi
        if mimi.is_streaming:
            mimi._stop_streaming()
        with plainly():
            mimi.streaming_forever(slots)
        states = mimi.get_streaming_state()
        # One mask for all modules: Mimi has about a hundred, and each would copy it at every step.
        self._active = torch.ones(slots, dtype=torch.bool, device=next(mimi.parameters()).device)
        for state in states.values():
            state.exec_mask = self._active
        # A convolution that pads by repeating its first sample binds a new tensor at each step where the others
        # write in place; a captured graph would read the old one for ever.
        self._first = [
            (states[name], states[name].first)
            for name, module in mimi.named_modules()
            if isinstance(module, StreamingConv1d) and module.pad_mode == "replicate"
        ]

    def encode(self, pcm: Tensor, active: Tensor) -> Tensor:
        self._active.copy_(active)
        with plainly():
            codes: Tensor = self._mimi.encode(pcm[:, None])
        for state, first in self._first:
            first.copy_(state.first)
            state.first = first
        return codes[:, :, 0]

    def decode(self, codes: Tensor, active: Tensor) -> Tensor:
        self._active.copy_(active)
        with plainly():
            pcm: Tensor = self._mimi.decode(codes[:, :, None])
        return pcm[:, 0]

    def reset(self, chosen: Tensor) -> None:
        self._mimi.reset_streaming(chosen)
