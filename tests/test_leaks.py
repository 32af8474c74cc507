"""Calls by the hundred, dropped in every phase: slots, tasks, threads, descriptors and memory are as before."""

import asyncio
import gc
import os
import threading
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from websockets.asyncio.client import connect

from core.events import SessionEnded
from core.protocol import CloseCode
from tests.caller import audio, dial, is_fine
from tests.conftest import Running, Serve
from tests.echo_engine import EchoEngine
from tests.test_audio import coded, speech
from tests.test_hostile_clients import upgraded

CALLS = 1000
AT_ONCE = 20
MOST_GROWTH = 3 * 2**20
"""Bytes that many calls may leave behind, for caches that fill. One kept session has some 20 KB, so 1,000 had 20 MB."""
FRAMES = coded(speech(0.24))


@dataclass(frozen=True)
class Held:
    """What a process holds on to."""

    threads: int
    descriptors: int
    memory: int

    @classmethod
    def now(cls) -> "Held":
        gc.collect()
        return cls(threading.active_count(), len(os.listdir("/proc/self/fd")), tracemalloc.get_traced_memory()[0])


async def before_the_upgrade(running: Running) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(b"GET /ws/chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n")
    writer.transport.abort()


async def at_the_upgrade(running: Running) -> None:
    _, writer = await upgraded(running)
    writer.transport.abort()


async def before_the_handshake(running: Running) -> None:
    """In the prompt, or in the queue: whatever this caller came to."""
    async with dial(running.url()) as caller:
        await caller.next()
        caller.socket.transport.abort()


async def in_mid_audio(running: Running) -> None:
    """A frame and a half are sent, perhaps answered, perhaps not."""
    async with dial(running.url("/api/chat")) as caller:
        await caller.shake_hands()
        await caller.socket.send(audio(FRAMES[0]))
        await caller.socket.send(audio(FRAMES[1][:100]))
        caller.socket.transport.abort()


async def with_a_goodbye(running: Running) -> None:
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        await caller.talk(speech(0.16))


async def with_an_error(running: Running) -> None:
    async with dial(running.url()) as caller:
        await caller.shake_hands()
        await caller.socket.send(audio(b"garbage that is no Ogg"))
        assert await caller.end() == CloseCode.BAD_MESSAGE


async def half_open(running: Running) -> None:
    """The network takes what comes, but nobody answers: only the heartbeat finds out."""
    reader, writer = await upgraded(running)
    async with asyncio.timeout(10):
        try:
            while await reader.read(4096):
                pass
        except ConnectionResetError:
            pass
    writer.close()


async def refused(running: Running) -> None:
    with pytest.raises(Exception, match="HTTP 404"):
        async with connect(running.url("/ws/chat?persona=nobody"), proxy=None):
            pass


Phase = Callable[[Running], Awaitable[None]]
PHASES: tuple[Phase, ...] = (
    before_the_upgrade,
    at_the_upgrade,
    before_the_handshake,
    in_mid_audio,
    with_a_goodbye,
    with_an_error,
    half_open,
    refused,
)
SESSIONS = len(PHASES) - 2
"""Phases in which there is a session."""


async def drop(running: Running, calls: int) -> None:
    """Make that many calls, some at once, and drop each in the next phase."""
    turns = iter([PHASES[index % len(PHASES)] for index in range(calls)])

    async def some() -> None:
        for phase in turns:
            await phase(running)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())


async def ended(running: Running, calls: int, tasks: set[Any]) -> None:
    """Return when the sessions of these calls are over, and the tasks that came with them too."""
    await running.record.ended(calls // len(PHASES) * SESSIONS)
    left = asyncio.all_tasks() - tasks
    if left:
        _, left = await asyncio.wait(left, timeout=10)
    assert left == set()


async def test_a_thousand_calls_dropped_in_every_phase_leave_nothing_behind(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.serving.HEARTBEAT_S", 0.2)
    monkeypatch.setattr("core.serving.LAST_BYTES_S", 0.2)
    engine = EchoEngine(slots=8)
    running = await serve(engine, server={"queue": 100})
    tasks = asyncio.all_tasks()
    await drop(running, 160)  # what is made once and kept is made now
    await ended(running, 160, tasks)
    running.record.events.clear()
    tracemalloc.start()
    try:
        before = Held.now()
        await drop(running, CALLS)
        await ended(running, CALLS, tasks)
        ids = [info.id for info, event in running.record.events if isinstance(event, SessionEnded)]
        assert len(ids) == len(set(ids)) == CALLS // len(PHASES) * SESSIONS
        running.record.events.clear()
        await asyncio.sleep(0.5)  # longer than LAST_BYTES_S, in which the loop keeps a call to an old connection
        after = Held.now()
    finally:
        tracemalloc.stop()
    assert engine.calls == []
    assert running.service.admission.waiting == 0
    assert after.threads == before.threads
    assert after.descriptors <= before.descriptors
    assert after.memory - before.memory < MOST_GROWTH
    await is_fine(running)
