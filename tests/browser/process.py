"""`personaplex serve` in processes of its own: forked from one that has imported everything, not each for itself."""

import os
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import core.boot.local_engine  # noqa: F401 - what `serve` imports when it opens the engine: seconds, on two cores
from core.cli.main import main


def start(folder: Path, port: int) -> ForkServerProcess:
    """Serve with the config.yaml in a folder; what is said goes to its file `log`."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["pytest", __name__])  # pytest, as a forked process imports its parent's program
    process = context.Process(target=_serve, args=(folder, port), daemon=True)
    process.start()
    return process


def _serve(folder: Path, port: int) -> None:
    with (folder / "log").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    main(["serve", "--config", str(folder / "config.yaml"), "--port", str(port)])
