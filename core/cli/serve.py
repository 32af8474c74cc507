"""`serve`: say what is on, and serve until a signal comes, in one process or several."""

import socket

from rich.console import Console

from core.boot.sizing import plan_processes
from core.cli.standard_streams import lossy_standard_error
from core.http.listening import bind
from core.settings.config import Config
from core.settings.log import configure_logging

ENGINE_FACTORY = "core.boot.local_engine:open_engine"


def serve_until_stopped(config: Config, engine_factory: str = ENGINE_FACTORY) -> None:
    """Serve until Ctrl-C, SIGTERM or SIGHUP. Raises PersonaplexError when the service cannot start.

    `engine_factory` makes the engine where it has a process of its own.
    """
    processes = plan_processes(config)
    with lossy_standard_error(), bind(config.server) as listener:
        console = Console(stderr=True, highlight=False)

        def report(line: str) -> None:
            console.print(line, markup=False)

        def announce(about: dict[str, str]) -> None:
            for title, text in about.items():
                console.print(f"{title:>10}  {text}", markup=False, soft_wrap=True)
            console.print(f"PersonaPlex serves at {_address(listener)} (Ctrl-C ends it)", markup=False)

        # Each needs libraries that the other does without, and takes seconds or memory for them.
        if processes is None:
            from core.boot.one_process import serve_in_one_process

            configure_logging(config.log)
            serve_in_one_process(config, listener, report, announce)
        else:
            from core.boot.supervisor import Supervisor

            configure_logging(config.log, process="supervisor")
            Supervisor(config, processes, engine_factory, report, announce).serve(listener)
        console.print("Stopped.")


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
