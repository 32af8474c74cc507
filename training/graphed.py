"""A training step as one CUDA graph: small models are otherwise bound by the launch of their thousands of kernels."""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

Result = TypeVar("Result")

WARM_UP_STEPS = 10
"""Steps before the capture: optimisers get their state, libraries choose kernels, and a codebook a step begins."""


class GraphedStep(Generic[Result]):
    """Calls `step`; on a GPU it is captured once and replayed, with what it returned then holding the new values.

    `step` must read everything that changes from tensors that stay where they are, its optimisers must be `capturable`,
    and it must not wait for the GPU. It sets gradients to none before it makes them.
    """

    def __init__(self, step: Callable[[], Result], device: torch.device) -> None:
        self._step, self._device = step, device
        self._captured: tuple[torch.cuda.CUDAGraph, Result] | None = None
        self._warm_ups = 0

    def __call__(self) -> Result:
        if self._device.type != "cuda":
            return self._step()
        if self._warm_ups < WARM_UP_STEPS:
            self._warm_ups += 1
            return self._aside()
        if self._captured is None:
            self._captured = self._capture()
        graph, result = self._captured
        graph.replay()
        return result

    def _capture(self) -> tuple[torch.cuda.CUDAGraph, Result]:
        """The step as a graph, and where it leaves its result. Capturing does not run it."""
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # Other threads may watch their own work.
            result = self._step()
        return graph, result

    def _aside(self) -> Result:
        """A step on a stream of its own, as a capture asks of the steps before it."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = self._step()
        torch.cuda.current_stream().wait_stream(stream)
        return result
