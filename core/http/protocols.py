"""uvicorn's HTTP and WebSocket connections, with the limits of a service that strangers may reach.

They are subclasses of uvicorn's `H11Protocol` and `WebSocketsSansIOProtocol`. Beyond asyncio's Protocol they rely on
these: for HTTP `conn` (h11's connection), `flow`, `timeout_keep_alive`, `on_response_complete`, `send_400_response` and
`handle_websocket_upgrade`; for WebSockets `conn` (websockets' `ServerProtocol`), `frames`, `close_sent`,
`handle_events`, `handle_cont`, `handle_ping`, `send_receive_event_to_app` and `handle_parser_exception`.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.server import ServerProtocol

from core.http.connection_limits import ConnectionLimits
from core.http.headers import HEADERS
from core.plugin.client_socket import ABNORMAL_CLOSURE
from core.session.protocol import CloseCode
from core.session.token_bucket import TokenBucket
from core.settings.log import get_logger

LAST_BYTES_S = 5.0
"""How long a finished WebSocket may take to read what is left for it."""
STALLED_S = 5.0
"""How often a response that waits for its reader is looked at."""
SLOWEST_BYTES = 4096
"""What a reader must have taken each time, or the connection is cut."""
HTTP_READ_BYTES = 16_384
WEBSOCKET_READ_BYTES = 4096
"""How much is read at once. All of it is parsed before anything else happens, and it may be frames of six bytes."""
MOST_UNREAD = 8
"""Messages that may wait for the app before its connection is read no further."""
MOST_FRAGMENTS = 1000
"""Fragments of one message; a client that sends an endless message of empty ones is closed."""
FRAMES_PER_MESSAGE = 2
"""Frames a client may send, control frames too, for each message that it may: most send one, and a pong at times."""
BURST_S = 5.0
"""As many frames may come at once as in so many seconds: a network that stalled delivers them together."""
_log = get_logger("connections")


class HttpProtocol(H11Protocol):
    """An HTTP connection on which whole requests come in time, and responses are read, however slowly either drips."""

    def __init__(self, *arguments: Any, limits: ConnectionLimits, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._limits = limits
        self._request_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._unread = 0
        """Bytes of responses that waited for their reader when they were last looked at."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn's
        """Expect a request, or turn the connection away when there are too many."""
        super().connection_made(transport)
        _read_at_most(transport, HTTP_READ_BYTES)
        transport.set_write_buffer_limits(high=0)  # so that `pause_writing` tells of any byte that is not read
        if self._limits.opened(transport, self.client[0] if self.client else ""):
            self._expect_request()
        else:
            self._answer(503, "The service has as many connections as it takes. Try again in a minute.")

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is expected any more."""
        super().connection_lost(exc)
        self._limits.closed(self.transport)
        self._stop_timers()

    def pause_writing(self) -> None:
        """A response waits for its reader."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """All that was written is read."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()

    def on_response_complete(self) -> None:
        """Another request may follow."""
        super().on_response_complete()
        self._expect_request()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over to a conversation, which has limits of its own."""
        self._stop_timers()
        super().handle_websocket_upgrade(event)
        conversation = self.transport.get_protocol()
        if isinstance(conversation, WebSocketProtocol) and conversation.handshake_failed:  # uvicorn would not answer
            self.send_400_response(
                "The handshake cannot be read: its address or a header is longer than 8 KiB, or has a character that "
                "is not allowed there."
            )

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, with the headers that all answers have."""
        self._answer(400, msg)

    def _answer(self, status: int, message: str) -> None:
        """Answer without the app, and close."""
        body = json.dumps({"error": message}).encode()
        fixed = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close", **HEADERS}
        headers = [(name.encode(), value.encode()) for name, value in fixed.items()]
        for event in (
            h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode()),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _expect_request(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
        self._request_timer = self.loop.call_later(self.timeout_keep_alive, self._request_is_late)

    def _request_is_late(self) -> None:
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.transport.is_closing():
            self.transport.abort()

    def _watch_reader(self) -> None:
        self._unread = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(STALLED_S, self._reader_is_late)

    def _reader_is_late(self) -> None:
        """Cut a connection whose reader takes next to nothing, also one that is closing."""
        if self.transport.get_write_buffer_size() > self._unread - SLOWEST_BYTES:
            self.transport.abort()
        else:
            self._watch_reader()

    def _stop_timers(self) -> None:
        for timer in (self._request_timer, self._write_timer):
            if timer is not None:
                timer.cancel()


class _Handshake(ServerProtocol):
    """websockets' side of a connection, with the headers that all answers have."""

    def send_response(self, response: Response) -> None:
        """Send the answer to the upgrade."""
        for name, value in HEADERS.items():
            if name not in response.headers:
                response.headers[name] = value
        super().send_response(response)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket connection that cannot outlive its conversation, make the server hoard, or keep it from the others.

    A client that stays connected but reads nothing would keep a closed connection, and its buffers, for ever. One that
    sends frames without end, empty ones or pongs, would keep the event loop busy with parsing them.
    """

    def __init__(
        self, *arguments: Any, limits: ConnectionLimits, messages_per_s: Callable[[], int], **named: Any
    ) -> None:
        """`messages_per_s` says how many messages a client may send; frames are counted beyond that."""
        super().__init__(*arguments, **named)
        self.conn = _Handshake(max_size=self.config.ws_max_size, logger=self.logger)
        self._limits = limits
        rate = FRAMES_PER_MESSAGE * messages_per_s()
        self._frame_budget = TokenBucket(rate, rate * BURST_S)

    @property
    def handshake_failed(self) -> bool:
        """Whether what came is no handshake for websockets, which is stricter than h11."""
        return self.conn.handshake_exc is not None and not self.handshake_initiated

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection over from HTTP."""
        super().connection_made(transport)
        _read_at_most(transport, WEBSOCKET_READ_BYTES)
        self.transport.set_write_buffer_limits()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the conversation, and those who count. A connection that breaks has no close code: uvicorn gives it that
        of a client which closed without one."""
        if self.handshake_complete:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": ABNORMAL_CLOSURE})
        super().connection_lost(exc)
        self._limits.closed(self.transport)

    async def run_asgi(self) -> None:
        """Serve the connection, then give it a few seconds to take the rest."""
        await super().run_asgi()
        self.loop.call_later(LAST_BYTES_S, self.transport.abort)

    async def send(self, message: Any) -> None:
        """Take a message of the app. A refusal ends the handshake; uvicorn else logs each as a fault of the app."""
        await super().send(message)
        self.handshake_complete = self.handshake_complete or self.close_sent

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless the connection ends."""
        if not self.transport.is_closing():
            super().data_received(data)

    def handle_events(self) -> None:
        """Take the frames that came, of every kind, as long as there are not too many.

        After our own close frame the client's is waited for, and the budget is what keeps it from sending on and on.
        """
        if self._frame_budget.take(len(self.conn.events)) == 0:
            super().handle_events()
        elif self.close_sent:
            self.transport.abort()
        else:
            self._fail(CloseCode.TOO_FAST, "too many frames")

    def handle_cont(self, event: Frame) -> None:
        """Take a fragment of a message."""
        if len(self.frames) < MOST_FRAGMENTS:
            super().handle_cont(event)
        else:
            self._fail(CloseCode.TOO_BIG, "too many fragments")

    def handle_ping(self) -> None:
        """Answer a ping, but not those of a client that does not read the answers."""
        answer = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self.transport.write(answer)

    def send_receive_event_to_app(self) -> None:
        """Give a whole message to the app. Text that is none ends the connection; uvicorn logs a traceback for each."""
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                _log.info("a text message that is no UTF-8", address=self.client[0] if self.client else "")
                self._fail(CloseCode.NOT_TEXT, "not UTF-8")
                return
        if self.queue.qsize() >= MOST_UNREAD:
            super().send_receive_event_to_app()
            return
        # uvicorn stops reading after each message, at two system calls a message; some may wait before it does.
        paused, self.read_paused = self.read_paused, True
        try:
            super().send_receive_event_to_app()
        finally:
            self.read_paused = paused

    def _fail(self, code: CloseCode, reason: str) -> None:
        """End the connection at once; what came and what comes is dropped."""
        self.conn.events_received()
        self.conn.fail(code, reason)
        if self.conn.close_sent is not None:
            self.handle_parser_exception()
        else:
            self.transport.abort()


def _read_at_most(transport: asyncio.BaseTransport, size: int) -> None:
    """Bound what is read from a connection at once. asyncio has this attribute, of 256 KiB; other loops may not."""
    with contextlib.suppress(AttributeError):
        transport.max_size = size  # type: ignore[attr-defined]
