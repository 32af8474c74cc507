"""What a session sends over its transport: the agent's frames, its words, and messages, one after another."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from core.engine.call import Frame
from core.plugin.acting import AgentText
from core.plugin.doors import CallEnded, Transport
from core.plugin.foreign_code import foreign_code
from core.plugin.server_messages import ServerMessage
from core.plugin.transforms import Chain, Times
from core.session.protocol import CloseCode
from core.settings.log import get_logger

MOST_POSTED = 200
"""Messages of plugins that may wait for a client that does not read."""
_log = get_logger("session")


@dataclass(frozen=True)
class EncodedFrame:
    """One frame of the agent, ready to be sent."""

    frame: Frame
    """As it will be heard."""
    sound: Any
    """What the transport made of it."""
    transforms: Times
    encode_ms: float


class Outgoing:
    """Several tasks may send: the transport gets one thing at a time."""

    def __init__(self, transport: Transport, chain: Chain, send_s: float) -> None:
        """`chain` are the output transforms; `send_s` is how long a send may wait for the client to read."""
        self._transport = transport
        self.chain = chain
        self._send_s = send_s
        self._sending = asyncio.Lock()
        self._sending_since: float | None = None
        self._posted: deque[ServerMessage] = deque()
        self._has_posted = asyncio.Event()

    def encode(self, frame: Frame, muted: bool) -> EncodedFrame:
        """Transform and encode a frame, or silence in its place. Blocks, so it belongs in a thread."""
        transformed = self.chain.process(frame)
        if muted:
            transformed = np.zeros_like(frame)
        start = perf_counter()
        sound = self._transport.encode(transformed)
        return EncodedFrame(transformed, sound, self.chain.times, (perf_counter() - start) * 1000)

    async def send_audio(self, encoded: EncodedFrame) -> None:
        """Send a frame. This and the other sends raise what the transport does, such as CallEnded."""
        await self._send(self._transport.send_audio, encoded.sound)

    async def send_text(self, text: AgentText) -> None:
        """Send a piece of the agent's words."""
        await self._send(self._transport.send_text, text)

    async def send_event(self, message: ServerMessage) -> None:
        """Send a message."""
        await self._send(self._transport.send_event, message)

    async def keep_alive(self) -> None:
        """Have the transport send something, if its client needs that."""
        await self._send(self._transport.keep_alive)

    def post(self, message: ServerMessage) -> bool:
        """Have a message sent as soon as possible. False where too many wait already."""
        if len(self._posted) >= MOST_POSTED:
            return False
        self._posted.append(message)
        self._has_posted.set()
        return True

    async def send_posted(self) -> None:
        """Send what is posted, for as long as the session lasts."""
        while True:
            await self._has_posted.wait()
            self._has_posted.clear()
            while self._posted:
                await self.send_event(self._posted.popleft())

    async def flush(self) -> None:
        """Return when all that is posted has been sent."""
        while self._posted:
            await self.send_event(self._posted.popleft())
        async with self._sending:  # what `send_posted` has taken is on its way until then
            pass

    async def watch(self) -> None:
        """Raise CallEnded when a send waits for too long: the client does not read. One watch for all sends, since a
        timeout around each costs more than the send itself."""
        while True:
            await asyncio.sleep(self._send_s / 2)
            if self._sending_since is not None and time.monotonic() - self._sending_since > self._send_s:
                raise CallEnded("slow", CloseCode.SLOW_READER, "Your connection is too slow for the audio.")

    async def close(self, ended: CallEnded) -> None:
        """Close the transport. Never raises: the client may be gone, or not read."""
        try:
            async with asyncio.timeout(self._send_s):
                with foreign_code():
                    await self._transport.close(ended)
        except TimeoutError:
            pass
        except Exception:  # of a plugin's transport: the session is over all the same
            _log.exception("a transport failed to close", route=self._transport.route)

    async def _send(self, send: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        async with self._sending:
            self._sending_since = time.monotonic()
            try:
                await send(*arguments)
            finally:
                self._sending_since = None
