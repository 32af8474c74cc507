"""Muon: momentum whose update of a matrix is made orthogonal (Jordan et al., https://kellerjordan.github.io/posts/muon).

All directions of a matrix then learn at one pace, those of rare things as well as those of common ones. torch's own,
`torch.optim.Muon`, takes a matrix at a time and its rate as a number of Python, so a CUDA graph cannot hold it.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
COEFFICIENTS = 3.4445, -4.775, 2.0315
"""Of the polynomial x -> a x + b x^3 + c x^5, which brings any singular value up to 1 near to 1 in a few rounds."""
ROUNDS = 5
RMS = 0.2
"""The root mean square of an update at a rate of 1, which is AdamW's: so both take one rate (Liu et al., "Muon is
scalable for LLM training", arXiv 2502.16982)."""


class Muon:
    """Learns stacks of matrices, `[..., rows, columns]`, each matrix by itself, at the `rate`, a scalar tensor."""

    def __init__(self, stacks: Iterable[tuple[nn.Parameter, int]], rate: Tensor, decay: float) -> None:
        """Of each parameter of `stacks` so many matrices stand one below the other, such as those of query, key and
        value."""
        self._rate, self._decay = rate, decay
        self._parameters: dict[tuple[int, int], list[tuple[nn.Parameter, int]]] = defaultdict(list)
        for parameter, parts in stacks:
            self._parameters[parameter.shape[-2] // parts, parameter.shape[-1]].append((parameter, parts))
        self._momenta = {
            shape: [torch.zeros_like(parameter) for parameter, _ in group] for shape, group in self._parameters.items()
        }

    @torch.no_grad()
    def step(self) -> None:
        """Learn from the gradients, which every parameter must have."""
        for (rows, columns), group in self._parameters.items():
            parameters: list[Tensor] = [parameter for parameter, _ in group]
            momenta = self._momenta[rows, columns]
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
            ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)
            updates = orthogonal(torch.cat([update.view(-1, rows, columns) for update in ahead]))
            updates = updates * (-RMS * max(rows, columns) ** 0.5 * self._rate)
            pieces = updates.split([parameter.numel() // (rows * columns) for parameter in parameters])
            torch._foreach_mul_(parameters, 1 - self._rate * self._decay)
            torch._foreach_add_(parameters, [p.view_as(q) for p, q in zip(pieces, parameters, strict=True)])


def orthogonal(matrices: Tensor) -> Tensor:
    """About the nearest matrices whose singular values are all 1, float32[count, rows, columns], by Newton and Schulz's
    iteration in bfloat16."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    x = x.mT if tall else x
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    made: Tensor = (x.mT if tall else x).float()
    return made
