"""uvicorn, set up for conversations: quick heartbeat, no compression, small messages, a goodbye, and a quiet log."""

import asyncio
import json
import logging
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.server import ServerProtocol

from core.http.headers import HEADERS
from core.session.call_service import GOODBYE_S, CallService
from core.session.protocol import CloseCode
from core.settings.config import ServerConfig

HEARTBEAT_S = 5.0
"""A client is pinged this often, and gone when it has not answered for as long: half-open connections end in 10 s."""
LAST_BYTES_S = 5.0
"""How long a finished connection may take to read what is left for it."""
BACKLOG = 256
"""Connections that may wait to be accepted."""
MOST_FRAGMENTS = 1000
"""Pieces of one message; a client that sends an endless message of empty pieces is closed."""


class RequestProtocol(H11Protocol):
    """uvicorn's HTTP connection, except that a whole request must come in time, however slowly a client drips it."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn's
        """A request must follow."""
        super().connection_made(transport)
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is expected any more."""
        super().connection_lost(exc)
        if self._deadline is not None:
            self._deadline.cancel()

    def on_response_complete(self) -> None:
        """Another request may follow."""
        super().on_response_complete()
        self._expect_request()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over to a conversation, which has limits of its own."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().handle_websocket_upgrade(event)
        conversation = self.transport.get_protocol()
        if isinstance(conversation, ConversationProtocol) and conversation.unreadable:  # uvicorn would not answer
            self.send_400_response(
                "The handshake cannot be read: its address or a header is longer than 8 KiB, or has a character that "
                "is not allowed there."
            )

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, with the headers that all answers have."""
        body = json.dumps({"error": msg}).encode()
        fixed = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close", **HEADERS}
        headers = [(name.encode(), value.encode()) for name, value in fixed.items()]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _expect_request(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(self.timeout_keep_alive, self._end_of_patience)

    def _end_of_patience(self) -> None:
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.transport.is_closing():
            self.transport.abort()


class _Handshake(ServerProtocol):
    """websockets' side of a connection, with the headers that all answers have."""

    def send_response(self, response: Response) -> None:
        """Send the answer to the upgrade."""
        for name, value in HEADERS.items():
            if name not in response.headers:
                response.headers[name] = value
        super().send_response(response)


class ConversationProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket connection, except that it cannot outlive its conversation, nor make the server hoard.

    A client that stays connected but reads nothing would keep a closed connection, and its buffers, for ever.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn = _Handshake(max_size=self.config.ws_max_size, logger=self.logger)

    @property
    def unreadable(self) -> bool:
        """Whether what came is no handshake for websockets, which is stricter than h11."""
        return self.conn.handshake_exc is not None and not self.handshake_initiated

    async def run_asgi(self) -> None:
        """Serve the connection, then give it a few seconds to take the rest."""
        await super().run_asgi()
        self.loop.call_later(LAST_BYTES_S, self.transport.abort)

    async def send(self, message: Any) -> None:
        """Take a message of the app. A refusal ends the handshake; uvicorn else logs each as a fault of the app."""
        await super().send(message)
        self.handshake_complete = self.handshake_complete or self.close_sent

    def handle_cont(self, event: Frame) -> None:
        """Take a piece of a message."""
        if len(self.frames) < MOST_FRAGMENTS:
            return super().handle_cont(event)
        self.conn.fail(CloseCode.TOO_BIG, "too many pieces")
        return self.handle_parser_exception()

    def handle_ping(self) -> None:
        """Answer a ping, but not those of a client that does not read the answers."""
        answer = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self.transport.write(answer)


class Server(uvicorn.Server):
    """uvicorn's server, which lets the service say goodbye before connections are cut."""

    def __init__(
        self,
        app: Starlette,
        config: ServerConfig,
        ready: Callable[[], None] = lambda: None,
        *,
        shared: bool = False,
    ) -> None:
        """`ready` is called once, when callers can connect. The app's lifespan is for the caller to run.

        `shared`: other processes listen on the same socket. Each then accepts one connection at a time, so that a busy
        one leaves the next to the others.
        """
        self._service: CallService = app.state.service
        self._ready = ready
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # below, it prints queries: prompts, tickets
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                http=RequestProtocol,
                ws=ConversationProtocol,
                ws_max_size=config.max_message_bytes,
                ws_per_message_deflate=False,
                ws_ping_interval=HEARTBEAT_S,
                ws_ping_timeout=HEARTBEAT_S,
                timeout_keep_alive=config.request_s,  # type: ignore[arg-type] # it goes to call_later
                timeout_graceful_shutdown=round(2 * GOODBYE_S),
                log_config=None,
                access_log=False,
                backlog=1 if shared else BACKLOG,
                server_header=False,
                proxy_headers=False,  # the app sees to them, so that it may run in other servers too
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """End the server, and with a second signal at once. The signal is not raised again: the end is a clean one."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)  # asyncio takes one number for this and for how many it accepts at a time
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let calls end for a while, say goodbye to the others, then close."""
        draining = asyncio.create_task(self._service.drain())
        while not draining.done() and not self.force_exit:
            await asyncio.wait([draining], timeout=0.1)
        draining.cancel()
        await self._service.end_calls()
        await super().shutdown(sockets)
