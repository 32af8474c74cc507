"""A whole service in several processes, with engines that echo: `python -m tests.echo_service CONFIG --slots N`.

The same as `personaplex serve` but for the engines.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from core.cli.serve import serve_until_stopped
from core.settings.config import load_config
from core.settings.sections import EngineConfig
from core.testing import EchoEngine

FACTORY = "tests.echo_service:open_echo"


def open_echo(
    config: EngineConfig, report: Callable[[str], None], longest_s: float | None = None, carried: int | None = None
) -> EchoEngine:
    """An engine with `engine.slots` slots."""
    report("Loading the echo")
    return EchoEngine(slots=2 if config.slots == "auto" else config.slots)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    serve_until_stopped(load_config(parser.parse_args().config, os.environ), FACTORY)
