"""A server in a process of its own, with an engine that echoes: `python -m tests.echo_server CONFIG [LARGEST_FILE]`.

Prints its port when it serves. No file that it writes can grow beyond LARGEST_FILE bytes: so it meets a full disk.
"""

import asyncio
import resource
import sys
from pathlib import Path

from core.config import load_config
from core.plugins import PluginHost
from core.server import create_app
from core.serving import Server, bind
from tests.echo_engine import EchoEngine


async def main(path: Path) -> None:
    """Serve until killed."""
    config = load_config(path, {})
    app = create_app(config, EchoEngine(), PluginHost.load(config))
    async with app.router.lifespan_context(app):
        listener = bind(config.server)
        port = listener.getsockname()[1]
        await Server(app, config.server, lambda: print(port, flush=True)).serve(sockets=[listener])


if __name__ == "__main__":
    if len(sys.argv) > 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
    asyncio.run(main(Path(sys.argv[1])))
