"""The layout of Mimi's features in working memory, and the state that its streams carry from frame to frame."""

from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.mimi.linear import fused_linear
from core.engine.mimi.weights import Convolution

ALIGNMENT = 32
"""Floats to which features are aligned: a GPU reads its memory in cache lines of 128 bytes."""


@dataclass(frozen=True)
class Features:
    """A place in a row of working memory: `context` times from earlier frames, then the `time` times of this frame."""

    start: int
    context: int
    time: int
    channels: int

    @property
    def end(self) -> int:
        """The float after the last one."""
        return self.start + (self.context + self.time) * self.channels

    def frame(self, rows: Tensor) -> Tensor:
        """The features of this frame: `[rows, time, channels]`."""
        start = self.start + self.context * self.channels
        return rows[:, start : self.end].view(len(rows), self.time, self.channels)

    def past(self, rows: Tensor) -> Tensor:
        """The features of the context: `[rows, context, channels]`."""
        end = self.start + self.context * self.channels
        return rows[:, self.start : end].view(len(rows), self.context, self.channels)

    def windows(self, rows: Tensor, taps: int, stride: int) -> Tensor:
        """The overlapping windows of a convolution: `[rows, time / stride, taps * channels]`, without a copy."""
        shape = len(rows), self.time // stride, taps * self.channels
        return rows.as_strided(shape, (rows.stride(0), stride * self.channels, 1), rows.storage_offset() + self.start)


class ConvolutionChain:
    """A chain of convolutions, each of which reads and writes features in a row of working memory."""

    def __init__(self, time: int, chain: list[Convolution], start: int = 0, output_context: int = 0) -> None:
        """Lay out the features after the `start` floats of a row that are in use already.

        `time` is that of the input of a frame, and `output_context` the number of the output's times that are state.
        """
        self._chain = chain
        self.end = start
        self.inputs: list[Features] = []
        """The input of each convolution, after ELU where the convolution wants that."""
        self._before_elu: dict[int, Features] = {}
        """The same without ELU, where the next convolution adds it to its output as a residual."""
        for number, each in enumerate(chain):
            self.inputs.append(self._allocate(each.context, time, each.channels_in))
            if number + 1 < len(chain) and chain[number + 1].skips:
                self._before_elu[number] = self._allocate(0, time, each.channels_in)
            time = time // each.stride * each.times_out
        self.output = self._allocate(output_context, time, chain[-1].channels_out)

    def _allocate(self, context: int, time: int, channels: int) -> Features:
        features = Features(self.end, context, time, channels)
        self.end = -(-features.end // ALIGNMENT) * ALIGNMENT
        return features

    def run(self, rows: Tensor) -> None:
        """Compute `output` from `inputs[0]`."""
        for number, each in enumerate(self._chain):
            out, elu = self._destinations(number + 1)
            x = self.inputs[number].windows(rows, each.taps, each.stride)
            shape = *x.shape[:2], len(each.matrix)
            residual = self._before_elu[number - 1] if each.skips else None
            places = [None if place is None else place.frame(rows).view(shape) for place in (residual, out, elu)]
            fused_linear(x, each.matrix, bias=each.bias, residual=places[0], out=places[1], elu=places[2])

    def _destinations(self, number: int) -> tuple[Features | None, Features | None]:
        """Where the input of a convolution is written without and with ELU."""
        if number == len(self._chain):
            return self.output, None
        if self._chain[number].activated:
            return self._before_elu.get(number), self.inputs[number]
        return self.inputs[number], None


class StreamState:
    """The contexts of some features for every slot, `[slots, floats]`: what streams carry from frame to frame."""

    def __init__(self, features: list[Features], width: int, slots: int, device: torch.device) -> None:
        """`width` is the number of floats in a row of working memory."""
        places = [(each.start, each.end, each.context * each.channels) for each in features]
        self._context = torch.cat([torch.arange(start, start + count) for start, _, count in places]).to(device)
        """The floats of a row that are the contexts of this frame."""
        self._next_context = torch.cat([torch.arange(end - count, end) for _, end, count in places]).to(device)
        """The floats of a row that are the contexts of the next frame."""
        self._ranges = [(start, end, count) for start, end, count in places if count]
        self._state = torch.zeros(slots, len(self._context), device=device)
        self._width = width

    def load(self, slots: Tensor) -> Tensor:
        """Allocate working memory, `[rows, width]`, and load the contexts of the slots into it."""
        rows = torch.empty(len(slots), self._width, device=slots.device)
        if rows.is_cuda:
            from core.engine.kernels.mimi import load_state  # Triton comes with torch's CUDA builds only

            load_state(self._state, slots, self._context, rows)
        else:
            parts = torch.split(self._state[slots], [count for _, _, count in self._ranges], dim=1)
            for (start, _, count), part in zip(self._ranges, parts, strict=True):
                rows[:, start : start + count] = part
        return rows

    def save(self, rows: Tensor, slots: Tensor, active: Tensor) -> None:
        """Save the next frame's contexts of the rows that are active."""
        if rows.is_cuda:
            from core.engine.kernels.mimi import save_state  # Triton comes with torch's CUDA builds only

            save_state(self._state, slots, self._next_context, rows, active)
        else:
            state = torch.cat([rows[:, end - count : end] for _, end, count in self._ranges], dim=1)
            self._state[slots[active]] = state[active]

    def reset(self, chosen: Tensor) -> None:
        """Begin new streams in the slots where `chosen`, bool[slots], is true."""
        self._state.masked_fill_(chosen[:, None], 0.0)
