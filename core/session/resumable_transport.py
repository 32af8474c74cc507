"""A session's transport that outlives its connections: when one breaks the session goes on, for a while, until its
client has picked it up over another.

Meanwhile the agent hears silence. What it says is kept, of its sound the newest only, and sent when the client is back.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from core.engine.call import FRAME_S, FRAME_SAMPLES, Frame
from core.events import CallerText, SessionDropped, SessionEvent, SessionResumed
from core.plugin.acting import AgentText
from core.plugin.client_socket import ABNORMAL_CLOSURE
from core.plugin.doors import CallEnded, CallerSound, ClientMessage, Transport
from core.plugin.server_messages import PluginMessage, Ready, ServerMessage, Warned
from core.session.protocol import CloseCode
from core.session.resumption import Pickup, ResumeTokens
from core.session.websocket_transport import WebSocketTransport

GOODBYES = frozenset((CloseCode.NORMAL, CloseCode.GOING_AWAY, 1005))
"""The close codes by which a client hangs up; 1005 is a close without a code (RFC 6455, 7.4.1)."""
KEPT_S = 2.0
"""How much of the agent's sound is kept for a client that is away."""
MOST_WORDS = 500
"""The newest pieces of the agent's words, which a client that is back may have missed: two minutes of talk."""
MOST_MESSAGES = 100
"""Messages that are kept for a client that is away; the oldest are dropped."""
MOST_UNREAD = 8
"""What is received and the session has not taken; then the connection is read no further."""
LAST_WORD_S = 1.0
"""How long a connection that takes nothing more may need to say whether its client has hung up."""
GREETING_S = 5.0
"""How long a client that is back may take to read what was kept for it."""
CLOSE_S = 1.0
SILENCE = np.zeros(FRAME_SAMPLES, np.float32)


@dataclass(frozen=True)
class _Sound:
    """A frame of the agent, coded for the connection that there was when it was coded."""

    frame: Frame
    connection: "_Connection | None"
    encoded: bytes | None


@dataclass(eq=False)
class _Connection:
    """One of a call's connections."""

    transport: WebSocketTransport
    pickup: Pickup | None
    """None is the first connection's."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the call is no longer carried over it."""
    heard: bool = False
    """Whether its client has sent anything, and so has its token."""


