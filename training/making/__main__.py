"""The process that makes nano in the training folder that is its argument; `python -m training make` starts it."""

import os
import signal
import sys
from pathlib import Path

import torch

from training.making.conductor import Conductor
from training.making.folder import read_request, write_result
from training.making.plan import Machine


def machine() -> Machine:
    """What this process may use of the machine."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(number) for number in range(torch.cuda.device_count())]
    if names:
        gpus = names.split(",")[: len(gpus)]
    return Machine(tuple(gpus), len(os.sched_getaffinity(0)))


def main(folder: Path) -> int:
    """Make what the folder's request says; a signal to end is heeded as soon as nothing is being started or packed."""
    signals: list[int] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # The one who started it may go.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.append(number))
    found = machine()
    print(f"{len(found.gpus)} GPUs, {found.cores} cores", flush=True)
    conductor = Conductor(
        folder, read_request(folder), found, lambda line: print(line, flush=True), lambda: bool(signals)
    )
    code = 1
    try:
        code = conductor.run()
    finally:
        write_result(folder, code)
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
