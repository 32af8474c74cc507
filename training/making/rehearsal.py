"""A codec for rehearsals, so small that a CPU encodes with it at once. Nobody has trained it: its speech is noise."""

from pathlib import Path

import torch
from moshi.models.loaders import get_mimi
from safetensors.torch import save_file

from core.engine.architecture import AGENT_CODEBOOKS
from training.shape import SMALL


def write_codec(folder: Path) -> None:
    """Make the training folder's frozen codec, unless there is one."""
    path = folder / "mimi.safetensors"
    if path.exists():
        return
    mimi = get_mimi(None, SMALL.mimi, device="cpu", num_codebooks=AGENT_CODEBOOKS)
    for name, tensor in mimi.state_dict().items():
        if name.endswith(("_initialized", "cluster_usage")):
            tensor.fill_(1.0)
        elif name.endswith("embedding_sum"):
            torch.nn.init.normal_(tensor)
    save_file(mimi.state_dict(), path)
