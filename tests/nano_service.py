"""`personaplex serve` with the configuration in a file: `python -m tests.nano_service CONFIG`."""

import os
import sys
from pathlib import Path

from core.cli.serve import serve_until_stopped
from core.settings.config import load_config

if __name__ == "__main__":
    serve_until_stopped(load_config(Path(sys.argv[1]), os.environ))
