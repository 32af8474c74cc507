"""The device and the dtypes that the engine runs with."""

from collections.abc import Callable

import torch

from core.boot.gpu_problems import gpu_problem
from core.errors import EngineError


def pick_device(name: str, report: Callable[[str], None] = lambda _: None) -> torch.device:
    """Return the device of that name, where `auto` is a GPU if there is one that can be used.

    Where `auto` passes a GPU over, `report` is told why. Raises EngineError where the device named cannot be used.
    """
    problem = gpu_problem() if name != "cpu" else ""
    if name == "auto":
        if problem:
            report(f"Running on the CPU, since the GPU cannot be used: {problem}.")
        return torch.device("cuda" if torch.cuda.is_available() and not problem else "cpu")
    missing = (
        f"engine.device {name!r} is not on this machine; use auto, cpu or cuda (CUDA_VISIBLE_DEVICES picks a GPU)."
    )
    if name == "cuda" and problem:
        raise EngineError(f"engine.device 'cuda' cannot be used: {problem}.")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise EngineError(missing) from error
    if name not in ("cpu", "cuda"):
        raise EngineError(missing)
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of that name, where `auto` is bfloat16 on a GPU and float32 on a CPU."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def pick_cache_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """Return the KV cache's dtype of that name, where `auto` is the model's `dtype`."""
    return {"auto": dtype, "bfloat16": torch.bfloat16, "int8": torch.int8}[name]


def device_name(device: torch.device) -> str:
    """The device's name for people."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def memory_gib(device: torch.device) -> dict[str, float]:
    """A GPU's memory in use and in all, in GiB, for the log; nothing for a CPU."""
    if device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(device)
    return {"memory_used_gib": round((total - free) / 2**30, 1), "memory_gib": round(total / 2**30, 1)}
