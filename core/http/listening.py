"""The port of a service. Needs no server library, so that a supervisor can take it for its workers."""

import socket

from core.errors import ConfigError
from core.settings.sections import ServerConfig

BACKLOG = 128
"""Connections that the system holds until they are accepted; asyncio may accept as many without a pause."""


def bind(config: ServerConfig) -> socket.socket:
    """The socket that callers connect to, listening already. Raises ConfigError when it cannot be had.

    Taken before anything slow starts: a second service on the port finds it taken at once, and who connects early waits
    until the first one serves.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # Named as TCP, asyncio sends at once on its connections; else small messages would wait for the client's ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            [
                f"server: cannot listen on {config.host}:{config.port}: {error.strerror or error}. "
                "Stop the program that holds the port, or choose another with --port."
            ]
        ) from None
    return listener
