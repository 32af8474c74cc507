"""Plugins that block, that never return, and that raise what no `except Exception` catches."""

import asyncio
import contextvars
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from starlette.requests import HTTPConnection

from core.engine.call import Frame
from core.events import FirstAudio, Identity, SessionEvent, TransformFailed
from core.plugin.foreign_code import CrashError
from core.plugin.hookspecs import hookimpl
from core.plugin.worker_threads import HangingError, WorkerThreads
from core.session.protocol import CloseCode
from core.testing import EchoEngine
from tests.caller import PLAIN, dial, get, is_fine, refused
from tests.conftest import Serve, speech, write_config
from tests.echo_server import echo_server


class Gate:
    """What a plugin waits at, until the test opens it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def wait(self) -> None:
        self.entered.set()
        self.opened.wait(60)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, 10)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


class Door:
    """Identifies callers by a plain function, which waits for those who say so."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    @hookimpl
    def authenticate(self, connection: HTTPConnection) -> Identity | None:
        if "slow" in connection.query_params:
            self.gate.wait()
        return Identity("door")


class LastDoor:
    """Identifies everybody whom no other plugin does, and would do so first if it were quicker."""

    @hookimpl(trylast=True)
    async def authenticate(self) -> Identity:
        return Identity("last")


async def test_who_waits_in_a_plain_function_keeps_no_call_waiting(serve: Serve, gate: Gate) -> None:
    running = await serve(extra=(Door(gate), LastDoor()), **PLAIN)
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as talking:
        await talking.shake_hands()
        slow = asyncio.create_task(get(running, "/session?slow=1"))
        await gate.reached()
        samples = speech(0.8)
        np.testing.assert_allclose(await talking.talk(samples), samples, atol=1e-4)
        assert json.loads((await get(running, "/session"))[2])["identity"] == "door"
        assert not slow.done()
        gate.opened.set()
        assert json.loads((await slow)[2])["identity"] == "door"  # the first in order, not the first to answer


async def test_who_waits_in_a_plain_function_is_refused_when_the_time_is_up(serve: Serve, gate: Gate) -> None:
    running = await serve(extra=(Door(gate),), session={"auth_s": 0.3}, **PLAIN)
    status, message = await refused(running, "/ws/chat?slow=1")
    assert (status, "too long" in message) == (503, True)
    await is_fine(running)


class Thorough:
    """Takes longer than a hook usually may, where the operator lets it."""

    @hookimpl
    def authenticate(self) -> Identity:
        time.sleep(0.5)
        return Identity("thorough")


