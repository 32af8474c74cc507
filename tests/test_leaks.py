"""Calls by the hundred, dropped in every phase: slots, tasks, threads, descriptors and memory are as before."""

import asyncio
import gc
import resource
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from benchmarks.allocated import bytes_in_use
from core.events import SessionEnded
from core.session.protocol import CloseCode
from core.testing import EchoEngine
from tests.caller import audio, dial, is_fine
from tests.conftest import Running, Serve, speech
from tests.test_audio import coded
from tests.test_hostile_clients import upgraded

pytestmark = pytest.mark.leaks
CALLS = 1000
AT_ONCE = 20
MOST_GROWTH = {"threads": 0, "descriptors": 0, "all_objects": 5 * CALLS, "in_use": 2**20, "memory": 32 * 2**20}
"""What calls may leave behind in all: bytes in use a kilobyte each; objects fewer than one call is, whose are dozens.

The process itself grows by what the allocator keeps for later, as much after 6,000 calls.
"""
OF_A_CALL = ("core.", "plugins.", "websockets.", "uvicorn.", "starlette.", "sphn.", "_asyncio.", "asyncio.")
"""Modules whose objects a call is made of. Others' caches fill while it talks, as those of earlier tests do."""
FEW = CALLS // 100
"""Objects of one type that may stay: a connection that ends late still has its own."""
FRAMES = coded(speech(0.24))


@dataclass(frozen=True)
class Held:
    """What a process holds on to."""

    threads: int
    """Without those of the loop's own pool, which grows to its limit."""
    descriptors: int
    objects: Mapping[str, int]
    """How many of each type that a call is made of."""
    all_objects: int
    """Of any type: lists and dictionaries are everybody's."""
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
        kinds = Counter(type(thing) for thing in gc.get_objects())
        names = {f"{kind.__module__}.{kind.__qualname__}": count for kind, count in kinds.items()}
        objects = {name: count for name, count in names.items() if name.startswith(OF_A_CALL)}
        return cls(len(threads), len(descriptors), objects, kinds.total(), bytes_in_use(), memory)

    def more_than(self, before: "Held") -> dict[str, int]:
        """What has grown beyond its bound, and by how much."""
        grown = {name: count - before.objects.get(name, 0) for name, count in self.objects.items()}
        return {name: growth for name, growth in grown.items() if growth > FEW} | {
            name: growth
            for name, most in MOST_GROWTH.items()
            if (growth := getattr(self, name) - getattr(before, name)) > most
        }


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


def forget(running: Running) -> None:
    """Drop what the test itself keeps of calls."""
    running.record.events.clear()
    running.record.controls.clear()
    running.record.service_events.clear()


async def test_a_thousand_calls_dropped_in_every_phase_leave_nothing_behind(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.http.uvicorn_server.HEARTBEAT_S", 1.0)
    monkeypatch.setattr("core.http.protocols.LAST_BYTES_S", 0.5)
    engine = EchoEngine(slots=8)
    running = await serve(engine, server={"queue": 100, "request_s": 3})
    tasks = asyncio.all_tasks()
    sessions = await drop(running, 140)  # what is made once and kept is made now
    await asyncio.gather(*(half_open(running) for _ in range(HALF_OPEN)))
    await running.record.ended(sessions + HALF_OPEN)
    forget(running)
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
    forget(running)
    for _ in range(100):  # the loop lets go of a connection's timers when they are due
        if not (grown := Held.now().more_than(before)):
            break
        await asyncio.sleep(0.1)
    assert grown == {}
    await is_fine(running)
