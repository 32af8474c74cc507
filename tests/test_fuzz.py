"""Thousands of made-up inputs over real sockets: nothing but documented answers, nothing lost, nothing let in."""

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, quote_from_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from core.protocol import CloseCode, Kind
from tests.caller import get, is_fine
from tests.conftest import Running, Serve, speech
from tests.echo_engine import EchoEngine
from tests.test_audio import coded

Case = TypeVar("Case")
STREAM = coded(speech(0.4))
PASSWORD = {"plugins": {"options": {"password": {"password": "open sesame"}}}}
ANSWERS = {200, 204, 304, 400, 401, 403, 404, 405, 413, 429}
"""Of HTTP, to whatever a stranger sends. 5xx would be a fault of ours."""
ENDINGS = {CloseCode.BAD_MESSAGE, CloseCode.TOO_BIG, CloseCode.TOO_FAST}
"""Of a call, for whatever a caller sends."""


async def examine(cases: st.SearchStrategy[Case], count: int, check: Callable[[Case], Awaitable[None]]) -> None:
    """Try many cases, one after another, against a server that runs in this loop."""
    loop = asyncio.get_running_loop()

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
            assert len(headers) == len(lines), f"a header twice: {lines}"
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


# Ogg pages.


async def converse(running: Running, url: str, sent: list[bytes | str]) -> None:
    """Send these messages right away: the call goes on, or ends with an error that says why."""
    async with connect(running.url(url), compression=None, proxy=None, ping_interval=None) as socket:
        error = b""
        try:
            for message in sent:
                await socket.send(message)
            await socket.send(bytes([Kind.METADATA]) + b'{"type": "echo", "id": 4711}')
            while True:
                async with asyncio.timeout(10):
                    answer = await socket.recv()
                assert isinstance(answer, bytes)
                assert answer[0] in list(Kind)
                if answer[0] == Kind.ERROR:
                    error = answer[1:]
                if answer[0] == Kind.METADATA and json.loads(answer[1:]) == {"type": "echo", "id": 4711}:
                    return
        except ConnectionClosed:
            assert socket.close_code in ENDINGS
            assert len(error.decode()) > 10


async def nothing_is_left(running: Running, count: int) -> None:
    """As many sessions have ended as began, each for a reason that is no fault, and a new one is served."""
    ends = await running.record.ended(count)
    assert {end.reason for end in ends} <= {"left", "bad_message", "too_fast"}
    assert running.engine.calls == []
    await is_fine(running)


@st.composite
def damaged(draw: st.DrawFn) -> list[bytes]:
    """Messages of a good stream with pages lost, doubled, exchanged, flipped, cut, or with other headers."""
    pages = list(STREAM)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(pages) - 1))
        page = bytearray(pages[at])
        match draw(st.sampled_from(["lose", "double", "exchange", "flip", "cut", "insert", "header"])):
            case "lose" if len(pages) > 1:
                del pages[at]
                continue
            case "double":
                pages.insert(at, bytes(page))
                continue
            case "exchange":
                other = draw(st.integers(0, len(pages) - 1))
                pages[at], pages[other] = pages[other], pages[at]
                continue
            case "flip" if page:
                page[draw(st.integers(0, len(page) - 1))] ^= draw(st.integers(1, 255))
            case "cut":
                del page[draw(st.integers(0, len(page))) :]
            case "insert":
                place = draw(st.integers(0, len(page)))
                page[place:place] = draw(st.binary(max_size=30))
            case "header" if len(page) >= 27:
                struct.pack_into("<BqII", page, 5, draw(st.integers(0, 7)), draw(st.integers(-1, 2**40)), 1, 2)
                page[26] = draw(st.integers(0, 255))
        pages[at] = bytes(page)
    return [bytes([Kind.AUDIO]) + page for page in pages]


async def test_any_damage_to_an_opus_stream(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=20))
    count = 0

    async def check(case: list[bytes]) -> None:
        nonlocal count
        count += 1
        await converse(running, "/ws/chat", list(case))

    await examine(damaged(), 250, check)
    await nothing_is_left(running, count)


