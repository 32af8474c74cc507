"""Several processes learn one model, each on a GPU and with batches of its own; their weights are averaged at times.

Local stochastic gradient descent (Stich, arXiv 1805.09767): a step stays one CUDA graph that waits for nobody. The
processes are those that `torchrun --nproc-per-node GPUS -m training lm` starts.
"""

import os
from collections.abc import Iterable

import torch
import torch.distributed as distributed
from torch import Tensor

AVERAGED = 8
"""Steps between two averages."""


class Together:
    """This process among those that learn together; alone where `torchrun` has not started it."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self._device = device
        if self.size > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
            torch.seed()  # Each process draws batches of its own.

    def is_time(self, step: int) -> bool:
        """Whether weights are averaged, and the time compared, before this step."""
        return self.size == 1 or step % AVERAGED == 0

    @torch.no_grad()
    def share(self, tensors: Iterable[Tensor]) -> None:
        """Let each tensor be the first process's."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)

    @torch.no_grad()
    def average(self, tensors: Iterable[Tensor]) -> None:
        """Let each tensor be the mean of all processes'."""
        if self.size > 1:
            held = list(tensors)
            together = torch.cat([tensor.flatten() for tensor in held])
            distributed.all_reduce(together)
            pieces = torch.split(together / self.size, [tensor.numel() for tensor in held])
            torch._foreach_copy_(held, [piece.view_as(tensor) for piece, tensor in zip(pieces, held, strict=True)])

    def part(self) -> None:
        """Wait for the others, and let go of them: a process that ends before takes theirs down."""
        if self.size > 1:
            distributed.barrier()
            distributed.destroy_process_group()

    def agreed(self, value: float) -> float:
        """The first process's value, so that all of them stop at the same step."""
        if self.size == 1:
            return value
        held = torch.tensor([value], dtype=torch.float64, device=self._device)
        distributed.broadcast(held, src=0)
        return float(held)


def own_device(name: str) -> torch.device:
    """The device called `name`; of GPUs, the one of this process's own."""
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        return device
    return torch.device(name)
