"""Sampling of tokens for a batch of calls, each with its own temperature, top-k and seed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from core.engine.architecture import AGENT_CODEBOOKS, END_OF_PADDING, PADDING, STREAMS
from core.engine.sampling import MAX_TOP_K, Sampling

GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
"""SplitMix64's increment, 2^64 divided by the golden ratio, as int64."""
TEXT_STREAMS, CODEBOOK_STREAMS = range(1), range(1, 1 + AGENT_CODEBOOKS)
"""The random streams of the text token and of the agent's codebooks."""


@dataclass(frozen=True)
class Sampler:
    """Samples the tokens of one position for each row of a batch, so that one step serves all calls.

    `seed` and `position`: int64[rows]; `temperature`: float32[2, rows] and `top_k`: int64[2, rows], first for text and
    then for codebooks.

    Randomness is a function of (seed, position, stream, token) alone, a counter-based generator as in Salmon et al.,
    "Parallel random numbers: as easy as 1, 2, 3" (2011). It has no state, so no row can influence another.
    """

    seed: Tensor
    position: Tensor
    temperature: Tensor
    top_k: Tensor
    _noise: dict[range, Tensor] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, rows: Sequence[tuple[Sampling, int]], position: Tensor) -> "Sampler":
        """A sampler at `position`, int64[rows], from each row's settings, complete but for the seed, and its seed."""
        device = position.device
        temperatures = [[sampling.text_temperature, sampling.temperature] for sampling, _ in rows]
        top_ks = [[sampling.text_top_k, sampling.top_k] for sampling, _ in rows]
        seeds = torch.tensor([seed for _, seed in rows], device=device)
        temperature = torch.tensor(temperatures, dtype=torch.float32, device=device)
        return cls(seeds, position, temperature.T.contiguous(), torch.tensor(top_ks, device=device).T.contiguous())

    def text(self, logits: Tensor) -> Tensor:
        """Sample the text tokens, int64[rows], from float32[rows, text_vocab_size]."""
        return self._sample(logits, TEXT_STREAMS, 0, setting=0)

    def codebook(self, codebook: int, logits: Tensor) -> Tensor:
        """Sample one of the agent's codebooks, int64[rows], from float32[rows, audio_vocab_size]."""
        return self._sample(logits, CODEBOOK_STREAMS, codebook, setting=1)

    def _sample(self, logits: Tensor, streams: range, number: int, setting: int) -> Tensor:
        """Sample with the randomness of `streams[number]`; `setting` selects temperature and top-k."""
        temperature, top_k = self.temperature[setting], self.top_k[setting]
        if logits.is_cuda:
            from core.engine.kernels.sampling import sample  # Triton comes with torch's CUDA builds only

            return sample(logits, temperature, top_k, self.seed, self.position, streams[number])
        if streams not in self._noise:  # For all of them at once, which takes little longer than for one.
            self._noise[streams] = gumbel_noise(self.seed, self.position, streams, logits.shape[-1])
        return reference_sample(logits, temperature, top_k, self._noise[streams][number])


def force_text(own: Tensor, forced: Tensor) -> Tensor:
    """Replace text tokens, int64[rows], where their rows are given others.

    `forced`: int64[2, rows], tokens and what they replace, as in `Forced`. It comes after sampling, so that no random
    number depends on it.
    """
    silent = (own == PADDING) | (own == END_OF_PADDING)
    return torch.where(forced[1] > silent, forced[0], own)


def reference_sample(logits: Tensor, temperature: Tensor, top_k: Tensor, noise: Tensor) -> Tensor:
    """Sample int64[rows] from float32[rows, vocab_size] logits with Gumbel noise of the same shape.

    `temperature` and `top_k` have one value a row. By the Gumbel-max trick, the largest of logit / temperature + noise
    among the top k is distributed as their softmax. A temperature of 0 is greedy.
    """
    greedy = (temperature == 0)[:, None]
    best, tokens = (logits / temperature[:, None].masked_fill(greedy, 1.0)).topk(min(MAX_TOP_K, logits.shape[-1]))
    noise = noise.gather(-1, tokens).masked_fill(greedy, 0.0)
    beyond = torch.arange(best.shape[-1], device=best.device) >= top_k[:, None]
    chosen = (best + noise).masked_fill(beyond, -torch.inf).argmax(dim=-1, keepdim=True)
    return tokens.gather(-1, chosen)[:, 0]


def gumbel_noise(seed: Tensor, position: Tensor, streams: range, vocab_size: int) -> Tensor:
    """Gumbel noise for all tokens, float32[streams, rows, vocab_size], from int64[rows] seeds and positions."""
    stream = torch.arange(streams.start, streams.stop, device=seed.device)
    token = torch.arange(vocab_size, device=seed.device)
    key = splitmix(seed + splitmix(position * STREAMS + stream[:, None]))
    bits = splitmix(key[:, :, None] + GOLDEN * (token + 1))
    uniform = ((bits >> 41 & 0x7FFFFF).float() + 0.5) * 2.0**-23  # never 0 or 1 in float32
    return -torch.log(-torch.log(uniform))


def splitmix(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014) on int64, which wraps around as uint64 does."""
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * (0xBF58476D1CE4E5B9 - (1 << 64))
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * (0x94D049BB133111EB - (1 << 64))
    return x ^ (x >> 31 & (1 << 33) - 1)
