"""Nano's shape: PersonaPlex's architecture at about a thousandth of the size."""

from dataclasses import dataclass
from typing import Any

from core.engine.architecture import AGENT_CODEBOOKS, Architecture

ARCHITECTURE = Architecture(
    dim=256,
    num_heads=4,
    num_layers=7,
    context=1500,
    text_card=1000,
    card=512,
    depformer_dim=128,
    depformer_num_heads=4,
    depformer_num_layers=1,
    depformer_dim_feedforward=528,
)
CODEC_DIM = 128
MIMI: dict[str, Any] = {
    "sample_rate": 24_000,
    "channels": 1,
    "frame_rate": 12.5,
    "seanet": {
        "channels": 1,
        "dimension": CODEC_DIM,
        "causal": True,
        "n_filters": 16,
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
        "dimension": 64,
        "n_q": AGENT_CODEBOOKS,
        "bins": 512,
        "input_dimension": CODEC_DIM,
        "output_dimension": CODEC_DIM,
    },
    "transformer": {
        "d_model": CODEC_DIM,
        "num_heads": 4,
        "num_layers": 2,
        "causal": True,
        "layer_scale": 0.01,
        "context": 100,
        "conv_layout": True,
        "max_period": 10_000,
        "gating": "none",
        "norm": "layer_norm",
        "positional_embedding": "rope",
        "dim_feedforward": 4 * CODEC_DIM,
        "input_dimension": CODEC_DIM,
        "output_dimensions": [CODEC_DIM],
    },
}


@dataclass(frozen=True)
class Shape:
    """The sizes of what is trained: the language model's, and the codec's as Mimi's config has them."""

    architecture: Architecture
    mimi: dict[str, Any]


NANO = Shape(ARCHITECTURE, MIMI)
