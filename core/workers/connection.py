"""One end of a Unix socket between two processes of a service: whole messages and frames in, batched writes out."""

import asyncio
from typing import cast

import msgspec

from core.settings.log import get_logger
from core.workers import envelopes
from core.workers.envelopes import ENVELOPE, MAX_BODY_BYTES, MESSAGE
from core.workers.messages import Message

HIGH_WATER_BYTES = 1 << 20
"""Beyond so much unsent, `writable` waits: the other side does not read."""
_log = get_logger("workers")


class Connection(asyncio.Protocol):
    """Subclasses say what to do with what comes: `received`, `framed`, `lost`. Belongs to one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._incoming = bytearray()
        self._outgoing: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self.alive = False

    def received(self, message: Message) -> None:
        """Take a message."""

    def framed(self, kind: int, body: memoryview) -> None:
        """Take a frame. `body` is good during this call only. Raises ValueError when it is none."""

    def lost(self) -> None:
        """The connection has ended, once."""

    def send(self, message: Message) -> None:
        """Send a message; on an ended connection it is dropped."""
        self.send_bytes(envelopes.encode(message))

    def send_bytes(self, envelope: bytes) -> None:
        """Send an envelope. All that is sent in one turn of the event loop goes out in one write."""
        if not self.alive:
            return
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(envelope)

    @property
    def congested(self) -> bool:
        """Whether the other side has left much unread."""
        return not self._writable.is_set()

    async def writable(self) -> None:
        """Return when the other side has read most of what was sent, or is gone."""
        await self._writable.wait()

    def close(self) -> None:
        """End the connection when what was sent is out."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None and not self._transport.is_closing() and outgoing:
            self._transport.write(b"".join(outgoing))

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self.alive = True

    def data_received(self, data: bytes) -> None:
        """Hand on every whole envelope; what is left waits for more."""
        self._incoming += data
        start = 0
        try:
            with memoryview(self._incoming) as view:
                while len(view) - start >= ENVELOPE.size:
                    length, kind = ENVELOPE.unpack_from(view, start)
                    if length > MAX_BODY_BYTES:
                        raise ValueError(f"a body of {length} bytes")
                    end = start + ENVELOPE.size + length
                    if len(view) < end:
                        break
                    with view[start + ENVELOPE.size : end] as body:
                        if kind == MESSAGE:
                            self.received(envelopes.decode(body))
                        else:
                            self.framed(kind, body)
                    start = end
        except (ValueError, msgspec.DecodeError) as error:
            _log.error("a connection between processes was cut", error=str(error))
            if self._transport is not None:
                self._transport.abort()
        else:
            del self._incoming[:start]

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it ended, it has
        """See asyncio.Protocol."""
        self.alive = False
        self._writable.set()
        self.lost()
