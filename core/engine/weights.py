"""Loading of weights: from the memory-mapped file straight into the model, each tensor checked by name and shape."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from moshi.models.compression import MimiModel
from moshi.models.loaders import get_mimi
from torch import nn

from core.engine.architecture import AGENT_CODEBOOKS
from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE
from core.engine.linear import Int8Linear, Linear
from core.engine.lm import LanguageModel
from core.engine.mimi.spectral import SpectralMimi, SpectralNetwork, SpectralShape
from core.engine.stored_weights import open_safetensors, open_weights, raise_problems
from core.errors import CheckpointError

PER_STEP = re.compile(r"(depformer_in|depformer_emb|linears|depformer\.layers\.\d+\.gating)\.(\d+)\.")
"""The names of tensors that a checkpoint has once for each depformer step."""
STACKED = re.compile(r"depformer\.layers\.\d+\.self_attn\.(in_proj_weight|out_proj\.weight)")
"""The names of tensors in which a checkpoint stacks all depformer steps along the first dimension."""


def load_language_model(lm: LanguageModel, path: Path) -> None:
    """Fill `lm` from a safetensors file in the hub's layout, converting to its dtype or quantizing to 8 bits.

    The file's matrices may have 8 or 4 bits already. PersonaPlex's depformer has 16 steps, of which the last 8 predict
    the user, whose codes are always known: their tensors are never read. Raises CheckpointError naming every missing,
    extra or misshapen tensor.
    """
    problems: list[str] = []
    with open_weights(path) as file:
        wanted = {stored_name(name): parameter for name, parameter in lm.named_parameters()}
        matrices = {stored_name(f"{name}.weight"): m for name, m in lm.named_modules() if isinstance(m, Int8Linear)}
        problems += [f"{name} is missing" for name in wanted if name not in file.names]
        problems += [f"{name} is not one of this model's" for name in sorted(file.names) if not expected(name, wanted)]
        problems += file.problems
        for name in [name for name in wanted if name in file.names]:
            parameter, shape = wanted[name], file.shape(name)
            rows = parameter.shape[0]
            if STACKED.fullmatch(name) and shape and shape[0] > rows and shape[0] % (rows // AGENT_CODEBOOKS) == 0:
                shape = [rows, *shape[1:]]
            if shape != list(parameter.shape):
                problems.append(f"{name} has shape {file.shape(name)}, not {list(parameter.shape)}")
            elif not problems and name in matrices:
                if name in file.quantized:
                    matrices[name].fill(*file.integers(name, rows))
                else:
                    matrices[name].quantize(file.rows(name, rows))
            elif not problems:
                parameter.data.copy_(file.rows(name, rows))
    raise_problems(path, problems)
    for module in lm.modules():
        if isinstance(module, Linear):
            module.pack()


def stored_name(name: str) -> str:
    """The name that a checkpoint gives to one of the engine's parameters."""
    return name.replace("self_attn.in_proj.weight", "self_attn.in_proj_weight")


def expected(name: str, wanted: dict[str, nn.Parameter]) -> bool:
    """Whether a stored tensor belongs to the model, or to a depformer step that the model leaves out."""
    per_step = PER_STEP.match(name)
    return name in wanted or (per_step is not None and PER_STEP.sub(rf"{per_step[1]}.0.", name) in wanted)


def load_mimi(path: Path, config: dict[str, Any] | None, device: torch.device) -> MimiModel:
    """Load Mimi with the eight codebooks that Moshi uses; a `config` of None is Kyutai's own.

    Where the config has the section of a `SpectralShape`, it is a `SpectralMimi`. Raises CheckpointError naming every
    missing, extra or misshapen tensor.
    """
    mimi = get_mimi(None, config, device=device, num_codebooks=AGENT_CODEBOOKS)
    shape = SpectralShape.from_config(config or {}, f"The config of {path}")
    if shape is not None:
        if shape.latent != mimi.dimension:
            raise CheckpointError(f"The config of {path}: spectral.latent must be {mimi.dimension}, as seanet has it.")
        mimi = SpectralMimi(mimi, SpectralNetwork(shape).to(device))
    problems: list[str] = []
    with open_safetensors(path) as file:
        present = set(file.keys())
        wanted = mimi.state_dict()
        problems += [f"{name} is missing" for name in wanted if name not in present]
        problems += [f"{name} is not one of this codec's" for name in sorted(present - set(wanted))]
        for name in [name for name in wanted if name in present]:
            stored = file.get_slice(name)
            if stored.get_shape() != list(wanted[name].shape):
                problems.append(f"{name} has shape {stored.get_shape()}, not {list(wanted[name].shape)}")
            elif not problems:
                wanted[name].copy_(file.get_tensor(name))
    if (mimi.sample_rate, mimi.frame_size) != (SAMPLE_RATE, FRAME_SAMPLES):
        problems.append(f"its frames have {mimi.frame_size} samples at {mimi.sample_rate} Hz, not 1920 at 24000")
    raise_problems(path, problems)
    return mimi


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a checkpoint. Raises CheckpointError when it holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object.")
    return content
