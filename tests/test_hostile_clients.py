"""Whatever a client sends, and whenever it leaves: a documented end, the slot back, nobody else disturbed."""

import asyncio
import contextlib
import socket as sockets
import threading
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from core.events import (
    SessionDropped,
    SessionEnded,
    SessionStarted,
)
from core.http.protocols import MOST_FRAGMENTS
from core.http.uvicorn_server import HEARTBEAT_S
from core.session.protocol import CloseCode, Kind
from core.testing import EchoEngine
from tests.caller import FRAME, PLAIN, audio, dial, is_fine
from tests.conftest import Running, Serve, speech
from tests.test_audio import HEAD, alike, coded, opening, page


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        ("hello", CloseCode.BAD_MESSAGE, "binary"),
        (b"", CloseCode.BAD_MESSAGE, "empty"),
        (audio(b"garbage that is no Ogg"), CloseCode.BAD_MESSAGE, "Ogg"),
        (audio(coded(speech(0.2))[0][:200] + b"OggS" * 50), CloseCode.BAD_MESSAGE, "Ogg"),
        (bytes([Kind.METADATA]) + b"{not json", CloseCode.BAD_MESSAGE, "JSON"),
        (bytes([Kind.METADATA]) + b'{"type": "\xff"}', CloseCode.BAD_MESSAGE, "JSON"),
    ],
)
async def test_bad_messages_end_this_call_and_no_other(
    serve: Serve, message: str | bytes, code: CloseCode, words: str
) -> None:
    running = await serve(**PLAIN)
    samples = speech(1.2)
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as other:
        await other.shake_hands()
        half = await other.talk(samples[: 7 * FRAME])
        async with dial(running.url()) as caller:
            await caller.shake_hands()
            await caller.socket.send(message)
            assert await caller.end() == code
            assert words in caller.error
        rest = await other.talk(samples[7 * FRAME :])
        [end] = await running.record.ended()
        assert (end.reason, end.code) == ("bad_message", code)
        assert len(running.engine.calls) == 1
    np.testing.assert_allclose(np.concatenate([half, rest]), samples, atol=1e-4)


async def test_a_message_of_10_mb_closes_the_call(serve: Serve) -> None:
    running = await serve()
    async with dial(running.url()) as caller:
        await caller.shake_hands()
        with contextlib.suppress(ConnectionClosed):
            await caller.socket.send(audio(bytes(10 * 2**20)))
        await caller.end()
    [end] = await running.record.ended()
    assert (end.reason, end.code) == ("bad_message", CloseCode.TOO_BIG)
    await is_fine(running)


async def test_unknown_kinds_and_the_servers_own_are_ignored(serve: Serve) -> None:
    running = await serve()
    async with dial(running.url()) as caller:
        await caller.shake_hands()
        for kind in (0, 2, 3, 5, 6, 7, 99, 255):
            await caller.socket.send(bytes([kind]) + b"\xff\x00")
        await caller.socket.send(b'\x04{"type": "something", "else": 1}')
        await caller.socket.send(bytes([Kind.AUDIO]))
        assert len(await caller.talk(speech(0.16))) == 2 * FRAME


async def test_an_old_streams_pages_are_dropped(serve: Serve) -> None:
    running = await serve(**PLAIN)
    samples = speech(0.8, seed=3)
    async with dial(running.url()) as caller:
        await caller.shake_hands()
        for piece in coded(speech(0.8))[4:]:
            await caller.socket.send(audio(piece))
        assert alike(samples, await caller.talk(samples))
    [end] = await running.record.ended()
    assert end.frames_in == 10


async def test_a_truncated_stream_does_not_hold_anything(serve: Serve) -> None:
    running = await serve()
    async with dial(running.url()) as caller:
        await caller.shake_hands()
        pieces = coded(speech(0.4))
        for piece in pieces[:-1]:
            await caller.socket.send(audio(piece))
        await caller.socket.send(audio(pieces[-1][:-20]))
        while caller.kinds.count(Kind.AUDIO) < 4:
            await caller.next()
    await running.record.ended()
    assert running.engine.calls == []


async def test_a_flood_of_audio_that_goes_on_and_on_is_ended(serve: Serve) -> None:
    running = await serve(session={"max_ahead_s": 0.5})
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        ending = asyncio.create_task(caller.end())
        with contextlib.suppress(ConnectionClosed):
            while not ending.done():
                await caller.socket.send(audio(bytes(48_000)))
                await asyncio.sleep(0.02)
        assert await ending == CloseCode.TOO_FAST
        assert "real time" in caller.error
    await is_fine(running)


