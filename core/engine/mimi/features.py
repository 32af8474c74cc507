"""Where Mimi's features lie in working memory, and what its streams remember between frames."""

from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.linear import fast_linear
from core.engine.mimi.weights import Convolution

ALIGNED = 32
"""Floats: features begin where a card reads whole lines of its memory."""


@dataclass(frozen=True)
class Features:
    """A place in a row of working memory: `context` times that are remembered, and the `time` of a frame after them."""

    start: int
    context: int
    time: int
    channels: int

    @property
    def end(self) -> int:
        return self.start + (self.context + self.time) * self.channels

    def of(self, rows: Tensor) -> Tensor:
        """The frame's: `[rows, time, channels]`."""
        start = self.start + self.context * self.channels
        return rows[:, start : self.end].view(len(rows), self.time, self.channels)

    def remembered(self, rows: Tensor) -> Tensor:
        """The context: `[rows, context, channels]`."""
        end = self.start + self.context * self.channels
        return rows[:, self.start : end].view(len(rows), self.context, self.channels)

    def windows(self, rows: Tensor, taps: int, stride: int) -> Tensor:
        """What each place of a convolution's window holds: `[rows, time / stride, taps * channels]`, overlapping."""
        shape = len(rows), self.time // stride, taps * self.channels
        return rows.as_strided(shape, (rows.stride(0), stride * self.channels, 1), rows.storage_offset() + self.start)


class Plan:
    """Where a chain of convolutions reads and writes in a row of working memory."""

    def __init__(self, time: int, chain: list[Convolution], start: int = 0, context_after: int = 0) -> None:
        """`time` of input; `start`: floats of the row that are taken; `context_after`: times of output remembered."""
        self._chain = chain
        self.end = start
        self.inputs: list[Features] = []
        """What each convolution reads, with ELU done where it wants that."""
        self._skipped: dict[int, Features] = {}
        """What the convolution of this number reads, without ELU, where the one after it adds it to its output."""
        for number, each in enumerate(chain):
            self.inputs.append(self._take(each.context, time, each.channels_in))
            if number + 1 < len(chain) and chain[number + 1].skips:
                self._skipped[number] = self._take(0, time, each.channels_in)
            time = time // each.stride * each.times_out
        self.output = self._take(context_after, time, chain[-1].channels_out)

    def _take(self, context: int, time: int, channels: int) -> Features:
        features = Features(self.end, context, time, channels)
        self.end = -(-features.end // ALIGNED) * ALIGNED
        return features

    def run(self, rows: Tensor) -> None:
        """From `inputs[0]` to `output`."""
        for number, each in enumerate(self._chain):
            out, elu = self._goes_to(number + 1)
            x = self.inputs[number].windows(rows, each.taps, each.stride)
            shape = *x.shape[:2], len(each.matrix)
            residual = self._skipped[number - 1] if each.skips else None
            places = [None if place is None else place.of(rows).view(shape) for place in (residual, out, elu)]
            fast_linear(x, each.matrix, bias=each.bias, residual=places[0], out=places[1], elu=places[2])

    def _goes_to(self, number: int) -> tuple[Features | None, Features | None]:
        """Where the input of a convolution goes, as it is and through ELU."""
        if number == len(self._chain):
            return self.output, None
        if self._chain[number].activated:
            return self._skipped.get(number), self.inputs[number]
        return self.inputs[number], None


class Memory:
    """What the streams remember between frames of some features: `[slots, floats]`, and where it is in a row."""

    def __init__(self, features: list[Features], width: int, slots: int, device: torch.device) -> None:
        """`width`: floats of a row of working memory."""
        places = [(each.start, each.end, each.context * each.channels) for each in features]
        self._first = torch.cat([torch.arange(start, start + count) for start, _, count in places]).to(device)
        self._last = torch.cat([torch.arange(end - count, end) for _, end, count in places]).to(device)
        self._kept = torch.zeros(slots, len(self._first), device=device)
        self._width = width

    def recall(self, slots: Tensor) -> Tensor:
        """Working memory, `[rows, width]`, in which contexts are as the slots remember them."""
        rows = torch.empty(len(slots), self._width, device=slots.device)
        if rows.is_cuda:
            from core.engine.kernels.mimi import move  # Triton comes with torch's CUDA builds only

            move(self._kept, slots, self._first, rows)
        else:
            rows[:, self._first] = self._kept[slots]
        return rows

    def keep(self, rows: Tensor, slots: Tensor, active: Tensor) -> None:
        """Remember the ends of the rows that are active."""
        if rows.is_cuda:
            from core.engine.kernels.mimi import move  # Triton comes with torch's CUDA builds only

            move(self._kept, slots, self._last, rows, active)
        else:
            self._kept[slots[active]] = rows[:, self._last][active]

    def forget(self, chosen: Tensor) -> None:
        self._kept.masked_fill_(chosen[:, None], 0.0)
