"""Growth of a language model: more layers and wider ones, which at first change nothing, around weights that are known.

New layers add nothing to what passes them, since their output matrices are zero, and new hidden units have zero output
weights. Both have random input weights, so that they learn something else than those beside them (Chen et al.,
"Net2Net", 2016). New layers stand evenly among the old ones, as in LLaMA Pro (Wu et al., 2024): what they make of the
caller's sound is of use to the layers above, which know how to answer.
"""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import cast

import click
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from core.engine.architecture import Architecture
from core.engine.checkpoint import Checkpoint
from training.network import Layer, Network

GROWING = {"num_layers", "hidden_scale", "context", "depformer_num_layers", "depformer_dim_feedforward"}
"""The sizes that may become larger."""


@torch.no_grad()
def grown(checkpoint: Path, architecture: Architecture, dropout: float = 0.0) -> Network:
    """A network of the given size that computes what the checkpoint in a folder does.

    What the checkpoint has no weights for, which is hearing, begins at random.
    """
    described = Checkpoint.read(checkpoint)
    check_growth(described.architecture, architecture, checkpoint)
    small, large = Network(described.architecture), Network(architecture, dropout)
    small.load_checkpoint(load_file(described.weights))
    for name, parameter in large.named_parameters():
        if "layers." not in name and not name.startswith("heard_"):
            parameter.copy_(small.get_parameter(name))
    for old, new in ((small.layers, large.layers), (small.depformer_layers, large.depformer_layers)):
        grow_layers(old, new)
    return large


def check_growth(old: Architecture, new: Architecture, source: Path) -> None:
    """Raise ClickException when a model of one size cannot become one of the other."""
    for field in fields(Architecture):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if after != before and not (field.name in GROWING and after > before):
            raise click.ClickException(f"{source} has {field.name} {before}, which cannot become {after}.")


def places_of(old: int, new: int) -> list[int]:
    """Where each of `old` layers stands among `new` ones: evenly, from the first to the last."""
    return [round(number * (new - 1) / max(old - 1, 1)) for number in range(old)]


def grow_layers(old: nn.ModuleList, new: nn.ModuleList) -> None:
    """Give new layers what the old ones do, and let those between them do nothing."""
    layers = list(cast(Iterable[Layer], new))
    for layer in layers:
        layer.out_proj.zero_()
        layer.linear_out.zero_()
    for place, layer in zip(places_of(len(old), len(new)), cast(Iterable[Layer], old), strict=True):
        copy_layer(layer, layers[place])


def copy_layer(old: Layer, new: Layer) -> None:
    """Copy a layer into one whose feed-forward part is as wide or wider, and whose output matrices are zero."""
    for name, parameter in old.named_parameters():
        if name not in ("linear_in", "linear_out"):
            new.get_parameter(name).copy_(parameter)
    width = old.linear_out.shape[2]
    for before, after in zip(halves(old.linear_in), halves(new.linear_in), strict=True):
        after[:, :width] = before
    new.linear_out[:, :, :width] = old.linear_out


def halves(linear_in: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of the gate and those of the values, `[steps, hidden, dim]`, as views."""
    gate, value = linear_in.chunk(2, dim=1)
    return gate, value
