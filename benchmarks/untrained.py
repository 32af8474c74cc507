"""Models with random weights: PersonaPlex's at full size, to measure, and a tiny one, to test and compare.

What they say makes no sense, but every part of the engine runs as it does with trained ones.
"""

import io
from typing import Any

import numpy as np
import sentencepiece
import torch
from moshi.models.compression import MimiModel
from moshi.models.loaders import get_mimi

from core.engine.architecture import AGENT_CODEBOOKS, Architecture
from core.engine.linear import Int8Linear
from core.engine.lm import LanguageModel
from training.shape import codec_shape

FIRST_PIECE = 260
"""Token ids below this are control tokens and single bytes."""
OUTPUT_LEVEL = 0.05
"""Brings the untrained decoder to the level of speech."""

ARCHITECTURE = Architecture(
    dim=256,
    num_heads=4,
    num_layers=3,
    context=750,
    text_vocab_size=512,
    audio_vocab_size=512,
    depformer_dim=128,
    depformer_num_heads=4,
    depformer_num_layers=1,
    depformer_dim_feedforward=528,
)
MIMI = codec_shape(dim=64, filters=8, layers=1)
WORDS = """
You are a wise and friendly teacher. Answer questions or provide advice in a clear and engaging way.
You enjoy having a good conversation. You work for a company and your name is on the door.
Information: we open at nine in the morning and close at six in the evening, every day but Sunday.
Hello, how are you today? I am very well, thank you. What can I do for you? Yes, of course. No, I am sorry.
That would be twelve dollars and fifty cents. Could you tell me your name, please? One moment, let me have a look.
"""
"""What the tokenizer's pieces are cut from."""


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
            matrix.quantize(torch.randn(rows, columns, device=generator.device, generator=generator) * columns**-0.5)
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
