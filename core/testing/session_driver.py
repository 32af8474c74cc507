"""One session with the real service, where the test is the client and a pair of queues is the network."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import numpy as np
from starlette.types import ASGIApp, Message

from core.engine.call import FRAME_SAMPLES, Frame
from core.errors import PersonaplexError, RefusedError
from core.events import SessionEnded, SessionEvent, SessionInfo
from core.media.audio_codecs import PcmReader, PcmWriter
from core.plugin.acting import SessionControl
from core.session.protocol import Kind
from core.testing.event_recorder import PATIENCE_S, EventRecorder

ROUTE = "/ws/chat"
ADDRESS = "127.0.0.1"
ABNORMAL = 1006
"""What a client takes for the close code of a connection that ends without one."""


class SessionClosedError(PersonaplexError):
    """The service has ended the session. `code` is the WebSocket close code; the text is what the caller is told."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message or f"The service closed the session with code {code}.")


class SessionDriver:
    """The client of one session. Frames travel as 16-bit PCM, as on a real call, so samples are exact to 1e-4."""

    def __init__(self, recorder: EventRecorder) -> None:
        """Used by `open_session`, which makes and closes it."""
        self.text = ""
        """The agent's words so far."""
        self.metadata: list[dict[str, Any]] = []
        """The JSON messages from the service so far, such as `{"type": "ready", ...}`."""
        self._recorder = recorder
        self._session_id = ""
        self._to_service: asyncio.Queue[Message] = asyncio.Queue()
        self._from_service: asyncio.Queue[Message] = asyncio.Queue()
        self._reader, self._writer = PcmReader(), PcmWriter()
        self._error = ""
        """What the service said was wrong."""
        self._closed: SessionClosedError | None = None

    @property
    def info(self) -> SessionInfo:
        """What the plugins are told about this session."""
        return next(info for info, _ in self._recorder.events if info.id == self._session_id)

    @property
    def control(self) -> SessionControl:
        """A control of this session, as a plugin has it: such as to tell by `caller_said` what the caller says."""
        return self._recorder.controls[self._session_id]

    @property
    def events(self) -> list[SessionEvent]:
        """The events of this session so far, in order."""
        return [event for info, event in self._recorder.events if info.id == self._session_id]

    @property
    def ended(self) -> SessionEnded | None:
        """How the session ended; None while it goes on."""
        return next((event for event in self.events if isinstance(event, SessionEnded)), None)

    async def exchange(self, frame: Frame) -> Frame:
        """Send the caller's next frame, float32[1920], and return the agent's frame that answers it.

        Raises SessionClosedError when the service has ended the session, and TimeoutError when no answer comes.
        """
        payload = bytes([Kind.AUDIO]) + self._writer.write(frame)
        self._to_service.put_nowait({"type": "websocket.receive", "bytes": payload})
        answer = self._reader.read(await self._receive(Kind.AUDIO))
        while self._closed is None and not self._from_service.empty():  # the text that belongs to the frame follows it
            await self._receive_any()
        return answer

    async def until(self, condition: Callable[[], bool]) -> None:
        """Be silent, a frame at a time, until the condition holds: what plugins do takes its time beside the call.

        Raises SessionClosedError when the service has ended the session, and TimeoutError after PATIENCE_S.
        """
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await self.exchange(np.zeros(FRAME_SAMPLES, np.float32))

    def tell(self, type: str, **data: Any) -> None:
        """Send METADATA, as a client does: of type `PLUGIN.TYPE` it is for that plugin's handler."""
        payload = json.dumps({"type": type, **data}).encode()
        self._to_service.put_nowait({"type": "websocket.receive", "bytes": bytes([Kind.METADATA]) + payload})

    async def run(self, app: ASGIApp, headers: Mapping[str, str], query: Mapping[str, str]) -> None:
        """Hold the session as the service's side of the queues does. Returns when it is over."""
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": ROUTE,
            "raw_path": ROUTE.encode(),
            "query_string": urlencode(query).encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
            "client": (ADDRESS, 50_000),
            "server": (ADDRESS, 80),
            "subprotocols": [],
            "state": {},
            "extensions": {"websocket.http.response": {}},
        }
        self._to_service.put_nowait({"type": "websocket.connect"})
        try:
            await app(scope, self._to_service.get, self._from_service.put)
        finally:
            self._from_service.put_nowait({"type": "websocket.close", "code": ABNORMAL})

    async def shake_hands(self) -> None:
        """Return when the caller may speak. Raises RefusedError or SessionClosedError when that will not be."""
        first = await self._next_message()
        if first["type"] == "websocket.http.response.start":
            body = (await self._next_message())["body"]
            raise RefusedError(first["status"], json.loads(body)["error"])
        await self._receive(Kind.HANDSHAKE)
        self._session_id = next(told["session"] for told in self.metadata if told["type"] == "ready")

    def hang_up(self) -> None:
        """Close the connection, as a client does that leaves."""
        self._to_service.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def _receive(self, wanted: Kind) -> bytes:
        """The payload of the next message of one kind. Text and metadata that come before it are kept."""
        while self._closed is None:
            kind, payload = await self._receive_any()
            if kind == wanted:
                return payload
        raise self._closed

    async def _receive_any(self) -> tuple[int | None, bytes]:
        """Take one message and keep what it says. A message that closes the session has no kind."""
        message = await self._next_message()
        if message["type"] == "websocket.close":
            self._closed = SessionClosedError(message["code"], self._error)
            return None, b""
        kind, payload = message["bytes"][0], message["bytes"][1:]
        if kind == Kind.TEXT:
            self.text += payload.decode()
        elif kind == Kind.METADATA:
            self.metadata.append(json.loads(payload))
        elif kind == Kind.ERROR:
            self._error = payload.decode()
        return kind, payload

    async def _next_message(self) -> Message:
        async with asyncio.timeout(PATIENCE_S):
            return await self._from_service.get()


@asynccontextmanager
async def open_session(
    app: ASGIApp, recorder: EventRecorder, headers: Mapping[str, str], query: Mapping[str, str]
) -> AsyncIterator[SessionDriver]:
    """A session that has had its handshake. Leaving the context hangs up and waits until the session has ended.

    `query` holds parameters of `/ws/chat`. Raises RefusedError when the request is refused, and SessionClosedError when
    the session ends before its handshake.
    """
    driver = SessionDriver(recorder)
    service = asyncio.create_task(driver.run(app, {"host": "localhost", **headers}, {"audio": "pcm", **query}))
    try:
        await driver.shake_hands()
        yield driver
    finally:
        driver.hang_up()
        await service
