"""The port of a service. Needs no server library, so that a supervisor can take it for others."""

import socket

from core.errors import ConfigError
from core.settings.config import ServerConfig


def bind(config: ServerConfig) -> socket.socket:
    """The socket to listen on, taken before anything slow starts. Raises ConfigError when it cannot be had."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # Named as TCP, asyncio sends at once on its connections; else small messages would wait for the client's ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            [
                f"server: cannot listen on {config.host}:{config.port}: {error.strerror or error}. "
                "Stop the program that holds the port, or choose another with --port."
            ]
        ) from None
    return listener
