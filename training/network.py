"""The language model as it is trained: whole conversations at once, the same arithmetic as the engine's.

The depformer's eight steps have matrices of their own; here they are stacked, so that each layer is one product over
all steps and all frames.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.engine.architecture import AGENT_CODEBOOKS, STREAMS, Architecture
from core.engine.transformer import NORM_EPSILON

HEARING_LAYERS = 6, 9
"""The layers, counted from 1, after which it must tell the caller's words; those above answer. The first comes early,
so that enough layers are left to find in the prompt what was asked for (Lee and Watanabe, "Intermediate Loss
Regularization for CTC-based Speech Recognition", arXiv 2102.03216)."""


def made(*shape: int, scale: float | None = None) -> nn.Parameter:
    """A new matrix, `[..., rows, columns]`, of standard deviation `scale`, or one over the root of the columns."""
    return nn.Parameter(torch.randn(shape) * (shape[-1] ** -0.5 if scale is None else scale))


class Norm(nn.Module):
    """Root-mean-square norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.alpha.shape, self.alpha, NORM_EPSILON)


class Layer(nn.Module):
    """A layer with `steps` sets of matrices: `[steps, batch, time, dim]` or, with one, `[batch, time, dim]`.

    In training, `dropout` of what its two parts add is left out.
    """

    def __init__(self, dim: int, heads: int, hidden: int, steps: int, depth: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.steps, self.dropout = heads, steps, dropout
        shrunk = dim**-0.5 / math.sqrt(2 * depth)
        self.norm1, self.norm2 = Norm(dim), Norm(dim)
        self.in_proj = made(steps, 3 * dim, dim)
        self.out_proj = made(steps, dim, dim, scale=shrunk)
        self.linear_in = made(steps, 2 * hidden, dim)
        self.linear_out = made(steps, dim, hidden, scale=shrunk)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """`x`: `[batch, time, steps, dim]`. Attention goes over time where there is one step, else over the steps."""
        x = x + F.dropout(self._attend(self.norm1(x), rotation), self.dropout, self.training)
        gate, value = self._product(self.norm2(x), self.linear_in).chunk(2, dim=-1)
        return x + F.dropout(self._product(F.silu(gate) * value, self.linear_out), self.dropout, self.training)

    def stacks(self) -> list[tuple[nn.Parameter, int]]:
        """Its matrices, and of how many, one below the other, each of them is made: query, key and value, gate and
        value."""
        return [(self.in_proj, 3), (self.out_proj, 1), (self.linear_in, 2), (self.linear_out, 1)]

    def _attend(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        batch, time, steps, dim = x.shape
        projected = self._product(x, self.in_proj)
        rows = (batch, time) if steps == 1 else (batch * time, steps)
        query, key, value = projected.view(*rows, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self._product(seen.transpose(1, 2).reshape(batch, time, steps, dim), self.out_proj)

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.steps == 1:
            return F.linear(x, weight[0])
        batch, time, steps, columns = x.shape
        rows = x.reshape(batch * time, steps, columns).transpose(0, 1)
        return torch.bmm(rows, weight.transpose(1, 2)).transpose(0, 1).reshape(batch, time, steps, -1)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn neighbouring pairs of channels by their positions' angles (moshi's interleaved rotary embedding)."""
    cosine, sine = rotation
    real, imaginary = x.float().view(*x.shape[:-1], -1, 2).unbind(-1)
    turned = torch.stack([real * cosine - imaginary * sine, real * sine + imaginary * cosine], dim=-1)
    return turned.flatten(-2).to(x.dtype)


class Logits(NamedTuple):
    """What a network expects after each position, before the softmax."""

    text: Tensor
    """`[batch, time, text_vocab_size]`, of the agent's text."""
    codes: Tensor
    """`[batch, time or count, 8, audio_vocab_size]`, of the agent's codes."""
    heard: tuple[Tensor, ...]
    """`[batch, time, text_vocab_size]`, of the text that the caller says, after each of HEARING_LAYERS."""


class Network(nn.Module):
    """Moshi's language model, for training; `dropout` is the temporal transformer's.

    It also tells what the caller says, from layers within: a task beside the model's own, which is learned that it
    hears, as a speech recogniser does. No checkpoint contains it.
    """

    def __init__(self, architecture: Architecture, dropout: float = 0.0) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.text_emb = made(a.text_vocab_size + 1, a.dim)
        self.emb = made(STREAMS - 1, a.audio_vocab_size + 1, a.dim)
        self.layers = nn.ModuleList(
            Layer(a.dim, a.num_heads, a.hidden, 1, a.num_layers, dropout) for _ in range(a.num_layers)
        )
        self.out_norm = Norm(a.dim)
        self.text_linear = made(a.text_vocab_size, a.dim)
        self.depformer_in = made(AGENT_CODEBOOKS, a.depformer_dim, a.dim)
        self.depformer_text_emb = made(a.text_vocab_size + 1, a.depformer_dim)
        self.depformer_emb = made(AGENT_CODEBOOKS - 1, a.audio_vocab_size + 1, a.depformer_dim)
        self.depformer_layers = nn.ModuleList(
            Layer(a.depformer_dim, a.depformer_num_heads, a.depformer_hidden, AGENT_CODEBOOKS, a.depformer_num_layers)
            for _ in range(a.depformer_num_layers)
        )
        self.linears = made(AGENT_CODEBOOKS, a.audio_vocab_size, a.depformer_dim)
        self.heard_norms = nn.ModuleList(Norm(a.dim) for _ in HEARING_LAYERS)
        self.heard_linear = made(a.text_vocab_size, a.dim)

    def forward(
        self, tokens: Tensor, target: Tensor, chosen: Tensor | None = None, positions: Tensor | None = None
    ) -> Logits:
        """Logits of what follows each position, the agent's codes only at the `chosen` ones, int64[batch, count].

        `tokens`: int64[batch, time, 17], what is read; `target`: int64[batch, time, 9], what follows, text and agent;
        `positions`: int64[batch, time], by which to rotate, where they do not simply count from 0.
        """
        a = self.architecture
        x = F.embedding(tokens[:, :, 0], self.text_emb)
        rows = tokens[:, :, 1:] + torch.arange(STREAMS - 1, device=tokens.device) * (a.audio_vocab_size + 1)
        batch, time = rows.shape[:2]
        x = x + F.embedding_bag(rows.reshape(-1, STREAMS - 1), self.emb.flatten(0, 1), mode="sum").view(batch, time, -1)
        x = x[:, :, None]
        if positions is None:
            positions = torch.arange(time, device=tokens.device)[None]
        rotation = self._rotation(positions)
        after = [x := layer(x, rotation) for layer in self.layers]
        hearing = (after[min(number, a.num_layers) - 1] for number in HEARING_LAYERS)
        heard = tuple(
            F.linear(norm(y[:, :, 0]), self.heard_linear) for norm, y in zip(self.heard_norms, hearing, strict=True)
        )
        hidden = self.out_norm(x[:, :, 0])
        text = F.linear(hidden, self.text_linear)

        if chosen is not None:
            hidden = hidden.gather(1, chosen[..., None].expand(-1, -1, a.dim))
            target = target.gather(1, chosen[..., None].expand(-1, -1, target.shape[2]))
            time = chosen.shape[1]
        previous = [F.embedding(target[:, :, 0], self.depformer_text_emb)]
        previous += [F.embedding(target[:, :, 1 + n], self.depformer_emb[n]) for n in range(AGENT_CODEBOOKS - 1)]
        y = F.linear(hidden, self.depformer_in.flatten(0, 1)).view(batch, time, AGENT_CODEBOOKS, -1)
        y = y + torch.stack(previous, dim=2)
        for layer in self.depformer_layers:
            y = layer(y, None)
        codes = torch.einsum("btkd,kcd->btkc", y.to(self.linears.dtype), self.linears)
        return Logits(text, codes, heard)

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for int64[batch, time] positions, `[batch, 1, time, head_dim / 2]`, for all heads."""
        head = self.architecture.head_dim
        pairs = torch.arange(0, head, 2, device=positions.device, dtype=torch.float32)
        angles = positions[:, None, :, None].float() * self.architecture.max_period ** (-pairs / head)
        return angles.cos(), angles.sin()

    def checkpoint(self) -> dict[str, Tensor]:
        """The weights under the names and in the shapes of a checkpoint in the hub's layout."""
        return {name: tensor.detach().clone().contiguous() for name, tensor in self._stored().items()}

    @torch.no_grad()
    def load_checkpoint(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the weights that `checkpoint` gives; what no checkpoint contains stays. Raises ValueError at others."""
        stored = self._stored()
        if tensors.keys() != stored.keys():
            raise ValueError(f"not this network's tensors: {', '.join(sorted(tensors.keys() ^ stored.keys()))}")
        for name, tensor in stored.items():
            if tensor.shape != tensors[name].shape:
                raise ValueError(f"{name} has shape {list(tensors[name].shape)}, not {list(tensor.shape)}")
            tensor.copy_(tensors[name])

    def _stored(self) -> dict[str, Tensor]:
        """Views of the weights, named and shaped as a checkpoint has them."""
        tensors = {
            "text_emb.weight": self.text_emb,
            "text_linear.weight": self.text_linear,
            "out_norm.alpha": self.out_norm.alpha[None, None],
            "depformer_text_emb.weight": self.depformer_text_emb,
        }
        for name, stack in (
            ("emb", self.emb),
            ("depformer_in", self.depformer_in),
            ("depformer_emb", self.depformer_emb),
            ("linears", self.linears),
        ):
            tensors |= {f"{name}.{n}.weight": part for n, part in enumerate(stack)}
        for prefix, layers in (("transformer", self.layers), ("depformer", self.depformer_layers)):
            for number, layer in enumerate(cast(Iterable[Layer], layers)):
                at = f"{prefix}.layers.{number}"
                tensors[f"{at}.norm1.alpha"] = layer.norm1.alpha[None, None]
                tensors[f"{at}.norm2.alpha"] = layer.norm2.alpha[None, None]
                tensors[f"{at}.self_attn.in_proj_weight"] = layer.in_proj.flatten(0, 1)
                tensors[f"{at}.self_attn.out_proj.weight"] = layer.out_proj.flatten(0, 1)
                for step in range(layer.steps):
                    gating = f"{at}.gating.{step}" if prefix == "depformer" else f"{at}.gating"
                    tensors[f"{gating}.linear_in.weight"] = layer.linear_in[step]
                    tensors[f"{gating}.linear_out.weight"] = layer.linear_out[step]
        return tensors
