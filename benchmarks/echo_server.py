"""The real server with an engine that only echoes: `python -m benchmarks.echo_server CONFIG SLOTS`."""

import asyncio
import sys
from pathlib import Path

from core.config import load_config
from core.log import configure_logging
from core.plugins import PluginHost
from core.server import create_app
from core.serving import Server, bind
from tests.echo_engine import EchoEngine


async def main(path: Path, slots: int) -> None:
    """Serve until a signal comes."""
    config = load_config(path, {})
    configure_logging(config.log)
    app = create_app(config, EchoEngine(slots=slots), PluginHost.load(config))
    async with app.router.lifespan_context(app):
        listener = bind(config.server)
        host, port = listener.getsockname()
        ready = f"PersonaPlex serves at http://{host}:{port} (an echo)"
        await Server(app, config.server, lambda: print(ready, flush=True)).serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