# Paths and headers.

tokens = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=';,"\\'), max_size=60)

STEPS = ("..", ".", "", "%2e%2e", "%2E.", "..%2f", "..%5c", "%00", "secret.txt", "page", "index.html", "..;", "c:", "~")
paths = st.lists(st.sampled_from(STEPS) | tokens.map(lambda text: quote(text, safe="%")), max_size=6).map("/".join)


async def test_no_path_leads_out(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("the secret")
    (tmp_path / "voices").mkdir()
    (tmp_path / "voices" / "mine.txt").write_text("the secret")
    running = await serve(EchoEngine(slots=1000), voices={"allow": ["*"]})

    async def check(path: str) -> None:
        for method in ("GET", "POST"):
            request = f"{method} /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("latin-1")
            status, headers, body = await ask(running, request)
            assert status in ANSWERS
            assert b"secret" not in body
            assert "location" not in headers
        for name in ("persona", "voice", "voice_prompt"):
            status, _, body = await ask(running, upgrade(f"/ws/chat?{name}=x{quote(path, safe='%')}"))
            assert (status, b"Traceback" in body) == (404, False)

    await examine(paths, 250, check)
    await is_fine(running)


async def test_no_header_is_added_to_an_answer(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=1000), **PASSWORD)
    known = set((await get(running, "/personas"))[1])
    known = {name.lower() for name in known} | {"upgrade", "connection", "sec-websocket-accept", "etag"}
    known |= {"allow", "retry-after"}
    evil = st.text(st.characters(max_codepoint=255, exclude_characters="\0"), max_size=30).map(
        lambda text: text + "\r\nX-Evil: yes\r\n"
    )
    fields = st.sampled_from(["Origin", "Cookie", "User-Agent", "If-None-Match", "X-Forwarded-For", "X-Evil", "Host"])

    async def check(case: tuple[str, str]) -> None:
        name, value = case
        quoted = quote(value, safe="", encoding="latin-1")
        for target in (f"/{quoted}", f"/personas?{quoted}", f"/login?next={quoted}"):
            request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{name}: {quoted}\r\n\r\n".encode("latin-1")
            status, headers, _ = await ask(running, request)
            assert status in ANSWERS
            assert set(headers) <= known
            assert "x-evil" not in str(headers)
        raw = f"GET /personas HTTP/1.1\r\nHost: localhost\r\n{name}: {value}\r\n\r\n".encode("latin-1")
        status, headers, _ = await ask(running, raw)
        assert status in ANSWERS
        assert "x-evil" not in headers

    await examine(st.tuples(fields, evil), 250, check)


forms = st.binary(max_size=200) | st.binary(max_size=60).map(lambda raw: b"password=" + quote_from_bytes(raw).encode())


async def test_any_form_is_no_login(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.attempts.FREE", 10**9)
    running = await serve(**PASSWORD)

    async def check(form: bytes) -> None:
        head = f"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(form)}\r\n\r\n".encode()
        status, headers, _ = await ask(running, head + form)
        assert status in {400, 401, 413}
        assert "set-cookie" not in headers

    await examine(forms, 300, check)


async def test_any_bytes_are_answered_or_cut_off(serve: Serve) -> None:
    running = await serve()
    lines = (b"GET / HTTP/1.1", b"Host: x", b"Content-Length: -1", b"Transfer-Encoding: chunked", b"0")
    pieces = st.sampled_from((*lines, b"\r\n", b"\r\n\r\n"))
    requests: st.SearchStrategy[bytes] = st.lists(pieces | st.binary(max_size=20), min_size=1, max_size=8).map(b"".join)

    async def check(request: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        try:
            writer.write(request)
            writer.write_eof()
            async with asyncio.timeout(10):
                answer: Any = await reader.read()
        except ConnectionError:
            answer = b""
        finally:
            writer.transport.abort()
        assert answer == b"" or int(answer.split(b" ")[1]) in ANSWERS

    await examine(requests, 400, check)
    await is_fine(running)
