"""How every call draws its tokens: temperature, top-k and seed, each its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from core.engine.architecture import AGENT_CODEBOOKS, STREAMS
from core.engine.sampling import MAX_TOP_K, Sampling

GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
"""SplitMix64's increment, 2^64 divided by the golden ratio, as int64."""
TEXT, CODEBOOKS = range(1), range(1, 1 + AGENT_CODEBOOKS)
"""Streams of randomness."""


@dataclass(frozen=True)
class Draws:
    """How each row of a batch draws the tokens of one position, so that one step serves them all.

    `seed` and `position`: int64[rows]; `temperature`: float32[2, rows] and `top_k`: int64[2, rows], for text and for
    codebooks.

    Randomness is a function of (seed, position, stream, token) alone, a counter-based generator as in Salmon et al.,
    "Parallel random numbers: as easy as 1, 2, 3" (2011): no state, and no row can touch another's.
    """

    seed: Tensor
    position: Tensor
    temperature: Tensor
    top_k: Tensor
    _noise: dict[range, Tensor] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, rows: Sequence[tuple[Sampling, int]], position: Tensor) -> "Draws":
        """Rows that draw each with a sampling, complete but for its seed, and a seed, at `position`."""
        device = position.device
        temperatures = [[sampling.text_temperature, sampling.temperature] for sampling, _ in rows]
        top_ks = [[sampling.text_top_k, sampling.top_k] for sampling, _ in rows]
        seeds = torch.tensor([seed for _, seed in rows], device=device)
        temperature = torch.tensor(temperatures, dtype=torch.float32, device=device)
        return cls(seeds, position, temperature.T.contiguous(), torch.tensor(top_ks, device=device).T.contiguous())

    def text(self, logits: Tensor) -> Tensor:
        """The text tokens, int64[rows], from float32[rows, text_card]."""
        return self._pick(logits, 0, TEXT, kind=0)

    def codebook(self, codebook: int, logits: Tensor) -> Tensor:
        """The same for one of the agent's codebooks."""
        return self._pick(logits, codebook, CODEBOOKS, kind=1)

    def _pick(self, logits: Tensor, number: int, streams: range, kind: int) -> Tensor:
        """Of one of some streams that are alike."""
        temperature, top_k = self.temperature[kind], self.top_k[kind]
        if logits.is_cuda:
            from core.engine.kernels.sampling import draw  # Triton comes with torch's CUDA builds only

            return draw(logits, temperature, top_k, self.seed, self.position, streams[number])
        if streams not in self._noise:  # For all of them at once: that takes little more than for one.
            self._noise[streams] = gumbel(self.seed, self.position, streams, logits.shape[-1])
        return draw_plainly(logits, temperature, top_k, self._noise[streams][number])


def draw_plainly(logits: Tensor, temperature: Tensor, top_k: Tensor, noise: Tensor) -> Tensor:
    """int64[rows] from float32[rows, card] and as much noise; the others are one value a row.

    Gumbel's trick: the best of logit / temperature + noise among the top k is a draw from their softmax. Greedy at
    temperature 0.
    """
    greedy = (temperature == 0)[:, None]
    best, tokens = (logits / temperature[:, None].masked_fill(greedy, 1.0)).topk(min(MAX_TOP_K, logits.shape[-1]))
    noise = noise.gather(-1, tokens).masked_fill(greedy, 0.0)
    beyond = torch.arange(best.shape[-1], device=best.device) >= top_k[:, None]
    chosen = (best + noise).masked_fill(beyond, -torch.inf).argmax(dim=-1, keepdim=True)
    return tokens.gather(-1, chosen)[:, 0]


def gumbel(seed: Tensor, position: Tensor, streams: range, card: int) -> Tensor:
    """Gumbel noise for all tokens, float32[streams, rows, card], from int64[rows] seeds and positions."""
    stream = torch.arange(streams.start, streams.stop, device=seed.device)
    token = torch.arange(card, device=seed.device)
    key = scramble(seed + scramble(position * STREAMS + stream[:, None]))
    bits = scramble(key[:, :, None] + GOLDEN * (token + 1))
    uniform = ((bits >> 41 & 0x7FFFFF).float() + 0.5) * 2.0**-23  # never 0 or 1 in float32
    return -torch.log(-torch.log(uniform))


def scramble(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014) on int64, which wraps as uint64 does."""
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * (0xBF58476D1CE4E5B9 - (1 << 64))
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * (0x94D049BB133111EB - (1 << 64))
    return x ^ (x >> 31 & (1 << 33) - 1)
