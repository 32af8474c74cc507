"""A client for tests, close to the bytes of the wire."""

import asyncio
import json
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from core.engine.call import FRAME_SAMPLES, Frame
from core.media.audio_codecs import Samples, open_reader, open_writer
from core.session.protocol import Kind
from tests.conftest import Running, speech

FRAME = 1920
NVIDIA = {
    "text_temperature": "0.7",
    "text_topk": "25",
    "audio_temperature": "0.8",
    "audio_topk": "250",
    "pad_mult": "0",
    "text_seed": "77",
    "audio_seed": "88",
    "repetition_penalty_context": "64",
    "repetition_penalty": "1",
    "text_prompt": "You enjoy having a good conversation.",
    "voice_prompt": "NATM2.pt",
}
"""What NVIDIA's web client sends."""
PLAIN: dict[str, Any] = {"plugins": {"disabled": ["loudness"]}}
"""No transform, so that PCM comes back as it went."""


class Talker(ABC):
    """What a caller does whatever it speaks: talk frame by frame, and take what comes."""

    socket: ClientConnection
    heard: Samples

    @abstractmethod
    async def say(self, samples: Samples) -> None:
        """Send samples."""

    @abstractmethod
    async def next(self) -> int | str:
        """Take one message; its kind."""

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


class Caller(Talker):
    """One connection and what came over it."""

    def __init__(self, socket: ClientConnection, audio: str = "opus") -> None:
        self.socket = socket
        self.metadata: list[dict[str, Any]] = []
        self.words: list[str] = []
        self.kinds: list[int] = []
        self.error = ""
        self.heard: Frame = np.empty(0, np.float32)
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


@asynccontextmanager
async def dial(url: str, audio: str = "opus", **options: Any) -> AsyncIterator[Caller]:
    """A connection, not yet shaken hands on."""
    async with connect(url, compression=None, proxy=None, max_size=2**24, **options) as socket:
        yield Caller(socket, audio)


async def get(running: Running, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """GET, off the loop."""

    def fetch() -> tuple[int, dict[str, str], bytes]:
        request = urllib.request.Request(running.url(path, "http"), headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    return await asyncio.to_thread(fetch)


async def refused(running: Running, path: str, **options: Any) -> tuple[int, str]:
    """Status and message of an upgrade that is not granted."""
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(running.url(path), proxy=None, **options):
            pass
    response = refusal.value.response
    assert response.headers["x-content-type-options"] == "nosniff"
    return response.status_code, json.loads(response.body or b"")["error"]


async def is_fine(running: Running) -> None:
    """A new caller is served: nothing is left of those before."""
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        assert len(await caller.talk(speech(0.16))) == 2 * FRAME


def audio(data: bytes) -> bytes:
    """An AUDIO message."""
    return bytes([Kind.AUDIO]) + data


# HTTP.
