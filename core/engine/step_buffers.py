"""The inputs and outputs of a step, laid out so that each is a single copy between host and device.

A buffer is one piece of memory seen through typed arrays: numpy's on the host, torch's on the device. The arrays stay
where they are, as a captured CUDA graph requires.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.engine.architecture import AGENT_CODEBOOKS, STREAMS, USER_CODEBOOKS
from core.engine.call import FRAME_SAMPLES

TEXT, AGENT, USER = slice(0, 1), slice(1, 1 + AGENT_CODEBOOKS), slice(STREAMS - USER_CODEBOOKS, STREAMS)
"""The places of the text, the agent's codebooks and the user's among the tokens of a position."""
ALIGNMENT = 16
"""Bytes to which every array of a buffer is aligned, so that kernels may load vectors from it."""

HostArray: TypeAlias = npt.NDArray[Any]
Array = TypeVar("Array", HostArray, Tensor)
Layout = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""The names of a buffer's arrays, in order, with their dtypes and shapes."""


@dataclass(frozen=True)
class CallInputs(Generic[Array]):
    """What a step reads about calls besides their frames; the last dimension is a row of a batch, or a slot.

    All integers share one array, of which the properties are views: rows are copied at every step, in one operation
    for each array.
    """

    integers: Array
    """int64[26 + blocks, rows]."""
    temperature: Array
    """float32[2, rows], for text and for codebooks."""

    @property
    def position(self) -> Array:
        """int64[rows], the position that the step reads."""
        return self._view(0)

    @property
    def seed(self) -> Array:
        """int64[rows]."""
        return self._view(1)

    @property
    def slot(self) -> Array:
        """int64[rows], the slot whose codec streams the row uses."""
        return self._view(2)

    @property
    def active(self) -> Array:
        """int64[rows], 1, or 0 in padding rows."""
        return self._view(3)

    @property
    def pinned(self) -> Array:
        """int64[rows], how many of the call's first positions stay in the window; 0 for none."""
        return self._view(4)

    @property
    def top_k(self) -> Array:
        """int64[2, rows], for text and for codebooks."""
        return self._view(slice(5, 7))

    @property
    def tokens(self) -> Array:
        """int64[17, rows], those of the position, except the user's codebook 0, which comes with the frame."""
        return self._view(slice(7, 7 + STREAMS))

    @property
    def forced(self) -> Array:
        """int64[2, rows], the text token that the next position is given, and what it replaces: see `Forced`."""
        return self._view(slice(7 + STREAMS, 9 + STREAMS))

    @property
    def block_table(self) -> Array:
        """int64[blocks, rows], the blocks of the KV cache that belong to the call, padded with zeros."""
        return self._view(slice(9 + STREAMS, None))

    def _view(self, rows: int | slice) -> Array:
        view: Array = self.integers[rows]
        return view

    @staticmethod
    def layout(rows: int, blocks: int) -> Layout:
        """The arrays for a number of rows, and of blocks in a window."""
        return {
            "integers": (torch.int64, (9 + STREAMS + blocks, rows)),
            "temperature": (torch.float32, (2, rows)),
        }

    def first(self, rows: int) -> "CallInputs[Array]":
        """The first rows, as views."""
        return CallInputs(self.integers[:, :rows], self.temperature[:, :rows])


def call_states(slots: int, blocks: int) -> CallInputs[HostArray]:
    """Inputs on the host for every slot, all zeros: the state of the calls between two steps."""
    memory = HostAndDevice(CallInputs.layout(slots, blocks), torch.device("cpu"))
    return CallInputs(**memory.host_arrays())


def fill_rows(rows: CallInputs[HostArray], states: CallInputs[HostArray], slots: npt.NDArray[np.int64]) -> None:
    """Copy the states of `slots` to the first rows and set the others, which are padding, to zero."""
    for row, state in ((rows.integers, states.integers), (rows.temperature, states.temperature)):
        row[:, : len(slots)] = state[:, slots]
        row[:, len(slots) :] = 0


class HostAndDevice:
    """Memory on the host and its counterpart on the device; on a CPU they are the same.

    The host's part is pinned where the device is a GPU, so that copies are asynchronous.
    """

    def __init__(self, layout: Layout, device: torch.device) -> None:
        self._layout = layout
        size = sum(aligned_bytes(*field) for field in layout.values())
        self._device = torch.zeros(size, dtype=torch.uint8, device=device)
        on_gpu = device.type == "cuda"
        self._host = torch.zeros(size, dtype=torch.uint8, pin_memory=True) if on_gpu else self._device

    def device_arrays(self) -> dict[str, Tensor]:
        """The arrays of the layout on the device."""
        return self._arrays(self._device)

    def host_arrays(self) -> dict[str, HostArray]:
        """The arrays of the layout on the host."""
        return {name: tensor.numpy() for name, tensor in self._arrays(self._host).items()}

    def _arrays(self, memory: Tensor) -> dict[str, Tensor]:
        arrays, start = {}, 0
        for name, (dtype, shape) in self._layout.items():
            arrays[name] = memory[start : start + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
            start += aligned_bytes(dtype, shape)
        return arrays

    def send(self) -> None:
        """Start the copy to the device."""
        if self._host is not self._device:
            self._device.copy_(self._host, non_blocking=True)

    def fetch(self) -> None:
        """Start the copy from the device; wait for the device before reading the host's arrays."""
        if self._host is not self._device:
            self._host.copy_(self._device, non_blocking=True)


def aligned_bytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    """The bytes that an array takes in a buffer."""
    return -(-math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT


class InputBuffer(HostAndDevice):
    """The inputs of a step: the calls' and `pcm`, the users' frames, float32[rows, 1920], each on host and device."""

    def __init__(self, rows: int, blocks: int, device: torch.device) -> None:
        super().__init__({**CallInputs.layout(rows, blocks), "pcm": (torch.float32, (rows, FRAME_SAMPLES))}, device)
        host, on_device = self.host_arrays(), self.device_arrays()
        self.host_pcm, self.device_pcm = host.pop("pcm"), on_device.pop("pcm")
        self.host_calls, self.device_calls = CallInputs(**host), CallInputs(**on_device)


class OutputBuffer(HostAndDevice):
    """The outputs of a step, each on host and device.

    `tokens`: int64[18, rows], those of the next position, the user's codebook 0 being that of the current one, and at
    last the text token that the model chose itself; `pcm`: float32[rows, 1920], the agent's frames.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        layout = {"tokens": (torch.int64, (STREAMS + 1, rows)), "pcm": (torch.float32, (rows, FRAME_SAMPLES))}
        super().__init__(layout, device)
        host, on_device = self.host_arrays(), self.device_arrays()
        self.host_tokens, self.host_pcm = host["tokens"], host["pcm"]
        self.device_tokens, self.device_pcm = on_device["tokens"], on_device["pcm"]
