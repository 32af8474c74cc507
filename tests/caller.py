"""A client for tests, close to the bytes of the wire."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from core.audio import FRAME_SAMPLES, Samples, open_reader, open_writer
from core.protocol import Kind


class Caller:
    """One connection and what came over it."""

    def __init__(self, socket: ClientConnection, audio: str = "opus") -> None:
        self.socket = socket
        self.metadata: list[dict[str, Any]] = []
        self.words: list[str] = []
        self.kinds: list[int] = []
        self.error = ""
        self.heard = np.empty(0, np.float32)
        self._reader = open_reader(audio)  # type: ignore[arg-type]
        self._writer = open_writer(audio)  # type: ignore[arg-type]

    async def next(self) -> int:
        """Take one message; its kind."""
        async with asyncio.timeout(10):
            message = await self.socket.recv()
        assert isinstance(message, bytes)
        kind, payload = message[0], message[1:]
        self.kinds.append(kind)
        match kind:
            case Kind.METADATA:
                self.metadata.append(json.loads(payload))
            case Kind.TEXT:
                self.words.append(payload.decode())
            case Kind.ERROR:
                self.error = payload.decode()
            case Kind.AUDIO:
                self.heard = np.concatenate([self.heard, self._reader.read(payload)])
        return kind

    async def shake_hands(self) -> "Caller":
        """Return when the server has said that the caller may speak."""
        while await self.next() != Kind.HANDSHAKE:
            pass
        return self

    async def told(self, type_: str) -> dict[str, Any]:
        """The next METADATA of a type."""
        while True:
            if await self.next() == Kind.METADATA and self.metadata[-1]["type"] == type_:
                return self.metadata[-1]

    async def say(self, samples: Samples) -> None:
        """Send samples, a frame a message."""
        for start in range(0, len(samples), FRAME_SAMPLES):
            data = self._writer.write(samples[start : start + FRAME_SAMPLES])
            await self.socket.send(bytes([Kind.AUDIO]) + data)

    async def talk(self, samples: Samples) -> Samples:
        """Say samples frame by frame, waiting for each answer; the answer."""
        before = len(self.heard)
        for start in range(0, len(samples), FRAME_SAMPLES):
            await self.say(samples[start : start + FRAME_SAMPLES])
            while len(self.heard) < before + start + FRAME_SAMPLES:
                await self.next()
        return self.heard[before:]

    async def end(self) -> int:
        """Take all that comes until the server closes; the code."""
        try:
            while True:
                await self.next()
        except ConnectionClosed:
            assert self.socket.close_code is not None
            return self.socket.close_code


@asynccontextmanager
async def dial(url: str, audio: str = "opus", **options: Any) -> AsyncIterator[Caller]:
    """A connection, not yet shaken hands on."""
    async with connect(url, compression=None, proxy=None, max_size=2**24, **options) as socket:
        yield Caller(socket, audio)
