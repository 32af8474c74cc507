"""The server: uvicorn, set up for conversations. A heartbeat, no compression, a goodbye at the end, and a quiet log."""

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette

from core.http.connection_limits import ConnectionLimits
from core.http.listening import BACKLOG
from core.http.protocols import HttpProtocol, WebSocketProtocol
from core.session.call_service import GOODBYE_S, CallService
from core.settings.sections import ServerConfig

HEARTBEAT_S = 5.0
"""A client is pinged this often, and gone when it has not answered for as long: half-open connections end in 10 s."""
STOP_S = 25.0
"""How long the process may take to end after a signal, beside `server.drain_s`: for the last words of calls, and for
plugins to shut down."""


Accept = Callable[[socket.socket, Callable[[], asyncio.Protocol], Callable[[], int]], Coroutine[Any, Any, None]]
"""Accepts the connections of a socket that listens until it is cancelled. It is given what makes the protocol of each,
and what says how many there are."""


class GracefulServer(uvicorn.Server):
    """uvicorn's server, which at SIGTERM, SIGHUP and Ctrl-C lets calls end, says goodbye, and only then cuts them."""

    def __init__(
        self,
        app: Starlette,
        config: ServerConfig,
        ready: Callable[[], None] = lambda: None,
        exit_within: Callable[[float], None] = lambda _: None,
        *,
        accept: Accept | None = None,
    ) -> None:
        """`ready` is called once, when callers can connect. The app's lifespan is for the caller to run.

        `exit_within` is called with each signal, and must see to it that the process ends in so many seconds.

        `accept` accepts the connections, in place of the event loop.
        """
        self._exit_within = exit_within
        self._stop_s = config.drain_s + STOP_S
        self._service: CallService = app.state.service
        self._ready = ready
        self._limits = ConnectionLimits(config)
        self._accept = accept
        self._accepting: list[asyncio.Task[None]] = []
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # below, it prints queries: prompts, tickets
        http: Any = partial(HttpProtocol, limits=self._limits)
        websocket: Any = partial(WebSocketProtocol, limits=self._limits, messages_per_s=self._messages_per_s)
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                http=http,
                ws=websocket,
                backlog=BACKLOG,
                ws_max_size=config.max_message_bytes,
                ws_per_message_deflate=False,
                ws_ping_interval=HEARTBEAT_S,
                ws_ping_timeout=HEARTBEAT_S,
                timeout_keep_alive=config.request_s,  # type: ignore[arg-type] # it goes to call_later
                timeout_graceful_shutdown=round(2 * GOODBYE_S),
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # the app sees to them, so that it may run in other servers too
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals that end the server. A terminal that is closed sends SIGHUP, unless `nohup` ignores it."""
        with super().capture_signals():
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            before = signal.getsignal(signal.SIGHUP)
            if before is not signal.SIG_IGN:
                signal.signal(signal.SIGHUP, self.handle_exit)
            try:
                yield
            finally:
                signal.signal(signal.SIGHUP, before)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """End the server, and with a second signal at once. The signal is not raised again: the end is a clean one."""
        if not self.force_exit:  # more signals than two do not put the end off
            self._exit_within(GOODBYE_S if self.should_exit else self._stop_s)
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        asyncio.get_running_loop().set_exception_handler(self._limits.loop_failed)
        if self._accept is not None:
            for listener in sockets or ():
                accepting = self._accept(listener, self._protocol, lambda: len(self._limits))
                self._accepting.append(asyncio.create_task(accepting, name="accept"))
            sockets = []
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let calls end for a while, say goodbye to the others, then close."""
        draining = asyncio.create_task(self._service.drain())
        while not draining.done() and not self.force_exit:
            await asyncio.wait([draining], timeout=0.1)
        draining.cancel()
        await self._service.end_calls()
        for accepting in self._accepting:
            accepting.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        """What uvicorn makes for each connection."""
        http: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = http(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    def _messages_per_s(self) -> int:
        return self._service.config.session.max_messages_per_s
