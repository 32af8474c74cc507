"""The shape of a Moshi language model, as a checkpoint's `config.json` gives it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from core.errors import CheckpointError

AGENT_CODEBOOKS = 8
USER_CODEBOOKS = 8
STREAMS = 1 + AGENT_CODEBOOKS + USER_CODEBOOKS
"""Token streams a frame: text, then the agent's codebooks, then the user's."""
DELAYS = (0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1)
"""By how many positions each stream's tokens come after those of codebook 0 (arXiv 2410.00037, section 3.4)."""

FIXED: Mapping[str, Any] = {
    "n_q": AGENT_CODEBOOKS + USER_CODEBOOKS,
    "delays": list(DELAYS),
    "causal": True,
    "gating": "silu",
    "norm": "rms_norm_f32",
    "positional_embedding": "rope",
    "depformer_gating": "silu",
    "depformer_pos_emb": "none",
    "depformer_multi_linear": True,
    "depformer_weights_per_step": True,
}
"""What every PersonaPlex and Moshi checkpoint has in common, and this engine is written for."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of the transformer and the depformer; the defaults are Moshi 7B's (`moshi.models.loaders._lm_kwargs`).

    `context` is in frames, `max_period` that of the rotary embedding.
    """

    dim: int = 4096
    num_heads: int = 32
    num_layers: int = 32
    hidden_scale: float = 4.125
    context: int = 3000
    max_period: float = 10_000.0
    text_card: int = 32_000
    existing_text_padding_id: int = 3
    card: int = 2048
    depformer_dim: int = 1024
    depformer_num_heads: int = 16
    depformer_num_layers: int = 6
    depformer_dim_feedforward: int = 4224

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def hidden(self) -> int:
        """Width of the gated feed-forward layer; the two thirds are `moshi.modules.gating`'s."""
        return gated_width(self.dim, int(self.hidden_scale * self.dim))

    @property
    def depformer_hidden(self) -> int:
        return gated_width(self.depformer_dim, self.depformer_dim_feedforward)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], source: str) -> "Architecture":
        """Read the architecture's keys out of a checkpoint's config; absent ones are Moshi 7B's.

        Raises CheckpointError, naming `source` and the key, when the checkpoint is of a kind this engine does not run.
        """
        for key, value in FIXED.items():
            if config.get(key, value) != value:
                raise CheckpointError(f"{source}: {key} is {config[key]!r}; this engine runs only {value!r}.")
        sizes: dict[str, Any] = {}
        for field in fields(cls):
            if field.name not in config:
                continue
            size = config[field.name]
            whole = isinstance(field.default, int)
            if isinstance(size, bool) or not isinstance(size, int if whole else int | float) or size <= 0:
                kind = "positive whole number" if whole else "positive number"
                raise CheckpointError(f"{source}: {field.name} must be a {kind}, not {size!r}.")
            sizes[field.name] = size
        architecture = cls(**sizes)
        for dim, heads in (("dim", "num_heads"), ("depformer_dim", "depformer_num_heads")):
            if getattr(architecture, dim) % (2 * getattr(architecture, heads)):
                raise CheckpointError(f"{source}: {dim} must be an even multiple of {heads}.")
        return architecture


def gated_width(dim: int, feedforward: int) -> int:
    """Hidden units of a gated layer that has about the parameters of a plain one of width `feedforward`."""
    return 21 * dim // 8 if feedforward == 4 * dim else 2 * feedforward // 3
