"""uvicorn, set up for conversations: quick heartbeat, no compression, small messages, a goodbye, and a quiet log."""

import logging
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from core.config import ServerConfig
from core.errors import ConfigError
from core.service import Service

HEARTBEAT_S = 5.0
"""A client is pinged this often, and gone when it has not answered for as long: half-open connections end in 10 s."""
LAST_BYTES_S = 5.0
"""How long a finished connection may take to read what is left for it."""
SHUTDOWN_S = 10


class ConversationProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket connection, except that it cannot outlive its conversation.

    A client that stays connected but reads nothing would keep a closed connection, and its buffers, for ever.
    """

    async def run_asgi(self) -> None:
        """Serve the connection, then give it a few seconds to take the rest."""
        await super().run_asgi()
        self.loop.call_later(LAST_BYTES_S, self.transport.abort)


class Server(uvicorn.Server):
    """uvicorn's server, which lets the service say goodbye before connections are cut."""

    def __init__(self, app: Starlette, config: ServerConfig, ready: Callable[[], None] = lambda: None) -> None:
        """`ready` is called once, when callers can connect. The app's lifespan is for the caller to run."""
        self._service: Service = app.state.service
        self._ready = ready
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # below, it prints queries: prompts, tickets
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                ws=ConversationProtocol,
                ws_max_size=config.max_message_bytes,
                ws_per_message_deflate=False,
                ws_ping_interval=HEARTBEAT_S,
                ws_ping_timeout=HEARTBEAT_S,
                timeout_graceful_shutdown=SHUTDOWN_S,
                log_config=None,
                access_log=False,
                server_header=False,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """End the server, and with a second signal at once. The signal is not raised again: the end is a clean one."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say goodbye, then close."""
        await self._service.say_goodbye()
        await super().shutdown(sockets)


def bind(config: ServerConfig) -> socket.socket:
    """The socket to listen on, taken before anything slow starts. Raises ConfigError when it cannot be had."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
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
