"""Calls that are opened and dropped in every phase, over the wire."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from core.client.load_test_audio import encode_messages, synthetic_speech
from core.session.protocol import Kind

FRAMES = 5
CLOSED_S = 30.0
"""By then the server has found out that nobody answers its pings: 10 s, and a wait in the queue."""


async def before_the_handshake(address: str) -> None:
    """The upgrade is all that came."""
    async with connect(address, compression=None, proxy=None) as socket:
        socket.transport.abort()


async def in_mid_prompt(address: str) -> None:
    """Half of the time that a prompt takes, or in the queue."""
    async with connect(address, compression=None, proxy=None) as socket:
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(0.02):
                while (await socket.recv(decode=False))[0] != Kind.HANDSHAKE:
                    pass
        socket.transport.abort()


async def in_mid_audio(address: str) -> None:
    """After some frames, perhaps answered and perhaps not."""
    messages = encode_messages(synthetic_speech(FRAMES * 0.08), FRAMES, "opus")
    async with connect(address, compression=None, proxy=None) as socket:
        with contextlib.suppress(ConnectionClosed):
            while (await socket.recv(decode=False))[0] != Kind.HANDSHAKE:
                pass
            for message in messages:
                await socket.send(message)
        socket.transport.abort()


async def half_open(address: str) -> None:
    """The network takes what comes, but nobody is there: the server finds out by its pings."""
    parts = urlsplit(address)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(
        f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(CLOSED_S):
            while await reader.read(65536):
                pass
    writer.close()


PHASES: tuple[Callable[[str], Awaitable[None]], ...] = (before_the_handshake, in_mid_prompt, in_mid_audio)


async def drop_calls(address: str, calls: int, at_once: int = 8) -> None:
    """Make that many calls and drop them: a quarter in each phase, those that are half open all at once."""
    silent = calls // (len(PHASES) + 1)
    turns = iter([PHASES[index % len(PHASES)] for index in range(calls - silent)])

    async def some() -> None:
        for phase in turns:
            await phase(address)

    await asyncio.gather(*(some() for _ in range(at_once)))
    await asyncio.gather(*(half_open(address) for _ in range(silent)))
