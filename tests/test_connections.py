"""Connections as strangers use them: too many, too greedy, half read, cut off. Calls go on, and the log stays short."""

import asyncio
import contextlib
import os
import signal
import socket as sockets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from core.http.connection_limits import ConnectionLimits
from core.http.rate_limits import BURST_S, LONGEST_DELAY_S, MOST_ADDRESSES, RequestPace
from core.session.protocol import CloseCode
from core.session.token_bucket import TokenBucket
from core.settings.sections import ServerConfig
from tests.caller import FRAME, dial, get, is_fine
from tests.conftest import Running, Serve, speech, write_config
from tests.echo_server import echo_server
from tests.test_hostile_clients import closed, upgraded
from tests.test_logins import Clock

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
PONG = b"\x8a\x80\0\0\0\0"
"""An empty frame, masked."""


async def until(true: Callable[[], bool]) -> None:
    """Return when it is true; nothing tells of it."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def until_gone(running: Running, most: int = 0) -> None:
    """Return when the server holds no more connections than these."""
    await until(lambda: len(running.server._limits) <= most)


Held = list[asyncio.StreamWriter]


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    """Connections that are open until the test is over, unless it closes them."""
    writers: Held = []
    yield writers
    for writer in writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def answered(port: int, held: Held) -> int:
    """The status of a new connection's answer to GET /health; 0 when it is reset before it can be read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    held.append(writer)
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        writer.write(HEALTH)
        async with asyncio.timeout(10):
            return int((await reader.readuntil(b"\r\n")).split()[1])
    return 0


# How many connections there may be.


@pytest.mark.parametrize("server", [{"max_connections": 5}, {"connections_per_address": 5}])
async def test_no_more_connections_than_allowed(
    serve: Serve, held: Held, server: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    running = await serve(server=server)
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        assert [await answered(running.port, held) for _ in range(4)] == [200] * 4
        for _ in range(20):
            assert await answered(running.port, held) in (503, 0)
        assert len(await caller.talk(speech(0.16))) == 2 * FRAME
        for writer in held:
            writer.close()
        await until_gone(running, 1)
        assert await answered(running.port, held) == 200
    assert caplog.text.count("connections turned away") == 1


async def test_a_trusted_proxy_may_have_as_many_as_its_clients_need(serve: Serve, held: Held) -> None:
    running = await serve(server={"connections_per_address": 2, "trusted_proxies": ["127.0.0.0/8"]})
    assert [await answered(running.port, held) for _ in range(6)] == [200] * 6


def test_addresses_are_counted_by_network_and_forgotten() -> None:
    limits = ConnectionLimits(ServerConfig(max_connections=5, connections_per_address=2, trusted_proxies=("10.0.0.1",)))
    peers = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "10.0.0.1", "10.0.0.1", "10.0.0.1"]
    assert [limits.opened(number, peer) for number, peer in enumerate(peers)] == [True, True, False, True, True, False]
    for number in range(len(peers)):
        limits.closed(number)
        limits.closed(number)
    assert len(limits) == 0
    assert not limits._of_address
    everybody = ConnectionLimits(ServerConfig(connections_per_address=1, trusted_proxies=("*",)))
    assert [everybody.opened(number, "192.0.2.1") for number in range(3)] == [True] * 3


@pytest.mark.slow
async def test_silent_sockets_take_no_descriptor_that_a_call_needs(tmp_path: Path, held: Held) -> None:
    config = write_config(tmp_path, {"server": {"connections_per_address": 0, "request_s": 60}})
    log = tmp_path / "log"
    silent = []
    with echo_server(config, "--descriptors", "320", log=log) as (_process, port):
        url = f"ws://127.0.0.1:{port}/ws/chat?audio=pcm"
        async with dial(url, "pcm") as caller:
            await caller.shake_hands()
            for _ in range(400):
                one = sockets.socket()
                one.setblocking(False)
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout(1):
                        await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", port))
                silent.append(one)
            assert len(await caller.talk(speech(0.8))) == 10 * FRAME
        for one in silent:
            one.close()
        async with asyncio.timeout(10):
            while await answered(port, held) != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        async with dial(url, "pcm") as caller:
            await caller.shake_hands()
    lines = log.read_text().splitlines()
    assert sum("connections turned away" in line for line in lines) == 1
    assert len(lines) < 20


