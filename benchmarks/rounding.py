"""What 8 bits change, of weights or of the KV cache: the same random tokens with them and without, at full size.

Random weights have flat logits, so these figures bound the rounding, not what is heard.
"""

import torch
from torch import Tensor

from benchmarks.correctness import random_tokens
from benchmarks.untrained import untrained_language_model
from core.engine.architecture import AGENT_CODEBOOKS, Architecture
from core.engine.kv_cache import BlockCache, PrefillCache, blocks_for
from core.engine.linear import Int8Linear
from core.engine.lm import CodebookCache, LanguageModel

POSITIONS = 600


def weight_errors(generator: torch.Generator) -> dict[str, float]:
    """8-bit weights against the bfloat16 ones they come from, in one prefill."""
    plain = untrained_language_model(Architecture(), generator, torch.bfloat16)
    rounded = LanguageModel(Architecture(), plain.device, torch.bfloat16, int8=True)
    sources, stored = dict(plain.named_modules()), dict(plain.named_parameters())
    for name, module in rounded.named_modules():
        if isinstance(module, Int8Linear):
            module.quantize(sources[name].weight)
    for name, parameter in rounded.named_parameters():
        if parameter.dtype == torch.bfloat16:
            parameter.data.copy_(stored[name])
    tokens = random_tokens(plain, POSITIONS)
    return differences(*(outputs(lm, prefilled_states(lm, tokens), tokens) for lm in (plain, rounded)))


def cache_errors(lm: LanguageModel, cache_dtype: torch.dtype) -> dict[str, dict[str, float]]:
    """A KV cache of some dtype against one of the model's, position by position.

    Beside it, how much the model's own rounding changes: the same positions prefilled, against stepped.
    """
    tokens = random_tokens(lm, POSITIONS)
    prefilled, plain, rounded = (
        outputs(lm, states, tokens)
        for states in (
            prefilled_states(lm, tokens),
            stepped_states(lm, tokens, lm.dtype),
            stepped_states(lm, tokens, cache_dtype),
        )
    )
    return {
        f"KV cache in {cache_dtype} against {lm.dtype}": differences(plain, rounded),
        f"prefilled against stepped, all in {lm.dtype}": differences(prefilled, plain),
    }


@torch.inference_mode()
def prefilled_states(lm: LanguageModel, tokens: Tensor) -> Tensor:
    """The transformer's output at all positions, `[positions, dim]`, in one pass."""
    cache = PrefillCache(lm.architecture, len(tokens), lm.device, lm.dtype)
    states: Tensor = lm(lm.embed(tokens[None]), cache.attention(len(tokens)))[0]
    return states


@torch.inference_mode()
def stepped_states(lm: LanguageModel, tokens: Tensor, cache_dtype: torch.dtype) -> Tensor:
    """The same, in a step for each position, as in a call."""
    cache = BlockCache(lm.architecture, blocks_for(len(tokens)), lm.device, cache_dtype)
    table = torch.tensor([cache.allocate(len(tokens))], device=lm.device)
    states = []
    for position, frame in enumerate(tokens):
        attend = cache.attention(torch.tensor([position], device=lm.device), table)
        states.append(lm(lm.embed(frame[None, None]), attend)[0])
    return torch.cat(states)


@torch.inference_mode()
def outputs(lm: LanguageModel, states: Tensor, tokens: Tensor) -> dict[str, Tensor]:
    """The states themselves and the logits that follow from them, each codebook's after the given tokens."""
    # Without channel 0, by which random weights favour padding so much that no error could move it.
    spoken = states.index_fill(1, torch.tensor([0], device=states.device), 0.0)
    cache, codebooks = CodebookCache(), []
    for codebook in range(AGENT_CODEBOOKS):
        codebooks.append(lm.codebook_logits(states, codebook, tokens[:, codebook], cache))
    return {
        "hidden states": states,
        "text's logits": lm.text_logits(spoken),
        "codebooks' logits": torch.stack(codebooks),
    }


def differences(expected: dict[str, Tensor], got: dict[str, Tensor]) -> dict[str, float]:
    """Relative errors, and the shares of logits whose best token is the same."""
    figures = {}
    for name, exact in expected.items():
        figures[f"relative error of {name}"] = float((got[name].float() - exact.float()).norm() / exact.float().norm())
        if "logits" in name:
            same = got[name].argmax(-1) == exact.argmax(-1)
            figures[f"same best token by {name}"] = float(same.float().mean())
    return figures
