"""What measurements share: the time that work takes, the speed and the use of a device's memory, and dtypes' names."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

COPY_BYTES = 2 << 30
"""What is copied on a GPU to find out how fast its memory is; on a CPU an eighth of it."""


def times(work: Callable[[], object], count: int) -> npt.NDArray[np.float64]:
    """Milliseconds of each of `count` runs, after a few that do not count."""
    for _ in range(5):
        work()
    measured = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        measured.append((time.perf_counter() - start) * 1000)
    return np.array(measured)


def bandwidth(device: torch.device) -> float:
    """Bytes a second that a large copy moves, read and written."""
    source = torch.empty(COPY_BYTES if device.type == "cuda" else COPY_BYTES // 8, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        synchronise(device)

    return 2 * source.nbytes / (float(np.median(times(copy, 10))) / 1000)


def synchronise(device: torch.device) -> None:
    """Wait for a GPU; a CPU has nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize()


@contextmanager
def fresh_memory(device: torch.device) -> Iterator[None]:
    """Free the memory of other measurements, before and after."""
    collect(device)
    yield
    collect(device)


def collect(device: torch.device) -> None:
    """Free the memory that nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: torch.device) -> float:
    """The most memory that was allocated on the GPU since the last reset, in GiB."""
    return torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0


def short(dtype: torch.dtype) -> str:
    """A dtype's name."""
    return str(dtype).removeprefix("torch.")
