"""The shape of a Moshi language model, as a checkpoint's `config.json` gives it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from core.errors import CheckpointError

AGENT_CODEBOOKS = 8
USER_CODEBOOKS = 8
STREAMS = 1 + AGENT_CODEBOOKS + USER_CODEBOOKS
"""Token streams of a frame: text, then the agent's codebooks, then the user's."""
DELAYS = (0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1)
"""How many positions each stream lags behind codebook 0: the acoustic delay of arXiv 2410.00037, section 3.4."""

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
"""Config values shared by every PersonaPlex and Moshi checkpoint; the engine supports no others."""
END_OF_PADDING, PADDING = 0, 3
"""The text tokens of frames in which no piece of a word begins; the former announces a word."""
CONFIG_KEYS: Mapping[str, str] = {"text_vocab_size": "text_card", "audio_vocab_size": "card"}
"""The keys of `config.json` for the fields of `Architecture` that have another name there."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of the transformer and the depformer; the defaults are Moshi 7B's (`moshi.models.loaders._lm_kwargs`).

    `context` is the attention window in frames, `max_period` is that of the rotary embedding, and `audio_vocab_size` is
    the number of codes in each codebook.
    """

    dim: int = 4096
    num_heads: int = 32
    num_layers: int = 32
    hidden_scale: float = 4.125
    context: int = 3000
    max_period: float = 10_000.0
    text_vocab_size: int = 32_000
    existing_text_padding_id: int = 3
    audio_vocab_size: int = 2048
    depformer_dim: int = 1024
    depformer_num_heads: int = 16
    depformer_num_layers: int = 6
    depformer_dim_feedforward: int = 4224

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.dim // self.num_heads

    @property
    def hidden(self) -> int:
        """Width of the transformer's gated feed-forward layer."""
        return gated_width(self.dim, int(self.hidden_scale * self.dim))

    @property
    def depformer_hidden(self) -> int:
        """Width of the depformer's gated feed-forward layers."""
        return gated_width(self.depformer_dim, self.depformer_dim_feedforward)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], source: str) -> "Architecture":
        """Read the architecture from a checkpoint's config; absent keys take Moshi 7B's values.

        Raises CheckpointError, naming `source` and the key, when the engine does not support the checkpoint.
        """
        for key, value in FIXED.items():
            if config.get(key, value) != value:
                raise CheckpointError(f"{source}: {key} is {config[key]!r}; this engine runs only {value!r}.")
        sizes: dict[str, Any] = {}
        for field in fields(cls):
            key = CONFIG_KEYS.get(field.name, field.name)
            if key not in config:
                continue
            size = config[key]
            whole = isinstance(field.default, int)
            if isinstance(size, bool) or not isinstance(size, int if whole else int | float) or size <= 0:
                kind = "positive whole number" if whole else "positive number"
                raise CheckpointError(f"{source}: {key} must be a {kind}, not {size!r}.")
            sizes[field.name] = size
        architecture = cls(**sizes)
        for dim, heads in (("dim", "num_heads"), ("depformer_dim", "depformer_num_heads")):
            if getattr(architecture, dim) % (2 * getattr(architecture, heads)):
                raise CheckpointError(f"{source}: {dim} must be an even multiple of {heads}.")
        return architecture

    def to_config(self) -> dict[str, Any]:
        """The architecture under the keys of a checkpoint's `config.json`; `from_config` reads them back."""
        return {CONFIG_KEYS.get(field.name, field.name): getattr(self, field.name) for field in fields(self)}


def gated_width(dim: int, feedforward: int) -> int:
    """Hidden units of a gated layer with about as many parameters as an ungated one of width `feedforward`.

    The formula is that of `moshi.modules.gating`.
    """
    return 21 * dim // 8 if feedforward == 4 * dim else 2 * feedforward // 3
