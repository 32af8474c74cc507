"""Calls by the hundred, dropped in every phase: slots, tasks, threads, descriptors and memory are as before."""

import asyncio
import gc
import resource
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from benchmarks.allocated import bytes_in_use
from core.events import SessionEnded
from core.protocol import CloseCode
from tests.caller import audio, dial, is_fine
from tests.conftest import Running, Serve
from tests.echo_engine import EchoEngine
from tests.test_audio import coded, speech
from tests.test_hostile_clients import upgraded

CALLS = 1000
AT_ONCE = 20
MOST_GROWTH = 2**20
"""Bytes in use that 1,000 calls may leave behind: a kilobyte each."""
MOST_KEPT = 32 * 2**20
"""Bytes that the process may grow by: what the allocator keeps for later. It is as much after 6,000 calls."""
FRAMES = coded(speech(0.24))


@dataclass(frozen=True)
class Held:
    """What a process holds on to."""

    threads: int
    """Without those of the loop's own pool, which grows to its limit."""
    descriptors: int
    objects: int
    in_use: int
    """Bytes of malloc that are in use."""
    memory: int
    """Bytes of the whole process."""

    @classmethod
    def now(cls) -> "Held":
        gc.collect()
        threads = [thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")]
        descriptors = list(Path("/proc/self/fd").iterdir())
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory = pages * resource.getpagesize()
        return cls(len(threads), len(descriptors), len(gc.get_objects()), bytes_in_use(), memory)

    def as_before(self, before: "Held", calls: int) -> bool:
        """Whether it is no more than before.

        Of objects, fewer than two for each call: one that stays is dozens, and caches of earlier tests fill meanwhile.
        """
        return (
            self.threads <= before.threads
            and self.descriptors <= before.descriptors
            and self.objects < before.objects + 2 * calls
            and self.in_use < before.in_use + MOST_GROWTH
            and self.memory < before.memory + MOST_KEPT
        )


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
    refused,
)
NO_SESSION = (PHASES.index(before_the_upgrade), PHASES.index(refused))
HALF_OPEN = CALLS // 10


async def drop(running: Running, calls: int) -> int:
    """Make that many calls, some at once, and drop each in the next phase; how many came to be sessions."""
    turns = iter([PHASES[index % len(PHASES)] for index in range(calls)])

    async def some() -> None:
        for phase in turns:
            await phase(running)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())
    sessions = sum(index % len(PHASES) not in NO_SESSION for index in range(calls))
    await running.record.ended(sessions)
    return sessions


async def test_a_thousand_calls_dropped_in_every_phase_leave_nothing_behind(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.serving.HEARTBEAT_S", 1.0)
    monkeypatch.setattr("core.serving.LAST_BYTES_S", 0.5)
    engine = EchoEngine(slots=8)
    running = await serve(engine, server={"queue": 100, "request_s": 3})
    tasks = asyncio.all_tasks()
    sessions = await drop(running, 140)  # what is made once and kept is made now
    await asyncio.gather(*(half_open(running) for _ in range(HALF_OPEN)))
    await running.record.ended(sessions + HALF_OPEN)
    running.record.events.clear()
    before = Held.now()
    sessions = await drop(running, CALLS - HALF_OPEN)
    await asyncio.gather(*(half_open(running) for _ in range(HALF_OPEN)))
    await running.record.ended(sessions + HALF_OPEN)
    if left := asyncio.all_tasks() - tasks:
        _, left = await asyncio.wait(left, timeout=10)
    assert left == set()
    ids = [info.id for info, event in running.record.events if isinstance(event, SessionEnded)]
    assert len(ids) == len(set(ids)) == sessions + HALF_OPEN
    assert engine.calls == []
    assert running.service.admission.waiting == 0
    running.record.events.clear()
    for _ in range(100):  # the loop lets go of a connection's timers when they are due
        if (after := Held.now()).as_before(before, CALLS):
            break
        await asyncio.sleep(0.1)
    assert after.as_before(before, CALLS), f"{before} -> {after}"
    await is_fine(running)
