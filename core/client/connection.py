"""A connection to a server's WebSocket, as a client of the protocol holds it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
import websockets.asyncio.client as websockets
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from core.client.frame_times import FrameTimes
from core.engine.call import FRAME_S
from core.errors import CallError
from core.events import CallerText
from core.media.audio_codecs import AudioFormat
from core.plugin.acting import AgentText
from core.session.protocol import CloseCode, Kind
from core.session.transcript import Transcript

CONNECT_S = 10.0
CLOSE_S = 2.0
"""How long the server may take to answer a close."""
SILENCE_S = 15.0
"""A server sends something every 3 s; one that is silent for this long is gone."""
MAX_MESSAGE_BYTES = 2**20


@dataclass(frozen=True)
class CallOptions:
    """How to call. `parameters` go into the query, beside those that the URL has."""

    parameters: Mapping[str, str]
    audio: AudioFormat = "opus"
    password: str | None = None


class Connection:
    """One call, from the accepted upgrade on. Made by `connect`."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket
        self._begun = False
        self._error = ""
        self.text = ""
        """What the agent has said so far."""
        self.ready: dict[str, object] = {}
        """The Ready message; empty before it comes, and on `/api/chat`."""
        self.transcript = Transcript()
        """What both sides have said so far; the caller's words where the server tells them."""
        self._frames = 0
        self.dropped = 0
        """How many frames the server says it has dropped; 0 on `/api/chat`, which does not say it."""

    @property
    def close_code(self) -> int:
        """How the WebSocket was closed; 1000 while it is open."""
        return self._socket.close_code or CloseCode.NORMAL

    @property
    def close_reason(self) -> str:
        """Why the server ended the call; "" when it did not, or did not say why."""
        return self._error or self._socket.close_reason or ""

    async def wait_for_handshake(self) -> None:
        """Return when the caller may speak. Raises CallError when the server ends the call before, or is silent."""
        while not self._begun:
            await self.receive()

    async def send_audio(
        self,
        messages: Iterable[bytes],
        message_s: float,
        times: FrameTimes,
        on_sent: Callable[[int], None] = lambda _frames: None,
    ) -> None:
        """Send AUDIO messages of `message_s` seconds each, at the moments at which a microphone would have them whole.

        The moments of each whole frame of 80 ms go to `times`; `on_sent` is called with the number of frames sent.
        Returns after the last one, or when the server has ended the call, which `receive` reports.
        """
        start = monotonic()
        messages_a_frame = round(FRAME_S / message_s)
        with contextlib.suppress(ConnectionClosed):
            for count, message in enumerate(messages, start=1):
                due = start + count * message_s
                await asyncio.sleep(due - monotonic())
                frames, part = divmod(count, messages_a_frame)
                if part == 0:
                    times.due.append(due)
                    times.sent.append(monotonic())
                await self._socket.send(message)
                if part == 0:
                    on_sent(frames)

    async def receive(self, silence_s: float = SILENCE_S) -> bytes | None:
        """Wait for the next message; the payload if it is AUDIO. What other messages say is kept in the attributes.

        Raises CallError when the server ends the call, sends nothing for that long, or sends an empty message.
        """
        try:
            async with asyncio.timeout(silence_s):
                message = await self._socket.recv(decode=False)
        except TimeoutError:
            raise CallError(f"The server said nothing for {silence_s:g} s.") from None
        except ConnectionClosed:
            when = "" if self._begun else " before it began"
            why = self.close_reason or "no reason given"
            raise CallError(f"The server ended the call{when}: {why} (code {self._socket.close_code}).") from None
        if not message:
            raise CallError("The server sent an empty message; it does not speak this protocol.")
        kind, payload = message[0], message[1:]
        if kind == Kind.AUDIO:
            self._frames += 1
            return payload
        self._note(kind, payload)
        return None

    def _note(self, kind: int, payload: bytes) -> None:
        if kind == Kind.HANDSHAKE:
            self._begun = True
        elif kind == Kind.TEXT:
            text = payload.decode(errors="replace")
            self.text += text
            end_ms = round(self._frames * FRAME_S * 1000)
            self.transcript.add_agent(AgentText(text, end_ms - round(FRAME_S * 1000), end_ms, given=False))
        elif kind == Kind.ERROR:
            self._error = payload.decode(errors="replace")
        elif kind == Kind.METADATA:
            try:
                values = json.loads(payload)
            except ValueError:
                return
            if values.get("type") == "ready":
                self.ready = values
            elif values.get("type") == "stats":
                self.dropped = int(values.get("dropped", 0))
            elif values.get("type") == "caller_text":
                with contextlib.suppress(msgspec.ValidationError):
                    del values["type"]
                    self.transcript.add_caller(msgspec.convert(values, CallerText))


@asynccontextmanager
async def connect(url: str, options: CallOptions) -> AsyncIterator[Connection]:
    """Call `url` (see `websocket_address`), and close the WebSocket when the context is left.

    Raises CallError when nobody answers, or the server refuses the call.
    """
    address = websocket_address(url, options)
    headers = {"Authorization": f"Bearer {options.password}"} if options.password else {}
    try:
        socket = await websockets.connect(
            address,
            additional_headers=headers,
            compression=None,
            open_timeout=CONNECT_S,
            close_timeout=CLOSE_S,
            max_size=MAX_MESSAGE_BYTES,
            proxy=None,
        )
    except InvalidStatus as error:
        raise CallError(_refusal(error)) from None
    except (InvalidURI, InvalidHandshake, ValueError) as error:
        raise CallError(f"{url}: no conversation is served at this address: {error}.") from None
    except (OSError, TimeoutError) as error:
        raise CallError(f"Cannot connect to {url}: {error or 'no answer'}. Is the server running there?") from None
    async with socket:
        yield Connection(socket)


def websocket_address(url: str, options: CallOptions) -> str:
    """The WebSocket address of `url` (`ws`, `wss`, `http` or `https`; no path means `/ws/chat`), with its query.

    Raises CallError when it is none.
    """
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname:
        raise CallError(f"{url}: give an address such as ws://localhost:8998 or https://example.com/api/chat.")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    query |= {**options.parameters, "audio": options.audio}
    path = parts.path if parts.path not in ("", "/") else "/ws/chat"
    return urlunsplit((scheme, parts.netloc, path, urlencode(query), ""))


def public_address(address: str) -> str:
    """An address without what may be secret in it: user information and query."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(query="", netloc=parts.netloc.rpartition("@")[2]))


def _refusal(error: InvalidStatus) -> str:
    """A sentence for an upgrade that was refused."""
    try:
        why = str(json.loads(error.response.body or b"")["error"])
    except (ValueError, KeyError, TypeError):
        why = error.response.reason_phrase
    return f"The server refused the call (HTTP {error.response.status_code}): {why}"
