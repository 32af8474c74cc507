"""Made-up messages by the thousand over real sockets: a call goes on, or ends with an error that says why."""

import asyncio
import json
import struct

import pytest
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from core.session.protocol import CloseCode, Kind
from core.testing import EchoEngine
from tests.caller import is_fine
from tests.conftest import Running, Serve, speech
from tests.fuzzing import examine
from tests.test_audio import coded

STREAM = coded(speech(0.4))
ENDINGS = {CloseCode.BAD_MESSAGE, CloseCode.TOO_BIG, CloseCode.TOO_FAST}
"""Of a call, for whatever a caller sends."""

payloads = st.one_of(
    st.binary(max_size=300),
    st.sampled_from(STREAM),
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3).map(
        lambda value: json.dumps(value).encode()
    ),
    st.integers(-(2**70), 2**70).map(lambda number: json.dumps({"type": "echo", "id": number}).encode()),
)
messages = st.one_of(
    st.builds(lambda kind, payload: bytes([kind]) + payload, st.integers(0, 8) | st.integers(0, 255), payloads),
    st.binary(max_size=40),
    st.text(max_size=40),
)


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


@pytest.mark.parametrize("audio", ["opus", "pcm"])
async def test_any_messages(serve: Serve, audio: str) -> None:
    running = await serve(EchoEngine(slots=20))
    count = 0

    async def check(case: list[bytes | str]) -> None:
        nonlocal count
        count += 1
        await converse(running, f"/ws/chat?audio={audio}", case)

    await examine(st.lists(messages, max_size=6), 120, check)
    await nothing_is_left(running, count)


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

    await examine(damaged(), 120, check)
    await nothing_is_left(running, count)
