"""Sampling: what the distribution is, and that nothing but (seed, position, stream) moves it."""

import numpy as np
import pytest
import torch

from core.engine.sampler import Sampler
from core.engine.sampling import USUAL, Sampling

COUNT = 20_000


def samples(sampling: Sampling, logits: torch.Tensor, codebooks: int = 1) -> list[torch.Tensor]:
    """Many samples of each codebook from the same logits: one seed, many positions."""
    sampler = Sampler.of([(sampling.over(USUAL), 5)] * COUNT, torch.arange(COUNT))
    return [sampler.codebook(codebook, logits.expand(COUNT, -1)) for codebook in range(codebooks)]


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 500), (0.7, 500), (0.8, 3), (1.5, 10)])
def test_samples_follow_the_softmax_of_the_top_k(temperature: float, top_k: int) -> None:
    logits = torch.tensor([0.1, 2.0, -1.0, 1.5, 0.7, -3.0, 2.2, 0.0, 0.3, 1.0, -0.5, 0.9])
    (sampled,) = samples(Sampling(temperature=temperature, top_k=top_k), logits)
    counts = torch.bincount(sampled, minlength=len(logits)).double()
    scaled = logits / temperature
    scaled[scaled < scaled.topk(min(top_k, len(logits))).values[-1]] = -torch.inf
    expected = torch.softmax(scaled.double(), 0) * COUNT
    assert (counts[expected == 0] == 0).all()
    seen = expected > 0
    chi_squared = float(((counts - expected)[seen] ** 2 / expected[seen]).sum())
    assert chi_squared < 4 * int(seen.sum()) + 10


def test_a_temperature_of_zero_is_greedy() -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(1))
    greedy = Sampling(temperature=0, text_temperature=0).over(USUAL)
    sampler = Sampler.of([(greedy, seed) for seed in range(4)], torch.arange(4))
    assert torch.equal(sampler.text(logits), logits.argmax(-1))
    assert torch.equal(sampler.codebook(3, logits), logits.argmax(-1))


def test_streams_positions_and_seeds_are_independent() -> None:
    logits = torch.zeros(100)
    by_codebook = samples(Sampling(top_k=500), logits, 8)
    agreement = [float((by_codebook[a] == by_codebook[b]).float().mean()) for a in range(8) for b in range(a)]
    assert max(agreement) < 0.02
    following = float((by_codebook[0][1:] == by_codebook[0][:-1]).float().mean())
    assert following < 0.02


def test_each_row_has_its_own_settings_and_place_does_not_matter() -> None:
    logits = torch.randn(1, 300, generator=torch.Generator().manual_seed(2))
    settings = [Sampling(top_k=1), Sampling(temperature=0), Sampling(temperature=2.0, text_temperature=2.0)]
    said = []
    for order in ([0, 1, 2], [2, 0, 1]):
        sampler = Sampler.of([(settings[which].over(USUAL), which) for which in order], torch.full((3,), 9))
        tokens = sampler.codebook(0, logits.expand(3, -1))
        said.append([int(tokens[order.index(which)]) for which in range(3)])
    assert said[0] == said[1]
    assert said[0][0] == said[0][1] == int(logits.argmax())


def test_the_largest_seed_and_position_are_fine() -> None:
    sampler = Sampler.of([(USUAL, 2**63 - 1), (USUAL, 0)], torch.tensor([2**40, 2**40]))
    tokens = sampler.text(torch.zeros(2, 1000))
    assert np.all((tokens.numpy() >= 0) & (tokens.numpy() < 1000))
