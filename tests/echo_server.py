"""The real server in a process of its own, with an engine that echoes: `python -m tests.echo_server CONFIG`.

Says its address when it serves. With `--largest-file` no file that it writes can grow beyond so many bytes: so it meets
a full disk. With `--descriptors` it can open no more than so many files and sockets.
"""

import argparse
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.boot.exit_deadline import EXIT_S, exit_within
from core.http.app import create_app
from core.http.event_loop import run
from core.http.listening import bind
from core.http.uvicorn_server import GracefulServer
from core.plugin.host import PluginHost
from core.settings.config import load_config
from core.settings.log import configure_logging
from core.testing import EchoEngine


@contextmanager
def echo_server(
    config: Path, *arguments: str, log: Path = Path(os.devnull)
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Such a process, and its port. It is killed with the context."""
    command = [sys.executable, "-m", "tests.echo_server", str(config), *arguments]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, preexec_fn=_hear_hangups
        ) as process,
    ):
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline().rpartition(":")[2])
        finally:
            process.kill()


def _hear_hangups() -> None:
    """Undo `nohup`, which the tests may have been started with."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


async def main(path: Path, slots: int) -> None:
    """Serve until a signal comes."""
    config = load_config(path, {})
    configure_logging(config.log)
    app = create_app(config, EchoEngine(slots=slots), PluginHost.load(config))
    async with app.router.lifespan_context(app):
        listener = bind(config.server)
        host, port = listener.getsockname()
        ready = f"PersonaPlex serves at http://{host}:{port}"
        graceful = GracefulServer(app, config.server, lambda: print(ready, flush=True), exit_within)
        await graceful.serve(sockets=[listener])
    exit_within(EXIT_S)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--largest-file", type=int, default=resource.RLIM_INFINITY)
    parser.add_argument("--descriptors", type=int, default=resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (options.descriptors, options.descriptors))
    resource.setrlimit(resource.RLIMIT_FSIZE, (options.largest_file, options.largest_file))
    run(main(options.config, options.slots))