def empty_pages(size: int) -> bytes:
    """Ogg that decodes to nothing."""
    one = page([], flags=0)
    return one * (size // len(one))


@pytest.mark.parametrize("waiting", [False, True])
@pytest.mark.parametrize(
    ("flood", "words"),
    [
        (opening() + empty_pages(60_000), "no sound"),
        (page([HEAD], flags=2) * 1000, "no sound"),
        (b"x" * 0, "messages a second"),
    ],
)
async def test_what_is_no_sound_is_ended_soon(serve: Serve, waiting: bool, flood: bytes, words: str) -> None:
    engine = EchoEngine()
    if waiting:
        engine.prompts.clear()
    running = await serve(engine)
    async with dial(running.url()) as caller:
        if not waiting:
            await caller.shake_hands()
        with contextlib.suppress(ConnectionClosed):
            for _ in range(3000):
                await caller.socket.send(audio(flood))
        assert await caller.end() == CloseCode.TOO_FAST
        assert words in caller.error
    engine.prompts.set()
    await is_fine(running)


@pytest.mark.parametrize("route", ["/ws/chat", "/api/chat"])
@pytest.mark.parametrize(
    ("message", "name"), [(coded(speech(0.2))[0], "Ogg"), (b"\x1aE\xdf\xa3\x01", "WebM"), (b"RIFF\0\0\0\0WAVE", "WAV")]
)
async def test_audio_without_its_kind_is_told_so(serve: Serve, route: str, message: bytes, name: str) -> None:
    running = await serve()
    async with dial(running.url(route)) as caller:
        await caller.shake_hands()
        await caller.socket.send(message)
        assert await caller.end() == CloseCode.BAD_MESSAGE
    assert "first byte" in caller.error
    assert name in caller.error


async def test_a_client_that_vanishes_gives_its_slot_back_in_every_phase(serve: Serve) -> None:
    engine = EchoEngine(slots=1)
    running = await serve(engine, session={"resume_s": 0})

    def cut(socket: Any) -> None:
        socket.transport.abort()  # no goodbye: the network is gone

    async with dial(running.url()) as caller:  # in mid-call
        await caller.shake_hands()
        await caller.talk(speech(0.4))
        cut(caller.socket)
        [end] = await running.record.ended(1)
        assert (end.reason, end.frames_out) == ("left", 5)

    engine.prompts.clear()
    async with dial(running.url()) as caller:  # while the prompt is prepared
        await running.record.until(lambda: len(running.record.of(SessionStarted)) == 2)
        cut(caller.socket)
        await running.record.ended(2)
    assert engine.calls == []
    engine.prompts.set()

    async with dial(running.url()) as holder:
        await holder.shake_hands()
        async with dial(running.url()) as caller:  # in the queue
            assert (await caller.told("queued"))["place"] == 1
            cut(caller.socket)
            await running.record.ended(3)
        assert running.service.admission.waiting == 0
        engine.steps.clear()
        await holder.say(speech(0.4))  # with frames that the engine has and has not answered
        cut(holder.socket)
        await running.record.ended(4)
    engine.steps.set()

    async with connect(running.url(), compression=None, proxy=None) as socket:  # right after the upgrade
        cut(socket)
    await running.record.ended(5)
    assert engine.calls == []
    await is_fine(running)
    ids = [info.id for info, event in running.record.events if isinstance(event, SessionEnded)]
    assert len(ids) == len(set(ids))


async def test_calls_dropped_in_every_phase_leave_nothing_behind(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.plugin.worker_threads.IDLE_S", 0.2)
    engine = EchoEngine(slots=3)
    running = await serve(engine, session={"resume_s": 0.2})  # nobody comes back in time
    await is_fine(running)
    tasks, threads = asyncio.all_tasks(), threading.active_count()

    async def drop(index: int) -> None:
        async with connect(running.url(f"/ws/chat?audio={('opus', 'pcm')[index % 2]}"), proxy=None) as socket:
            if index % 4 > 0:
                await socket.recv()
            if index % 4 > 1:
                await socket.send(audio(bytes(3840)))
            if index % 4 > 2:
                await socket.send(audio(bytes(3840)))
                socket.transport.abort()

    for start in range(0, 80, 8):
        await asyncio.gather(*(drop(start + index) for index in range(8)))
    await running.record.ended(81)
    assert engine.calls == []
    assert running.service.admission.waiting == 0
    async with asyncio.timeout(30):  # the threads of plugins end when they are idle
        while threading.active_count() > threads + 8:  # noqa: ASYNC110 - a thread that ends sets no event
            await asyncio.sleep(0.1)
    _done, left = await asyncio.wait(asyncio.all_tasks() - tasks | {asyncio.create_task(asyncio.sleep(0))}, timeout=10)
    assert left == set()
    ids = [info.id for info, event in running.record.events if isinstance(event, SessionEnded)]
    assert len(ids) == len(set(ids))


async def closed(reader: asyncio.StreamReader) -> bool:
    """Whether the server ends this connection."""
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionResetError):
            while await reader.read(4096):
                pass
    return True


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he",
    ],
)
async def test_a_request_must_come_whole_and_in_time(serve: Serve, start: bytes) -> None:
    running = await serve(server={"request_s": 0.3})
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(start)

    async def drip() -> None:
        with contextlib.suppress(ConnectionError):
            while start and not start.startswith(b"POST"):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    assert await closed(reader)
    dripping.cancel()
    writer.close()
    await is_fine(running)


