"""Growth of a language model: more layers and wider ones, which at first change nothing, around weights that are known.

What is new adds nothing to what was there, since its output weights are zero, and where it reads what is new, it reads
zeros. Its input weights are random, so that it learns something else than what stands beside it (Chen et al.,
"Net2Net", 2016). New layers stand evenly among the old ones, as in LLaMA Pro (Wu et al., 2024), but none before the
caller's words are known: what is asked for is found in the prompt after that. New channels are zero in every embedding;
norms divide by the mean over more channels then, for which their weights make up.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import cast

import click
import torch
from torch import Tensor, nn

from core.engine.architecture import Architecture
from core.engine.checkpoint import Checkpoint
from core.engine.stored_weights import read_weights
from training.network import HEARING_LAYERS, Layer, Network

GROWING = {
    "dim",
    "num_heads",
    "num_layers",
    "hidden_scale",
    "context",
    "depformer_num_layers",
    "depformer_dim_feedforward",
}
"""The sizes that may become larger; heads, more of them, stay as wide as they are."""


def grown(checkpoint: Path, architecture: Architecture, dropout: float = 0.0) -> Network:
    """A network of the given size that computes what the checkpoint in a folder does.

    What the checkpoint has no weights for, which is hearing, begins at random. Raises CheckpointError when there is
    none that can be read, and ClickException when it cannot grow to that size.
    """
    described = Checkpoint.read(checkpoint)
    check_growth(described.architecture, architecture, checkpoint)
    small = Network(described.architecture)
    small.load_checkpoint(read_weights(described.weights))
    return larger(small, architecture, dropout)


def grown_state(state: Mapping[str, Tensor], architecture: Architecture, source: Path) -> dict[str, Tensor]:
    """The weights of a network of the given size that computes what one with the weights of `state` does, which
    `source` holds: one with fewer channels or fewer layers, and otherwise of the same size.

    Raises ClickException when it cannot grow to that size.
    """
    try:
        layers = {name.split(".")[1] for name in state if name.startswith("layers.")}
        width = state["text_emb"].shape[1]
        heads = max(1, width // architecture.head_dim)
        small = Network(replace(architecture, dim=width, num_heads=heads, num_layers=len(layers)))
        small.load_state_dict(dict(state))
    except (KeyError, RuntimeError):
        raise click.ClickException(f"{source} has another shape than what is trained: move it away.") from None
    if small.architecture == architecture:
        return dict(state)
    check_growth(small.architecture, architecture, source)
    return larger(small, architecture).state_dict()


def check_growth(old: Architecture, new: Architecture, source: Path) -> None:
    """Raise ClickException when a model of one size cannot become one of the other."""
    for field in fields(Architecture):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if after != before and not (field.name in GROWING and after > before):
            raise click.ClickException(f"{source} has {field.name} {before}, which cannot become {after}.")
    for before, after in ((old.hidden, new.hidden), (old.depformer_hidden, new.depformer_hidden)):
        if after < before:
            raise click.ClickException(f"{source} has {before} hidden channels, which cannot become {after}.")
    if old.head_dim != new.head_dim:
        raise click.ClickException(f"{source} has heads of {old.head_dim} channels, not of {new.head_dim}.")


@torch.no_grad()
def larger(small: Network, architecture: Architecture, dropout: float = 0.0) -> Network:
    """A network of the given size, which `check_growth` allows, that computes what a smaller one does.

    What is random in it is the same each time, so that a mean of it and of what it becomes in training makes sense.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        large = Network(architecture, dropout)
    for name, parameter in large.named_parameters():
        if "layers." not in name:
            widen(small.get_parameter(name), parameter)
    grow_layers(small.layers, large.layers, HEARING_LAYERS[-1])
    grow_layers(small.depformer_layers, large.depformer_layers, 0)
    return large


def widen(old: Tensor, new: Tensor) -> None:
    """Copy an embedding, a projection, `[..., channels]`, or the weights of a norm, `[channels]`, to more channels."""
    width = old.shape[-1]
    if old.dim() == 1:
        new.fill_(1.0)
        new[:width] = old
        new *= (width / len(new)) ** 0.5
    else:
        new.zero_()
        new[..., :width] = old


def places_of(old: int, new: int, hearing: int) -> list[int]:
    """Where each of `old` layers stands among `new` ones: the first `hearing` ones where they were, and so one that is
    alone above them; several evenly up to the last."""
    hearing = min(hearing, old - 1)
    answering, places = old - hearing, new - hearing
    return [*range(hearing), *(hearing + round(n * (places - 1) / max(answering - 1, 1)) for n in range(answering))]


def grow_layers(old: nn.ModuleList, new: nn.ModuleList, hearing: int) -> None:
    """Give new layers what the old ones do, and let those between them do nothing."""
    layers = list(cast(Iterable[Layer], new))
    for layer in layers:
        layer.out_proj.zero_()
        layer.linear_out.zero_()
    for place, layer in zip(places_of(len(old), len(new), hearing), cast(Iterable[Layer], old), strict=True):
        copy_layer(layer, layers[place])


def copy_layer(old: Layer, new: Layer) -> None:
    """Copy a layer into one that is as wide or wider, and whose output matrices are zero."""
    steps, dim, hidden = old.linear_out.shape
    for before, after in ((old.norm1, new.norm1), (old.norm2, new.norm2)):
        widen(before.alpha, after.alpha)
    rows = old.in_proj.view(steps, 3, dim, dim)
    new.in_proj.view(steps, 3, new.in_proj.shape[2], -1)[:, :, :dim, :dim] = rows
    new.out_proj[:, :dim, :dim] = old.out_proj
    for part, grown_part in zip(halves(old.linear_in), halves(new.linear_in), strict=True):
        grown_part[:, :hidden, :dim] = part
    new.linear_out[:, :dim, :hidden] = old.linear_out


def halves(linear_in: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of the gate and those of the values, `[steps, hidden, dim]`, as views."""
    gate, value = linear_in.chunk(2, dim=1)
    return gate, value
