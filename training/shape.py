"""Nano's shape: PersonaPlex's architecture at about a thousandth of the size."""

from dataclasses import dataclass, replace
from typing import Any

from core.engine.architecture import AGENT_CODEBOOKS, Architecture
from core.engine.mimi.spectral import SpectralShape

ARCHITECTURE = Architecture(
    dim=384,
    num_heads=6,
    num_layers=16,
    hidden_scale=5.25,
    context=1500,
    text_vocab_size=1000,
    audio_vocab_size=512,
    depformer_dim=128,
    depformer_num_heads=4,
    depformer_num_layers=1,
    depformer_dim_feedforward=528,
)


def codec_shape(
    dim: int, filters: int, layers: int, codebook_size: int = ARCHITECTURE.audio_vocab_size
) -> dict[str, Any]:
    """Mimi's config at another size: channels, the outermost convolution's filters, transformer layers each way.

    `codebook_size` is the number of codes in a codebook.
    """
    return {
        "sample_rate": 24_000,
        "channels": 1,
        "frame_rate": 12.5,
        "seanet": {
            "channels": 1,
            "dimension": dim,
            "causal": True,
            "n_filters": filters,
            "n_residual_layers": 1,
            "activation": "ELU",
            "compress": 2,
            "dilation_base": 2,
            "disable_norm_outer_blocks": 0,
            "kernel_size": 7,
            "residual_kernel_size": 3,
            "last_kernel_size": 3,
            "norm": "none",
            "pad_mode": "constant",
            "ratios": [8, 6, 5, 4],
            "true_skip": True,
        },
        "quantizer": {
            "dimension": dim // 2,
            "n_q": AGENT_CODEBOOKS,
            "bins": codebook_size,
            "input_dimension": dim,
            "output_dimension": dim,
        },
        "transformer": {
            "d_model": dim,
            "num_heads": 4,
            "num_layers": layers,
            "causal": True,
            "layer_scale": 0.01,
            "context": 100,
            "conv_layout": True,
            "max_period": 10_000,
            "gating": "none",
            "norm": "layer_norm",
            "positional_embedding": "rope",
            "dim_feedforward": 4 * dim,
            "input_dimension": dim,
            "output_dimensions": [dim],
        },
    }


MIMI = codec_shape(dim=128, filters=16, layers=4)


@dataclass(frozen=True)
class Shape:
    """The sizes of what is trained: the language model's, and the codec's as Mimi's config has them."""

    architecture: Architecture
    mimi: dict[str, Any]


NANO = Shape(ARCHITECTURE, MIMI)

SMALL = Shape(
    replace(
        ARCHITECTURE,
        dim=64,
        num_heads=2,
        num_layers=2,
        depformer_dim=32,
        depformer_num_heads=2,
        depformer_dim_feedforward=132,
    ),
    codec_shape(dim=32, filters=4, layers=1),
)
"""For rehearsals on a CPU; it has nano's vocabularies."""
SMALL_DECODER = SpectralShape(latent=32, dim=32, heads=2, feedforward=48, context=6, blocks=2, hidden=48)
"""A decoder for rehearsals."""
