"""How every call draws its tokens: temperature, top-k and seed, each its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.architecture import STREAMS
from core.engine.sampling import MAX_TOP_K, Sampling

GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
"""SplitMix64's increment, 2^64 divided by the golden ratio, as int64."""


@dataclass(frozen=True)
class Draws:
    """How each row of a batch draws, so that one step serves them all.

    `seed`: int64[rows]; `temperature`: float32[2, rows] and `top_k`: int64[2, rows], for text and for codebooks.

    Randomness is a function of (seed, position, stream, token) alone, a counter-based generator as in Salmon et al.,
    "Parallel random numbers: as easy as 1, 2, 3" (2011): no state, and no row can touch another's.
    """

    seed: Tensor
    temperature: Tensor
    top_k: Tensor

    @classmethod
    def of(cls, rows: Sequence[tuple[Sampling, int]], device: torch.device) -> "Draws":
        """Rows that draw each with a sampling and a seed."""
        temperatures = [[sampling.text_temperature, sampling.temperature] for sampling, _ in rows]
        top_ks = [[sampling.text_top_k, sampling.top_k] for sampling, _ in rows]
        seeds = torch.tensor([seed for _, seed in rows], device=device)
        temperature = torch.tensor(temperatures, dtype=torch.float32, device=device)
        return cls(seeds, temperature.T.contiguous(), torch.tensor(top_ks, device=device).T.contiguous())

    def text(self, logits: Tensor, position: Tensor) -> Tensor:
        """The text tokens, int64[rows], at `position` (int64[rows]) from float32[rows, text_card]."""
        return self._pick(logits, position, stream=0, kind=0)

    def codebook(self, codebook: int, logits: Tensor, position: Tensor) -> Tensor:
        """The same for one of the agent's codebooks."""
        return self._pick(logits, position, stream=1 + codebook, kind=1)

    def _pick(self, logits: Tensor, position: Tensor, stream: int, kind: int) -> Tensor:
        """Gumbel's trick: the best of logit / temperature + noise among the top k is a draw from their softmax."""
        temperature, top_k = self.temperature[kind], self.top_k[kind]
        if logits.is_cuda:
            from core.engine.drawing_kernel import draw  # Triton comes with torch's CUDA builds only

            return draw(logits, temperature, top_k, self.seed, position, stream)
        return draw_plainly(logits, temperature, top_k, self.seed, position, stream)


def draw_plainly(
    logits: Tensor, temperature: Tensor, top_k: Tensor, seed: Tensor, position: Tensor, stream: int
) -> Tensor:
    """int64[rows] from float32[rows, card]; the others are one value a row. Greedy at temperature 0."""
    greedy = (temperature == 0)[:, None]
    best, tokens = (logits / temperature[:, None].masked_fill(greedy, 1.0)).topk(min(MAX_TOP_K, logits.shape[-1]))
    noise = gumbel(seed, position, stream, tokens).masked_fill(greedy, 0.0)
    beyond = torch.arange(best.shape[-1], device=best.device) >= top_k[:, None]
    chosen = (best + noise).masked_fill(beyond, -torch.inf).argmax(dim=-1, keepdim=True)
    return tokens.gather(-1, chosen)[:, 0]


def gumbel(seed: Tensor, position: Tensor, stream: int, tokens: Tensor) -> Tensor:
    """Gumbel noise for some tokens, float32[rows, tokens], from int64[rows] seeds and positions."""
    key = scramble(seed + scramble(position * STREAMS + stream))
    bits = scramble(key[:, None] + GOLDEN * (tokens + 1))
    uniform = ((bits >> 41 & 0x7FFFFF).float() + 0.5) * 2.0**-23  # never 0 or 1 in float32
    return -torch.log(-torch.log(uniform))


def scramble(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014) on int64, which wraps as uint64 does."""
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * (0xBF58476D1CE4E5B9 - (1 << 64))
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * (0x94D049BB133111EB - (1 << 64))
    return x ^ (x >> 31 & (1 << 33) - 1)