async def test_a_hook_may_take_as_long_as_the_operator_lets_callers_wait(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.plugin.hook_calls.LIMIT_S", 0.1)
    patient = await serve(extra=(Thorough(),), session={"auth_s": 20}, **PLAIN)
    assert json.loads((await get(patient, "/session"))[2])["identity"] == "thorough"
    hasty = await serve(extra=(Thorough(),), session={"auth_s": 0.2}, **PLAIN)
    assert (await get(hasty, "/session"))[0] == 503


async def test_threads_without_work_end_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.plugin.worker_threads.IDLE_S", 0.05)
    threads = WorkerThreads("idle test", 3)
    for _ in range(2):
        await asyncio.gather(*(threads.run(lambda: None) for _ in range(20)))
        async with asyncio.timeout(10):
            while [one for one in threading.enumerate() if one.name == "idle test"]:  # noqa: ASYNC110 - they just end
                await asyncio.sleep(0.02)


async def test_work_in_a_thread_sees_the_context_of_its_caller() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("the caller's")
    assert await WorkerThreads("test", 1).run(variable.get) == "the caller's"


class Sluggish:
    """Keeps the event loop waiting."""

    @hookimpl
    def session_event(self, event: SessionEvent) -> None:
        if isinstance(event, FirstAudio):
            time.sleep(0.15)

    @hookimpl
    async def list_voices(self) -> list[str]:
        await asyncio.sleep(0)
        time.sleep(0.15)  # noqa: ASYNC251 - that is what is wrong with it
        return []


async def test_what_keeps_the_event_loop_waiting_is_named_once(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    running = await serve(extra=(Sluggish(),), **PLAIN)
    for _ in range(2):
        await is_fine(running)
        await get(running, "/voices")
    await running.record.ended(2)
    named = [record.message for record in caplog.records if "keeps every call waiting" in record.message]
    for hook in ("session_event", "list_voices"):
        [line] = [line for line in named if f"'hook': '{hook}'" in line]
        assert "'plugin': 'Sluggish'" in line


class Counting:
    """Counts how often it is asked, and whether on the event loop."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @hookimpl
    def list_voices(self) -> list[str]:
        self.asked.append(threading.current_thread().name)
        return []


@pytest.mark.parametrize("path", ["/ws/chat?persona=teacher", "/api/chat?voice=NATM2", "/ws/chat?prompt=Hello."])
async def test_a_call_asks_for_the_voices_once_and_off_the_event_loop(serve: Serve, path: str) -> None:
    counting = Counting()
    running = await serve(extra=(counting,), personas={"custom": True}, **PLAIN)
    counting.asked.clear()
    async with dial(running.url(path)) as caller:
        await caller.shake_hands()
    assert counting.asked == ["plugin Counting"]


# What is no Exception.


class PanicException(BaseException):
    """As `pyo3_runtime.PanicException`, which no Python code can make."""


UNCATCHABLE = [PanicException, KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, StopIteration]
"""What ends a task, the event loop or the process where it is let through."""


class Thrower:
    """Raises one thing in every hook, sync ones and async ones, and in `process`."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def throw(self) -> NoReturn:
        raise self.error("out of order")

    @hookimpl
    async def authenticate(self, connection: HTTPConnection) -> None:
        if "throw" in connection.query_params:
            self.throw()

    @hookimpl
    def authorize(self, identity: Identity) -> None:
        if identity.name == "victim":
            self.throw()

    @hookimpl
    def list_personas(self) -> Iterator[Any]:
        yield self.throw()

    @hookimpl
    async def resolve_persona(self) -> None:
        self.throw()

    @hookimpl
    def load_voice(self) -> None:
        self.throw()

    @hookimpl
    async def list_voices(self) -> None:
        self.throw()

    @hookimpl
    def session_event(self) -> None:
        self.throw()

    @hookimpl
    def problems(self) -> list[str]:
        self.throw()

    @hookimpl
    def login(self) -> None:
        self.throw()

    @hookimpl
    def transform_input(self) -> None:
        self.throw()

    @hookimpl
    def transform_output(self) -> "Thrower":
        return self

    def process(self, frame: Frame) -> Frame:
        self.throw()

    @hookimpl
    async def shutdown(self) -> None:
        self.throw()


class Named:
    """Gives callers the name that they ask for."""

    @hookimpl
    def authenticate(self, connection: HTTPConnection) -> Identity:
        return Identity(connection.query_params.get("name", "caller"))


@pytest.mark.parametrize("error", UNCATCHABLE)
async def test_whatever_a_plugin_raises_disturbs_no_call(serve: Serve, error: type[BaseException]) -> None:
    running = await serve(extra=(Named(), Thrower(error)), **PLAIN)
    samples = speech(0.8)
    async with dial(running.url("/ws/chat?audio=pcm&persona=teacher"), "pcm") as caller:
        await caller.shake_hands()
        assert (await get(running, "/health"))[0] == 200
        assert (await get(running, "/session?throw=1"))[0] == 200  # which says that nobody is logged in
        assert (await refused(running, "/ws/chat?throw=1"))[0] == 401
        assert (await refused(running, "/ws/chat?name=victim&persona=teacher"))[0] == 403
        assert [one["id"] for one in json.loads((await get(running, "/personas"))[2])["personas"]]
        np.testing.assert_allclose(await caller.talk(samples), samples, atol=1e-4)
    [end] = await running.record.ended()
    assert end.reason == "left"
    assert {failure.plugin for failure in running.record.of(TransformFailed)} == {"Thrower"}


@pytest.mark.parametrize("error", UNCATCHABLE)
async def test_work_in_a_thread_raises_only_what_can_be_caught(error: type[BaseException]) -> None:
    def work() -> NoReturn:
        raise error("out of order")

    threads = WorkerThreads("test", 1)
    with pytest.raises(CrashError, match=error.__name__):
        await threads.run(work)
    assert await threads.run(lambda: "goes on") == "goes on"


# What never returns.


class Endless:
    """Waits at a gate in the `process` of calls with one persona."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    @hookimpl
    def transform_output(self) -> "Endless":
        return self

    def process(self, frame: Frame) -> Frame:
        self.gate.wait()
        return frame


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.session.codec_threads.HANGING_S", 0.6)
    monkeypatch.setattr("core.session.codec_threads.CODING_S", 0.2)
    monkeypatch.setattr("core.plugin.hook_calls.LIMIT_S", 0.6)
    monkeypatch.setattr("core.plugin.hook_calls.LIMITS_S", {"shutdown": 0.6})


async def problems(running: Any) -> list[str]:
    """What /health says is wrong."""
    status, _, body = await get(running, "/health")
    assert status == 200
    found: list[str] = json.loads(body).get("details", [])
    return found


@pytest.mark.usefixtures("short_limits")
async def test_transforms_that_never_return_end_their_calls_and_no_other(serve: Serve, gate: Gate) -> None:
    """More of them than there are threads."""
    running = await serve(EchoEngine(slots=20), extra=(Endless(gate),), server={"calls_per_address": 20}, **PLAIN)

    async def call() -> None:
        async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
            await caller.shake_hands()
            await caller.say(speech(0.08))
            assert await caller.end() == CloseCode.INTERNAL
            assert "the plugin Endless does not answer" in caller.error

    await asyncio.gather(*(call() for _ in range(12)))
    assert {end.reason for end in await running.record.ended(12)} == {"engine"}
    [problem] = [sentence for sentence in await problems(running) if "Endless" in sentence]
    assert "The plugin Endless hangs: process has not returned" in problem
    await is_fine(running)  # without the transform
    gate.opened.set()
    async with asyncio.timeout(10):
        while await problems(running):  # noqa: ASYNC110 - the threads come back at their own time
            await asyncio.sleep(0.05)


class EndlessVoice:
    """Waits at a gate for one voice."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    @hookimpl
    def load_voice(self, name: str) -> None:
        if name == "NATM2":
            self.gate.wait()

    @hookimpl
    def shutdown(self) -> None:
        self.gate.wait()


@pytest.mark.usefixtures("short_limits")
async def test_a_hook_that_never_returns_is_named_and_the_next_plugin_is_asked(
    serve: Serve, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    running = await serve(extra=(EndlessVoice(gate),), session={"auth_s": 0.3}, **PLAIN)
    status, message = await refused(running, "/ws/chat?persona=teacher")
    assert (status, "too long" in message) == (503, True)
    assert (await running.service.host.load_voice("NATM2")).name == "NATM2"  # who has the time for it
    [problem] = await problems(running)
    assert "The plugin EndlessVoice hangs: load_voice has not returned" in problem
    assert "'hook': 'load_voice', 'error': 'has not returned for" in caplog.text
    [fault] = await running.service.host.faults()
    assert fault.startswith("plugin EndlessVoice: load_voice has not returned for ")
    await is_fine(running)
    await running.service.stop()
    assert "'plugin': 'EndlessVoice', 'hook': 'shutdown'" in caplog.text


async def test_a_plugin_whose_threads_all_hang_fails_at_once_and_no_other_does(
    serve: Serve, gate: Gate, monkeypatch: pytest.MonkeyPatch, short_limits: None
) -> None:
    monkeypatch.setattr("core.plugin.hook_calls.THREADS_PER_PLUGIN", 2)
    running = await serve(extra=(EndlessVoice(gate),), session={"auth_s": 0.3}, **PLAIN)
    host = running.service.host
    for _ in range(2):
        await host.load_voice("NATM2")
    began = time.monotonic()
    for _ in range(4):
        assert (await host.load_voice("NATM2")).name == "NATM2"
    assert time.monotonic() - began < 4 * 0.6  # which is what it would be if each waited for its time to be up
    [problem] = await problems(running)
    assert "in 2 calls" in problem


async def test_work_that_hangs_is_replaced_and_told_of_where_its_caller_has_gone() -> None:
    gate = Gate()
    told: asyncio.Event = asyncio.Event()
    threads = WorkerThreads("test", 1, replace_s=0.1)
    lost = asyncio.create_task(threads.run(gate.wait, 0.3, lambda _: told.set()))
    await gate.reached()
    lost.cancel()
    assert await threads.run(lambda: "goes on") == "goes on"
    await told.wait()
    with pytest.raises(HangingError, match="has not returned"):
        await threads.run(gate.wait, 0.2)
    gate.opened.set()


HANGING_PLUGIN = """
import asyncio, threading, time
from core import hookimpl

class Endless:
    def process(self, frame):
        {where}

@hookimpl
def transform_output(session):
    return Endless()

@hookimpl
async def load_voice(name):
    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)

@hookimpl
def shutdown():
    if {in_shutdown}:
        threading.Event().wait()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "signals"), [("threading.Event().wait()", 1), ("while True: pass", 1), ("time.sleep(1e6)", 2)]
)
async def test_a_process_full_of_what_never_returns_can_be_stopped(tmp_path: Path, where: str, signals: int) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "endless.py").write_text(HANGING_PLUGIN.format(where=where, in_shutdown=signals == 2))
    config = write_config(tmp_path, {"server": {"drain_s": 0.1}})
    with echo_server(config) as (process, port):
        async with dial(f"ws://127.0.0.1:{port}/ws/chat?audio=pcm", "pcm") as caller:
            await caller.shake_hands()
            await caller.say(speech(0.08))
            process.send_signal(signal.SIGTERM)
            assert await caller.end() == CloseCode.GOING_AWAY
            if signals == 2:
                process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, 20)


@pytest.mark.slow
async def test_a_process_whose_event_loop_is_blocked_can_be_stopped(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    blocked = tmp_path / "blocked"
    (tmp_path / "plugins" / "blocking.py").write_text(
        "import pathlib, threading\nfrom core import hookimpl\n@hookimpl\ndef session_event(event):\n"
        f"  pathlib.Path({str(blocked)!r}).touch()\n  threading.Event().wait()\n"
    )
    config = write_config(tmp_path, {"server": {"drain_s": 0.1}})
    with echo_server(config) as (process, port):
        dialling = asyncio.create_task(_dial_in_vain(port))
        async with asyncio.timeout(20):
            while not blocked.exists():  # noqa: ASYNC110 - it is made by another process
                await asyncio.sleep(0.05)
            while process.poll() is None:  # a second signal, which must not be lost in the first
                process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.1)
        dialling.cancel()


async def _dial_in_vain(port: int) -> None:
    async with dial(f"ws://127.0.0.1:{port}/ws/chat"):
        pass
