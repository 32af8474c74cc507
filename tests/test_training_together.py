"""Processes that learn together agree on their weights and on the time."""

import os
import socket
from pathlib import Path

import pytest
import torch
from torch.multiprocessing.spawn import spawn

from training.together import Together

SIZE = 2


def _learn(rank: int, port: int, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(SIZE), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    together = Together(torch.device("cpu"))
    weights = [torch.full((2, 3), float(rank)), torch.full((4,), 10.0 * rank)]
    shared = torch.full((3,), float(rank))
    together.share([shared])
    together.average(weights)
    torch.save({"weights": weights, "shared": shared, "time": together.agreed(rank + 1.5)}, Path(folder) / f"{rank}.pt")
    together.part()


@pytest.mark.training
def test_weights_are_averaged_and_the_first_says_when_it_is_over(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_learn, (port, str(tmp_path)), nprocs=SIZE)  # type: ignore[no-untyped-call]
    for rank in range(SIZE):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.equal(found["weights"][0], torch.full((2, 3), 0.5))
        assert torch.equal(found["weights"][1], torch.full((4,), 5.0))
        assert torch.equal(found["shared"], torch.zeros(3))
        assert found["time"] == 1.5


def test_alone_nothing_is_averaged_or_waited_for() -> None:
    together = Together(torch.device("cpu"))
    weights = [torch.ones(3)]
    together.average(weights)
    assert together.is_time(1)
    assert together.agreed(2.5) == 2.5
    assert torch.equal(weights[0], torch.ones(3))
