"""Made-up inputs over real sockets: what the fuzz tests share."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Running

Case = TypeVar("Case")
Checking = Coroutine[Any, Any, None]


async def examine(cases: st.SearchStrategy[Case], count: int, check: Callable[[Case], Checking]) -> None:
    """Try so many cases, one after another, against a server that runs in this loop.

    `pytest --hypothesis-profile=thorough` tries ten times as many, and a plain `pytest` a quarter.
    """
    loop = asyncio.get_running_loop()
    assert settings.default is not None  # selection.py loads a profile
    count = count * settings.default.max_examples // 100

    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(cases)
    def one(case: Case) -> None:
        asyncio.run_coroutine_threadsafe(check(case), loop).result(30)

    await asyncio.to_thread(one)


async def ask(running: Running, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send these bytes as a request; status, headers and body of the one answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            challenges = sum(line.lower().startswith("www-authenticate: ") for line in lines)  # one header each
            assert len(headers) == len(lines) - max(challenges - 1, 0), f"a header twice: {lines}"
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        return int(status), headers, body
    finally:
        writer.transport.abort()


def upgrade(target: str, *headers: bytes) -> bytes:
    """A request for a WebSocket."""
    return b"\r\n".join(
        [
            f"GET {target} HTTP/1.1".encode("latin-1"),
            b"Host: localhost",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            *headers,
            b"\r\n",
        ]
    )