async def upgraded(running: Running, path: str = "/ws/chat") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket after the upgrade, whose frames are nobody's concern."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_a_connection_whose_other_end_is_gone_is_found(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    assert HEARTBEAT_S <= 5
    monkeypatch.setattr("core.http.uvicorn_server.HEARTBEAT_S", 0.1)
    running = await serve(session={"resume_s": 0.2})
    reader, writer = await upgraded(running)  # it takes what comes, as a network does, but nobody answers the pings
    assert await closed(reader)
    writer.close()
    [end] = await running.record.ended()
    assert end.reason == "left"
    assert running.record.of(SessionDropped) == [SessionDropped(1006)]
    assert running.engine.calls == []


async def test_an_endless_message_of_empty_pieces_is_ended(serve: Serve) -> None:
    running = await serve()
    reader, writer = await upgraded(running)
    with contextlib.suppress(ConnectionError):
        writer.write(b"\x02\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * (MOST_FRAGMENTS + 10))
        await writer.drain()
    assert await closed(reader)
    writer.close()
    [end] = await running.record.ended()
    assert (end.reason, end.code) == ("bad_message", CloseCode.TOO_BIG)
    await is_fine(running)


async def test_pings_whose_answers_nobody_reads_are_not_hoarded(serve: Serve) -> None:
    running = await serve(sndbuf=4096, session={"send_s": 0.5, "max_messages_per_s": 100_000})
    _reader, writer = await upgraded(running)
    assert isinstance(writer.transport, asyncio.Transport)
    writer.transport.pause_reading()
    ping = b"\x89\xfd\0\0\0\0" + bytes(125)
    most = 0
    with contextlib.suppress(ConnectionError):
        for _ in range(400):
            writer.write(ping * 100)
            await writer.drain()
            sizes = [
                connection.transport.get_write_buffer_size() for connection in running.server.server_state.connections
            ]
            most = max([most, *sizes])
    assert 0 < most < 2**18
    [end] = await running.record.ended()
    assert end.reason in ("slow", "left")
    writer.transport.abort()


@pytest.mark.parametrize("line", [f"GET /ws/chat?prompt={'x' * 9000} HTTP/1.1", "GET /ws/chat HTTP/1.1\r\nX-Odd: \x02"])
async def test_a_handshake_that_cannot_be_read_is_refused(serve: Serve, line: str) -> None:
    running = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(f"{line}\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".encode())
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"8 KiB" in answer
    await is_fine(running)


async def test_small_messages_do_not_wait_for_the_clients_acknowledgement(serve: Serve) -> None:
    running = await serve()
    _reader, writer = await upgraded(running)
    [connection] = running.server.server_state.connections
    accepted = connection.transport.get_extra_info("socket")
    assert accepted.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY)
    writer.transport.abort()


async def test_half_a_request_holds_nothing(serve: Serve) -> None:
    running = await serve()
    _reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(b"GET /ws/chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n")
    await writer.drain()
    writer.transport.abort()
    await is_fine(running)


async def test_a_client_that_never_reads_is_closed(serve: Serve) -> None:
    running = await serve(EchoEngine(max_waiting=500), sndbuf=4096, session={"send_s": 0.2})
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", running.port))
    async with connect(
        running.url("/ws/chat?audio=pcm"), sock=raw, compression=None, proxy=None, max_queue=1, close_timeout=0.1
    ) as socket:
        for _ in range(150):
            await socket.send(audio(bytes(3840)))
        [end] = await running.record.ended()
        assert (end.reason, end.code) == ("slow", CloseCode.SLOW_READER)
    assert running.engine.calls == []
    await is_fine(running)
