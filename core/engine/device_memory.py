"""What a GPU's memory holds."""

import torch


def memory_in_use(device: torch.device) -> dict[str, int]:
    """Bytes of a GPU's memory, by kind: `total`, `reserved` by this process, `allocated` of that; {} for a CPU."""
    if device.type != "cuda":
        return {}
    return {
        "total": torch.cuda.get_device_properties(device).total_memory,
        "reserved": torch.cuda.memory_reserved(device),
        "allocated": torch.cuda.memory_allocated(device),
    }