async def test_a_system_without_descriptors_is_one_line_in_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    running = await serve()
    loop = asyncio.get_running_loop()
    context = {"message": "socket.accept() out of system resource", "exception": OSError(24, "Too many open files")}
    for _ in range(200):
        loop.call_exception_handler(context)
    assert caplog.text.count("Too many open files") == 1
    loop.call_exception_handler({"message": "something else"})
    assert "something else" in caplog.text
    await is_fine(running)


# How much one of them may ask for.


async def test_responses_that_nobody_reads_end_the_connection(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.http.protocols.STALLED_S", 0.3)
    running = await serve(sndbuf=4096, server={"requests_per_s": 0, "request_s": 60})
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", running.port))
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(5):
            for _ in range(2000):
                await loop.sock_sendall(raw, HEALTH * 10)
    await until_gone(running)
    raw.close()
    await is_fine(running)


async def test_a_slow_reader_gets_all_of_a_large_file(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.http.protocols.STALLED_S", 0.2)
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "large.bin").write_bytes(os.urandom(400_000))
    running = await serve(sndbuf=4096)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=4096)
    writer.write(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    taken = 0
    async with asyncio.timeout(30):
        while piece := await reader.read(16_384):
            taken += len(piece)
            await asyncio.sleep(0.05)
    writer.close()
    assert taken > 400_000


async def test_requests_of_one_address_are_spread_over_time(serve: Serve) -> None:
    """30 connections that ask again and again: no more is answered than the pace allows, however fast it could be."""
    rate, seconds = 30, 1.0
    running = await serve(server={"requests_per_s": rate})
    answers = 0

    async def ask() -> None:
        nonlocal answers
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        try:
            while True:
                writer.write(HEALTH)
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
                await reader.readexactly(int(length.split(b":")[1]))
                answers += head.startswith(b"HTTP/1.1 200")
        finally:
            writer.close()

    begun = time.monotonic()
    asking = [asyncio.create_task(ask()) for _ in range(30)]
    await asyncio.sleep(seconds)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    elapsed = time.monotonic() - begun
    assert rate * BURST_S <= answers <= rate * (BURST_S + elapsed) + 1


def test_the_pace_of_an_address_and_its_memory() -> None:
    clock = Clock()
    pace = RequestPace(10, clock)
    burst = int(10 * BURST_S)
    assert [pace.delay_s("192.0.2.1") for _ in range(burst + 1)] == [0.0] * (burst + 1)
    assert pace.delay_s("192.0.2.1") == pytest.approx(0.1, abs=0.001)
    assert pace.delay_s("192.0.2.2") == 0
    delays = [pace.delay_s("192.0.2.1") for _ in range(200)]
    assert delays[-1] is None
    assert max(delay for delay in delays if delay is not None) == pytest.approx(LONGEST_DELAY_S, abs=0.2)
    clock.now += LONGEST_DELAY_S + BURST_S + 1
    assert pace.delay_s("192.0.2.1") == 0
    assert len(pace._turns) == 1
    for number in range(MOST_ADDRESSES + 10):
        pace.delay_s(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(pace._turns) <= MOST_ADDRESSES


def test_a_budget_refills_with_the_clock() -> None:
    clock = Clock()
    budget = TokenBucket(10, 20, clock)
    assert budget.take(20) == 0
    assert budget.take(1) == pytest.approx(0.1)
    clock.now += 1
    assert budget.take(9) == 0
    clock.now += 100
    assert budget.take(20) == 0
    assert budget.take(5) == pytest.approx(0.5)


# Frames.


@pytest.mark.parametrize("frame", [PONG, b"\x89\x80\0\0\0\0", b"\x82\x81\0\0\0\0\x07"], ids=["pong", "ping", "message"])
async def test_a_flood_of_tiny_frames_is_ended_and_no_other_call_hears_of_it(serve: Serve, frame: bytes) -> None:
    running = await serve()
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as other:
        await other.shake_hands()
        reader, writer = await upgraded(running)
        with contextlib.suppress(ConnectionError):
            for _ in range(50):
                writer.write(frame * 1000)
                await writer.drain()
        assert await closed(reader)
        writer.close()
        [end] = await running.record.ended()
        assert (end.reason, end.code) == ("too_fast", CloseCode.TOO_FAST)
        assert len(await other.talk(speech(0.8))) == 10 * FRAME


async def test_what_comes_after_our_close_is_not_parsed_for_long(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.http.protocols.LAST_BYTES_S", 60)
    running = await serve()
    reader, writer = await upgraded(running)
    writer.write(b"\x81\x81\0\0\0\0x")  # a text message, which ends the call
    [end] = await running.record.ended()
    assert end.reason == "bad_message"
    with contextlib.suppress(ConnectionError):
        for _ in range(50):
            writer.write(PONG * 1000)
            await writer.drain()
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            while await reader.read(4096):
                pass
    writer.close()
    await until_gone(running)


async def test_reads_are_small(serve: Serve) -> None:
    """So that what one client sent is parsed piece by piece, and the others' frames come between."""
    running = await serve()
    _reader, writer = await upgraded(running)
    [connection] = running.server.server_state.connections
    sizes: list[int] = []
    received = connection.data_received

    def measured(data: bytes) -> None:
        sizes.append(len(data))
        received(data)

    connection.data_received = measured  # type: ignore[method-assign]
    writer.write(PONG * 3000)
    await writer.drain()
    await until(lambda: sum(sizes) == 3000 * len(PONG))
    assert max(sizes) <= 4096
    writer.close()


# The log.


async def test_text_that_is_none_is_one_line(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    running = await serve()
    reader, writer = await upgraded(running)
    writer.write(b"\x81\x82\0\0\0\0\xff\xfe")
    assert await closed(reader)
    writer.close()
    [end] = await running.record.ended()
    assert (end.reason, end.code) == ("bad_message", CloseCode.NOT_TEXT)
    assert caplog.text.count("no UTF-8") == 1
    assert "Traceback" not in caplog.text


async def test_a_client_that_leaves_in_a_request_is_one_line(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    running = await serve(plugins={"options": {"password": {"password": "sesame"}}})
    _reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\npassword=se")
    await writer.drain()
    await until(lambda: bool(running.server.server_state.tasks))
    writer.transport.abort()
    await until(lambda: not running.server.server_state.tasks)
    assert caplog.text.count("a client left before its request was read") == 1
    assert "/login" in caplog.text
    assert "Traceback" not in caplog.text
    assert "Exception" not in caplog.text
    assert (await get(running, "/health"))[0] == 200


# The process.


async def test_a_terminal_that_is_closed_ends_calls_with_a_goodbye(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"server": {"drain_s": 0}})
    with echo_server(config) as (process, port):
        async with dial(f"ws://127.0.0.1:{port}/ws/chat?audio=pcm", "pcm") as caller:
            await caller.shake_hands()
            process.send_signal(signal.SIGHUP)
            assert await caller.end() == CloseCode.GOING_AWAY
            assert "shutting down" in caller.error
        assert await asyncio.to_thread(process.wait, 20) == 0


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "<&- >&- 2>&-"])
async def test_a_service_starts_whatever_its_streams_are(tmp_path: Path, streams: str) -> None:
    with sockets.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = write_config(tmp_path, {"server": {"port": port}, "engine": {"name": "nano", "device": "cpu"}})
    command = f'exec "{sys.executable}" -c "from core.cli.main import main; main()" serve --config "{path}" {streams}'
    with subprocess.Popen(["/bin/sh", "-c", command]) as process:  # noqa: ASYNC220
        try:
            reader, writer = await asyncio.wait_for(connected(process, port), 120)
            writer.write(HEALTH)
            async with asyncio.timeout(120):
                assert b" 200 " in await reader.readuntil(b"\r\n")
            writer.close()
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 60) == 0
        finally:
            process.kill()


async def connected(process: subprocess.Popen[bytes], port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a process that will listen soon."""
    while process.poll() is None:
        with contextlib.suppress(OSError):
            return await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.1)
    raise AssertionError(f"it ended with {process.returncode}")
