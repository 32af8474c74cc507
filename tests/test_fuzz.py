"""Made-up requests by the thousand over real sockets: nothing but documented answers, nothing lost, nothing let in."""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_from_bytes, urlencode

import pytest
from hypothesis import strategies as st

from core.testing import EchoEngine
from tests.caller import get, is_fine
from tests.conftest import Serve
from tests.fuzzing import ask, examine, upgrade

PASSWORD = {"plugins": {"options": {"password": {"password": "open sesame"}}}}
ANSWERS = {200, 204, 304, 400, 401, 403, 404, 405, 413, 429}
"""Of HTTP, to whatever a stranger sends. 5xx would be a fault of ours."""

# What the upgrade asks for.

NAMES = (
    *("persona", "voice", "voice_prompt", "prompt", "text_prompt", "seed", "text_seed", "audio_seed", "temperature"),
    *("audio_temperature", "text_temperature", "top_k", "audio_topk", "text_topk", "text_top_k", "audio", "pad_mult"),
    *("ticket", "nonsense"),
)
values = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["nan", "inf", "-0", "1e400", "٣", "0x10", "1_0", "9" * 5000, "NATF2.pt", "teacher", "\0", "\r\n"]),
    st.integers().map(str),
    st.floats().map(str),
)
queries = st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=5).map(
    lambda pairs: urlencode(pairs, errors="surrogatepass")
) | st.binary(max_size=40).map(lambda raw: quote_from_bytes(raw, safe="=&+;%/?"))


@pytest.mark.parametrize("path", ["/ws/chat", "/api/chat"])
async def test_any_query(serve: Serve, path: str) -> None:
    running = await serve(EchoEngine(slots=1000), personas={"custom": True})

    async def check(query: str) -> None:
        status, headers, body = await ask(running, upgrade(f"{path}?{query}"))
        assert status in {101, 400, 403, 404}
        if status != 101:
            assert len(json.loads(body)["error"]) > 10
            assert headers["content-type"] == "application/json"

    await examine(queries, 150, check)
    await is_fine(running)


# Signed tokens.

tokens = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=';,"\\'), max_size=60)


async def test_no_made_up_pass_lets_anybody_in(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=1000), **PASSWORD)
    login = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 22\r\n\r\npassword=open%20sesame"
    status, headers, _ = await ask(running, login)
    assert status == 204
    right = headers["set-cookie"].split(";")[0].removeprefix("personaplex=")
    assert (await ask(running, _with_cookie(right)))[0] == 200
    edits = st.tuples(st.integers(0, len(right) - 1), st.characters(min_codepoint=33, max_codepoint=126))

    def edit(edits: list[tuple[int, str]]) -> str:
        letters = list(right)
        for at, letter in edits:
            letters[at] = letter
        return "".join(letters)

    forged = st.one_of(
        tokens,
        tokens.map(lambda text: f"caller.{text}"),
        st.lists(edits, min_size=1, max_size=3).map(edit),
        st.integers(0, len(right) - 1).map(lambda length: right[:length]),
        tokens.map(lambda text: right + text),
    ).filter(lambda text: text.strip('"') != right and ";" not in text)

    async def check(text: str) -> None:
        assert (await ask(running, _with_cookie(text)))[0] in {400, 401}
        status, _, _ = await ask(running, upgrade(f"/ws/chat?ticket={quote(text, safe='')}"))
        assert status == 401
        status, _, _ = await ask(running, upgrade("/api/chat", b"Cookie: personaplex=" + text.encode("latin-1")))
        assert status in {400, 401}

    await examine(forged, 100, check)
    assert running.engine.opened == 0
    assert (await ask(running, _with_cookie(right)))[0] == 200


def _with_cookie(text: str) -> bytes:
    return f"GET /personas HTTP/1.1\r\nHost: localhost\r\nCookie: personaplex={text}\r\n\r\n".encode("latin-1")


async def test_any_authorization_is_a_wrong_one(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.http.login_throttle.FREE", 10**9)  # so that each is looked at
    running = await serve(EchoEngine(slots=1000), **PASSWORD)
    schemes = st.sampled_from([b"Bearer ", b"Basic ", b"basic", b"Digest ", b""])
    raw = st.binary(max_size=60).map(lambda value: bytes(byte for byte in value if byte not in b"\r\n\0").strip())

    async def check(case: tuple[bytes, bytes]) -> None:
        header = b"Authorization: " + b"".join(case)
        status, _, _ = await ask(running, b"GET /personas HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\n")
        assert status in {400, 401}
        assert (await ask(running, upgrade("/ws/chat", header)))[0] in {400, 401}

    await examine(st.tuples(schemes, raw), 100, check)
    assert running.engine.opened == 0


# Paths and headers.

STEPS = ("..", ".", "", "%2e%2e", "%2E.", "..%2f", "..%5c", "%00", "secret.txt", "page", "index.html", "..;", "c:", "~")
paths = st.lists(st.sampled_from(STEPS) | tokens.map(lambda text: quote(text, safe="%")), max_size=6).map("/".join)


async def test_no_path_leads_out(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("the secret")
    (tmp_path / "voices").mkdir()
    (tmp_path / "voices" / "mine.txt").write_text("the secret")
    running = await serve(EchoEngine(slots=1000), voices={"allow": ["*"]}, server={"requests_per_s": 0})

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

    await examine(paths, 100, check)
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

    await examine(st.tuples(fields, evil), 100, check)


forms = st.binary(max_size=200) | st.binary(max_size=60).map(lambda raw: b"password=" + quote_from_bytes(raw).encode())


async def test_any_form_is_no_login(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.http.login_throttle.FREE", 10**9)
    running = await serve(**PASSWORD)

    async def check(form: bytes) -> None:
        head = f"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(form)}\r\n\r\n".encode()
        status, headers, _ = await ask(running, head + form)
        assert status in {400, 401, 413}
        assert "set-cookie" not in headers

    await examine(forms, 100, check)


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

    await examine(requests, 150, check)
    await is_fine(running)
