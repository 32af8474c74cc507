"""Muon: every direction of a matrix is learned at one pace."""

import pytest
import torch
from torch import nn

from training.muon import RMS, Muon, orthogonal

pytestmark = pytest.mark.training


@pytest.mark.parametrize(("rows", "columns"), [(24, 24), (40, 16), (16, 40)])
def test_an_update_has_singular_values_of_one(rows: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(0)
    left, values, right = torch.linalg.svd(torch.randn(3, rows, columns, generator=generator), full_matrices=False)
    values = torch.linspace(1, 0.1, values.shape[1]) * torch.tensor([1e-4, 1.0, 1e3])[:, None]
    made = left @ (values[..., None] * right)
    values = torch.linalg.svdvals(orthogonal(made))
    assert values.min() > 0.5
    assert values.max() < 1.3
    apart = (orthogonal(made) - left @ right).norm(dim=(1, 2)) / (left @ right).norm(dim=(1, 2))
    assert apart.max() < 0.35


def test_each_matrix_of_a_stack_learns_by_itself() -> None:
    """Query, key and value in one parameter, and steps of the depformer, learn as matrices of their own would."""
    torch.manual_seed(0)
    together = nn.Parameter(torch.randn(2, 3 * 8, 8))
    apart = [nn.Parameter(part.clone()) for part in together.detach().view(6, 8, 8)]
    rate = torch.tensor(0.1)
    muons = Muon([(together, 3)], rate, 0.05), Muon([(part, 1) for part in apart], rate, 0.05)
    for _ in range(3):
        gradient = torch.randn(6, 8, 8)
        together.grad = gradient.reshape(2, 24, 8).clone()
        for part, own in zip(apart, gradient, strict=True):
            part.grad = own.clone()
        for muon in muons:
            muon.step()
    torch.testing.assert_close(together.detach().view(6, 8, 8), torch.stack([part.detach() for part in apart]))


def test_the_rate_is_read_at_each_step_and_what_is_not_learned_decays() -> None:
    matrix = nn.Parameter(torch.eye(16))
    rate = torch.tensor(0.0)
    muon = Muon([(matrix, 1)], rate, 0.5)
    matrix.grad = torch.randn(16, 16, generator=torch.Generator().manual_seed(1))
    muon.step()
    assert torch.equal(matrix.detach(), torch.eye(16))
    rate.fill_(0.1)
    muon.step()
    update = matrix.detach() - torch.eye(16) * (1 - 0.1 * 0.5)
    assert float(update.square().mean().sqrt()) == pytest.approx(0.1 * RMS, rel=0.25)


def test_it_learns_what_is_rare() -> None:
    """A linear map whose inputs are of such sizes that the least gradient is a thousandth of the largest one."""
    torch.manual_seed(0)
    wanted, often = torch.randn(16, 16), torch.logspace(0, -1.5, 16)
    matrix = nn.Parameter(torch.zeros(16, 16))
    rate = torch.tensor(0.0)
    muon = Muon([(matrix, 1)], rate, 0.0)
    for step in range(400):
        rate.fill_(0.1 * (1 - step / 400))
        x = torch.randn(256, 16) * often
        matrix.grad = (x @ (matrix.detach() - wanted).T).T @ x / 256
        muon.step()
    assert float((matrix.detach() - wanted).norm() / wanted.norm()) < 0.1