class ResumableTransport(Transport):
    """Sends over the newest connection, or keeps what is to be sent. Belongs to one event loop.

    Each connection is carried by a task of its own, that of its request, which reads it. The session's end releases
    them.
    """

    def __init__(self, audio: str, identity: str, tokens: ResumeTokens, resume_s: float) -> None:
        """`identity` is the name of whose call it is; `resume_s` is how long the call waits for its client."""
        self.audio = audio
        self.identity = identity
        self.on_event: Callable[[SessionEvent], None] = lambda _event: None
        """Told when the client is gone and when it is back."""
        self._tokens = tokens
        self._resume_s = resume_s
        self._newest: _Connection | None = None
        self._sending: _Connection | None = None
        """The newest connection, as soon as it has all that was kept and as long as it takes what is sent."""
        self._ready: Ready | None = None
        """The handshake, from when on the call can be picked up again."""
        self._over = asyncio.Event()
        self._received: deque[CallerSound | ClientMessage | Exception] = deque()
        self._changed, self._room = asyncio.Event(), asyncio.Event()
        self._away_since: float | None = None
        self._drop_code = ABNORMAL_CLOSURE
        self._silence_due = 0.0
        self._frames: deque[Frame] = deque(maxlen=round(KEPT_S / FRAME_S))
        self._messages: deque[tuple[float, ServerMessage]] = deque(maxlen=MOST_MESSAGES)
        self._words: deque[AgentText] = deque(maxlen=MOST_WORDS)
        self._said = self._sent = 0
        """How many pieces of words there were, and how many have gone out."""

    @property
    def away(self) -> bool:
        """Whether the call waits for its client."""
        return self._away_since is not None

    def give_back(self, token: str) -> None:
        """A token was claimed, and the connection that it was for came to nothing: it is good again."""
        if self._resume_s > 0:
            self._tokens.restore(token, self)

    def keep_no_more(self) -> None:
        """From now on the call ends when its connection breaks, and nobody comes back to it."""
        self._resume_s = 0.0
        self._tokens.forget(self)
        self._changed.set()

    def release(self) -> None:
        """The session is over, and its last connection is not needed any more."""
        self.keep_no_more()
        self._over.set()
        if self._newest is not None:
            self._newest.over.set()

    # What a request does, with its connection.

    async def carry(self, transport: WebSocketTransport, pickup: Pickup | None = None) -> None:
        """Carry the call over this connection, until that ends, another takes its place, or the session is over.

        `pickup` is what a client said that comes back; None is the call's first connection.
        """
        before, connection = self._newest, _Connection(transport, pickup)
        if pickup is not None and self._resume_s <= 0:  # it ended while the connection was accepted
            await self._hang_up(connection, CallEnded("left", CloseCode.GOING_AWAY))
            return
        if before is not None:
            self._lose(before, CloseCode.REPLACED)
        self._newest = connection
        reading = asyncio.create_task(self._read(connection))
        try:
            if pickup is None or self._ready is None:
                self._sending = connection
            else:
                async with asyncio.timeout(GREETING_S):
                    await self._greet(connection, self._ready, pickup)
            await connection.over.wait()
        except (CallEnded, TimeoutError):
            self._lose(connection, ABNORMAL_CLOSURE)
        finally:
            reading.cancel()
            self._lose(connection, ABNORMAL_CLOSURE)
        if self._newest is not connection:
            await self._hang_up(connection, CallEnded("left", CloseCode.REPLACED))
        elif not self.away:
            await self._over.wait()

    async def _read(self, connection: _Connection) -> None:
        """Take what comes over a connection."""
        try:
            while True:
                message = await connection.transport.receive()
                connection.heard = True
                self._take(message)
                while len(self._received) >= MOST_UNREAD:
                    self._room.clear()
                    await self._room.wait()
        except CallEnded as ended:
            if ended.reason == "left":
                self._lose(connection, ended.code)
            elif not connection.over.is_set():
                self._take(ended)
        except Exception as error:  # whatever it means, the session is told
            if not connection.over.is_set():
                self._take(error)

    async def _greet(self, connection: _Connection, ready: Ready, pickup: Pickup) -> None:
        """Shake hands again, and send what the client has missed. Raises CallEnded."""
        transport = connection.transport
        next_word = self._sent if pickup.words is None else min(pickup.words, self._said)
        await transport.send_event(msgspec.structs.replace(ready, resume=self._tokens.issue(self)))
        if connection.over.is_set():
            return
        self._return()
        while not connection.over.is_set():
            next_word = max(next_word, self._said - len(self._words))
            if next_word < self._said:
                next_word += 1
                await transport.send_text(self._words[next_word - 1 - self._said])
                self._sent = max(self._sent, next_word)
            elif self._messages:
                await transport.send_event(_still_true(*self._messages[0]))
                self._messages.popleft()
            elif self._frames:
                await transport.send_audio(transport.encode(self._frames.popleft()))
            else:
                self._sending = connection
                return

    def _return(self) -> None:
        """The client is back."""
        away_s = time.monotonic() - (self._away_since or time.monotonic())
        self._away_since = None
        self.on_event(SessionResumed(away_s))

    def _lose(self, connection: _Connection, code: int) -> None:
        """A connection has ended, or is not to be used any more."""
        if connection.over.is_set():
            return
        connection.over.set()
        self._sending = None
        if code in GOODBYES or self._ready is None or self._resume_s <= 0:
            self._take(CallEnded("left", code))
            return
        if connection.pickup is not None and not connection.heard:
            self.give_back(connection.pickup.token)
        now = time.monotonic()
        self._drop_code = code
        if self._away_since is None:
            self._silence_due = now + FRAME_S
            self.on_event(SessionDropped(code))
        self._away_since = now
        self._changed.set()

    async def _hang_up(self, connection: _Connection, ended: CallEnded) -> None:
        """Close a connection that the call does not need."""
        with contextlib.suppress(TimeoutError):  # it is not read; the server cuts it
            async with asyncio.timeout(CLOSE_S):
                await connection.transport.close(ended)

    def _take(self, received: CallerSound | ClientMessage | Exception) -> None:
        self._received.append(received)
        self._changed.set()

    # What the session does.

    async def receive(self) -> CallerSound | ClientMessage:
        """See Transport. While the client is away, silence comes as its sound would."""
        while True:
            if self._received:
                received = self._received.popleft()
                self._room.set()
                if isinstance(received, Exception):
                    raise received
                return received
            timeout = None
            if self._away_since is not None:
                now = time.monotonic()
                if now >= self._away_since + self._resume_s:
                    raise CallEnded("left", self._drop_code)
                if now >= self._silence_due:
                    self._silence_due += FRAME_S
                    return CallerSound(SILENCE)
                timeout = min(self._silence_due, self._away_since + self._resume_s) - now
            self._changed.clear()
            if timeout is None:
                await self._changed.wait()
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await self._changed.wait()

    def encode(self, frame: Frame) -> _Sound:
        """See Transport."""
        connection = self._sending
        return _Sound(frame, connection, connection.transport.encode(frame) if connection else None)

    async def send_audio(self, sound: _Sound) -> None:
        """See Transport."""
        connection = self._sending
        if connection is not None:
            fits = connection is sound.connection and sound.encoded is not None
            encoded = sound.encoded if fits else connection.transport.encode(sound.frame)
            if await self._send(connection, connection.transport.send_audio, encoded):
                return
        self._frames.append(sound.frame)

    async def send_text(self, text: AgentText) -> None:
        """See Transport."""
        self._words.append(text)
        self._said += 1
        connection = self._sending
        if connection is not None and await self._send(connection, connection.transport.send_text, text):
            self._sent = self._said

    async def send_event(self, message: ServerMessage) -> None:
        """See Transport. Ready gets the token by which the call can be picked up again."""
        if isinstance(message, Ready):
            self._ready = message
            message = msgspec.structs.replace(message, resume=self._tokens.issue(self))
        connection = self._sending
        if connection is not None and await self._send(connection, connection.transport.send_event, message):
            return
        if isinstance(message, Warned | CallerText | PluginMessage):
            self._messages.append((time.monotonic(), message))

    async def keep_alive(self) -> None:
        """See Transport."""
        if (connection := self._sending) is not None:
            await self._send(connection, connection.transport.keep_alive)

    async def close(self, ended: CallEnded) -> None:
        """See Transport."""
        self.keep_no_more()
        connection = self._newest
        if connection is not None and not connection.over.is_set():
            await connection.transport.close(ended)

    async def _send(self, connection: _Connection, send: Callable[..., Awaitable[None]], *arguments: Any) -> bool:
        """Send something. False where the connection takes nothing more: whether its client has hung up is for
        `_read` to find out, soon."""
        try:
            await send(*arguments)
        except CallEnded as ended:
            if self._sending is connection:
                self._sending = None
                asyncio.get_running_loop().call_later(LAST_WORD_S, self._lose, connection, ended.code)
            return False
        return True


def _still_true(told: float, message: ServerMessage) -> ServerMessage:
    """A message as it is now, that was to be sent at `told`."""
    if isinstance(message, Warned):
        left = max(message.seconds - (time.monotonic() - told), 0.0)
        return Warned(message.limit, round(left, 1))
    return message
