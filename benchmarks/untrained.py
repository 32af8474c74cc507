"""Models with random weights: PersonaPlex's at full size, to measure, and a tiny one, to test and compare.

What they say makes no sense, but every part of the engine runs as it does with trained ones.
"""

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from moshi.models.compression import MimiModel
from moshi.models.loaders import MOSHI_NAME, TEXT_TOKENIZER_NAME, get_mimi
from safetensors.torch import save_file

from core.engine.architecture import AGENT_CODEBOOKS, DELAYS, FIXED, Architecture
from core.engine.checkpoint import EXTENSION
from core.engine.linear import Int8Linear
from core.engine.lm import LanguageModel
from core.engine.prompt import Voice
from core.engine.weights import stored_name
from core.voices import write_voice

SEED = 20260
NAME, NOTICE = "untrained", "This model's weights are random: it makes sounds, not sense."
VOICES = ("NATF2", "NATM2", "VARF0", "VARM0")
VOICE_FRAMES = 25
FIRST_PIECE = 260
"""Token ids below this are control tokens and single bytes."""
OUTPUT_LEVEL = 0.05
"""Brings the untrained decoder to the level of speech."""

ARCHITECTURE = Architecture(
    dim=256,
    num_heads=4,
    num_layers=3,
    context=750,
    text_card=512,
    card=512,
    depformer_dim=128,
    depformer_num_heads=4,
    depformer_num_layers=1,
    depformer_dim_feedforward=528,
)
MIMI: dict[str, Any] = {
    "sample_rate": 24_000,
    "channels": 1,
    "frame_rate": 12.5,
    "seanet": {
        "channels": 1,
        "dimension": 64,
        "causal": True,
        "n_filters": 8,
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
        "dimension": 32,
        "n_q": AGENT_CODEBOOKS,
        "bins": 512,
        "input_dimension": 64,
        "output_dimension": 64,
    },
    "transformer": {
        "d_model": 64,
        "num_heads": 4,
        "num_layers": 1,
        "causal": True,
        "layer_scale": 0.01,
        "context": 100,
        "conv_layout": True,
        "max_period": 10_000,
        "gating": "none",
        "norm": "layer_norm",
        "positional_embedding": "rope",
        "dim_feedforward": 256,
        "input_dimension": 64,
        "output_dimensions": [64],
    },
}
WORDS = """
You are a wise and friendly teacher. Answer questions or provide advice in a clear and engaging way.
You enjoy having a good conversation. You work for a company and your name is on the door.
Information: we open at nine in the morning and close at six in the evening, every day but Sunday.
Hello, how are you today? I am very well, thank you. What can I do for you? Yes, of course. No, I am sorry.
That would be twelve dollars and fifty cents. Could you tell me your name, please? One moment, let me have a look.
"""
"""What the tokenizer's pieces are cut from."""


def make_checkpoint(folder: Path, architecture: Architecture = ARCHITECTURE, seed: int = SEED) -> None:
    """Write an untrained checkpoint in the hub's layout into `folder`, which is made."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    config = dict(FIXED) | asdict(architecture) | {"dep_q": AGENT_CODEBOOKS, "delays": list(DELAYS)}
    config |= {"mimi_name": "mimi.safetensors", "mimi_config_name": "mimi.json"}
    config[EXTENSION] = {"name": NAME, "notice": NOTICE}
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "mimi.json").write_text(json.dumps(MIMI, indent=1))
    (folder / TEXT_TOKENIZER_NAME).write_bytes(make_tokenizer(architecture.text_card))
    lm = untrained_language_model(architecture, generator)
    save_file({stored_name(name): weight.data.clone() for name, weight in lm.named_parameters()}, folder / MOSHI_NAME)
    save_file(untrained_mimi(generator).state_dict(), folder / "mimi.safetensors")
    for name in VOICES:
        codes = torch.randint(architecture.card, (VOICE_FRAMES, AGENT_CODEBOOKS), generator=generator)
        write_voice(folder / "voices" / f"{name}.safetensors", Voice(name, codes=codes.numpy()))


def make_tokenizer(size: int) -> bytes:
    """A SentencePiece model with at most `size` pieces; id 3 is padding, as in Moshi's."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS.strip().splitlines()),
        model_writer=model,
        vocab_size=size,
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        minloglevel=2,
    )
    return model.getvalue()


def untrained_language_model(
    architecture: Architecture, generator: torch.Generator, dtype: torch.dtype = torch.float32, int8: bool = False
) -> LanguageModel:
    """Random weights, on the generator's device, whose text stream is mostly padding, as in speech.

    Channel 0 carries a constant from every text token through to the padding's logit, and against single bytes.
    """
    lm = LanguageModel(architecture, generator.device, dtype, int8)
    for matrix in lm.modules():
        if isinstance(matrix, Int8Linear):
            rows, columns = matrix.weight.shape
            matrix.round(torch.randn(rows, columns, device=generator.device, generator=generator) * columns**-0.5)
    for name, weight in lm.named_parameters():
        if name.endswith("alpha"):
            weight.data.fill_(1.0)
        elif weight.dtype == dtype:
            weight.data.normal_(0.0, 1.0 if "emb" in name else weight.shape[-1] ** -0.5, generator=generator)
    lm.text_emb.weight.data[:, 0] = 40.0
    lm.text_linear.weight.data[:, 0] = 0.0
    lm.text_linear.weight.data[:FIRST_PIECE, 0] = -1.0
    lm.text_linear.weight.data[architecture.existing_text_padding_id, 0] = 0.7
    return lm


def untrained_mimi(generator: torch.Generator, config: dict[str, Any] | None = MIMI) -> MimiModel:
    """Random filters and codebooks, as loud as speech. `config` None is Kyutai's own."""
    mimi = get_mimi(None, config, device=generator.device, num_codebooks=AGENT_CODEBOOKS)
    for name, tensor in mimi.state_dict().items():
        if name.endswith(("_initialized", "cluster_usage")):
            tensor.fill_(1.0)
        elif name.endswith("bias"):
            tensor.zero_()
        elif name.endswith("embedding_sum"):
            tensor.normal_(0.0, 1.0, generator=generator)
        elif tensor.dim() > 1:
            columns = float(np.prod(tensor.shape[1:]))
            tensor.normal_(0.0, 1.3 * columns**-0.5, generator=generator)
    mimi.state_dict()["decoder.model.14.conv.conv.weight"].mul_(OUTPUT_LEVEL)
    return mimi
