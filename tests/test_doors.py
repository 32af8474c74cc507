"""Doors: a plugin's own transports, which pass the same authentication, queue, limits and plugins as the service's."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.requests import HTTPConnection
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from core.engine.call import Frame
from core.errors import AudioError, RefusedError, SayError
from core.events import CallRefused, FrameTimed, Identity, SessionEnded, SessionQueued
from core.media.audio_codecs import Samples
from core.plugin.acting import AgentText
from core.plugin.doors import CallEnded, CallerSound, CallRequest, Calls, ClientMessage, Transport
from core.plugin.hookspecs import hookimpl
from core.plugin.server_messages import PluginMessage, Preparing, Queued, Ready, ServerMessage, Stats
from core.session.protocol import CloseCode
from core.testing import EchoEngine
from tests.caller import FRAME, PLAIN, dial, is_fine
from tests.conftest import Serve, speech
from tests.documents import ROOT
from tests.service_processes import several_processes

ANN = Identity("ann")
PATIENCE_S = 10
Sound = CallerSound | ClientMessage


class Door:
    """A plugin that keeps its `calls` for the test."""

    calls: Calls

    @hookimpl
    def startup(self, calls: Calls | None) -> None:
        assert calls is not None
        self.calls = calls


@dataclass
class Line(Transport):
    """A transport of which the test holds the other end."""

    audio = "line"
    route = "test"
    to_service: asyncio.Queue[Sound | BaseException] = field(default_factory=asyncio.Queue)
    messages: list[ServerMessage] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    heard: list[Frame] = field(default_factory=list)
    closed: list[CallEnded] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> Sound:
        received = await self.to_service.get()
        if isinstance(received, BaseException):
            raise received
        return received

    async def send_audio(self, sound: Frame) -> None:
        self.heard.append(sound)
        self.changed.set()

    async def send_text(self, text: AgentText) -> None:
        self.words.append(text.text)

    async def send_event(self, message: ServerMessage) -> None:
        self.messages.append(message)
        self.changed.set()

    async def close(self, ended: CallEnded) -> None:
        self.closed.append(ended)

    def say(self, samples: Samples) -> None:
        self.to_service.put_nowait(CallerSound(samples))

    def hang_up(self) -> None:
        self.to_service.put_nowait(CallEnded("left"))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def told(self, kind: type[ServerMessage]) -> None:
        await self.until(lambda: any(isinstance(message, kind) for message in self.messages))


@asynccontextmanager
async def held(door: Door, line: Transport, **request: Any) -> AsyncIterator["asyncio.Task[SessionEnded]"]:
    """A session over a line, which is waited for."""
    asked = CallRequest(**{"identity": ANN, "address": "192.0.2.1", **request})
    task = asyncio.create_task(door.calls.converse(None, asked, line))
    try:
        yield task
    finally:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([task])


async def test_a_session_over_a_plugins_transport_is_a_session_as_any_other(serve: Serve) -> None:
    class Louder:
        @hookimpl
        def transform_output(self) -> "Louder":
            return self

        def process(self, frame: Frame) -> Frame:
            return frame * np.float32(0.5)

    door, line = Door(), Line()
    engine = EchoEngine()
    running = await serve(engine, extra=(door, Louder()), **PLAIN)
    sampling = {"seed": 7, "temperature": 0.1}
    async with held(door, line, persona="teacher", voice="NATF2", sampling=sampling) as task:
        line.say(speech(1))  # before the handshake nobody hears it
        await line.told(Ready)
        said = speech(0.8)
        for start in range(0, len(said), 700):  # in pieces of any length
            line.say(said[start : start + 700])
        await line.until(lambda: len(line.heard) == 10)
        [control] = running.record.controls.values()
        control.say("Hello there.")
        control.tell("note", n=1)
        control.caller_said("Hi.", 0, 80)
        line.say(speech(0.4))
        await line.until(lambda: len(line.heard) == 15)
        line.hang_up()
    assert "Hello there." in "".join(line.words)
    np.testing.assert_allclose(np.concatenate(line.heard[:10]), said * 0.5, atol=1e-6)
    ended = task.result()
    assert (ended.reason, ended.code, ended.frames_in, ended.frames_out) == ("left", 1000, 15, 15)
    assert [closing.reason for closing in line.closed] == ["left"]
    assert await running.record.ended() == [ended]
    [info] = {info.id: info for info, _ in running.record.events}.values()
    assert (info.identity, info.persona, info.voice) == (ANN, "teacher", "NATF2")
    assert (info.route, info.address, info.audio) == ("test", "192.0.2.1", "line")
    assert len(running.record.of(FrameTimed)) == 15
    kinds = [type(message) for message in line.messages if not isinstance(message, Stats)]
    assert kinds[:2] == [Preparing, Ready]
    assert PluginMessage("EventRecorder.note", {"n": 1}) in line.messages
    [ready] = [message for message in line.messages if isinstance(message, Ready)]
    assert ready.seed == 7
    assert "".join(line.words).startswith(" word0 word1")
    assert not engine.calls


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"identity": None}, 401),
        ({"persona": "nobody"}, 404),
        ({"voice": "VARF0"}, 404),
        ({"prompt": "You are mine.", "persona": "teacher"}, 403),
        ({"sampling": {"temperature": 99}}, 400),
        ({"sampling": {"warmth": 1}}, 400),
        ({"identity": Identity("eve"), "persona": "teacher"}, 403),
    ],
)
async def test_a_call_is_refused_before_anything_is_promised(
    serve: Serve, request_: dict[str, Any], status: int
) -> None:
    class Gate:
        @hookimpl
        def authorize(self, identity: Identity) -> bool:
            return identity.name != "eve"

    door = Door()
    running = await serve(extra=(door, Gate()), **PLAIN, personas={"custom": False})
    with pytest.raises(RefusedError) as refusal:
        await door.calls.accept(None, CallRequest(**{"identity": ANN, **request_}))
    assert refusal.value.status == status
    assert [event.status for event in running.record.service_events if isinstance(event, CallRefused)] == [status]
    assert not running.record.events


async def test_more_calls_than_slots_wait_and_more_than_the_queue_are_told(serve: Serve) -> None:
    door = Door()
    running = await serve(EchoEngine(slots=1), extra=(door,), **PLAIN, server={"queue": 1})
    first, second, third = Line(), Line(), Line()
    async with held(door, first) as first_call:
        await first.told(Ready)
        async with held(door, second) as second_call:
            await second.told(Queued)
            async with held(door, third) as third_call:
                pass
            assert third_call.result().reason == "busy"
            assert third_call.result().code == CloseCode.BUSY == third.closed[0].code
            assert "Every slot is taken" in third.closed[0].message
            assert first_call in asyncio.all_tasks()
            first.hang_up()
            await second.told(Ready)
            second.hang_up()
    assert second_call.result().reason == "left"
    assert len(running.record.of(SessionQueued)) >= 1
    await is_fine(running)


class Breaks(Line):
    """A transport with one method that is broken."""

    def __init__(self, method: str, broken: Callable[..., Any]) -> None:
        super().__init__()
        setattr(self, method, broken)


def fail(*_arguments: Any) -> Any:
    raise KeyError("broken")


async def exits(*_arguments: Any) -> Any:
    raise SystemExit(3)


async def gives_nonsense() -> Any:
    return b"raw bytes"


async def hangs(*_arguments: Any) -> None:
    await asyncio.Event().wait()


BROKEN: dict[str, tuple[str, Callable[..., Any], str]] = {
    "receive raises": ("receive", fail, "fault"),
    "receive exits": ("receive", exits, "fault"),
    "receive gives nonsense": ("receive", gives_nonsense, "fault"),
    "encode raises": ("encode", fail, "fault"),
    "send_audio raises": ("send_audio", fail, "fault"),
    "send_text raises": ("send_text", fail, "fault"),
    "send_event raises": ("send_event", fail, "fault"),
    "keep_alive exits": ("keep_alive", exits, "fault"),
    "send_audio hangs": ("send_audio", hangs, "slow"),
    "send_event hangs": ("send_event", hangs, "slow"),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_transport_ends_its_own_call_alone(
    serve: Serve, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.session.session.HEARTBEAT_S", 0.1)
    door = Door()
    running = await serve(extra=(door,), **PLAIN, session={"send_s": 1})
    method, broken, reason = BROKEN[kind]
    line = Breaks(method, broken)
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        async with held(door, line) as call:
            for _ in range(3):
                line.say(speech(0.08))
                await asyncio.sleep(0.01)
            if method not in ("send_event", "receive"):
                await line.told(Ready)
                line.say(speech(0.16))
        assert call.result().reason == reason
        assert [closing.reason for closing in line.closed] == [reason]
        assert (await caller.talk(speech(0.16))).any()
    await is_fine(running)


async def test_a_transport_that_cannot_close_ends_its_call_all_the_same(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    door, line = Door(), Breaks("close", fail)
    await serve(extra=(door,), **PLAIN)
    async with held(door, line) as call:
        await line.told(Ready)
        line.hang_up()
    assert call.result().reason == "left"
    assert "a transport failed to close" in caplog.text


async def test_what_a_plugin_tells_before_it_ends_a_call_arrives_however_slowly(serve: Serve) -> None:
    class Slow(Line):
        async def send_event(self, message: ServerMessage) -> None:
            await asyncio.sleep(0.01)
            await super().send_event(message)

    door, line = Door(), Slow()
    running = await serve(extra=(door,), **PLAIN)
    async with held(door, line) as call:
        await line.told(Ready)
        [control] = running.record.controls.values()
        for number in range(5):
            control.tell("note", n=number)
        control.end("done", "Goodbye.")
    told = [message.data["n"] for message in line.messages if isinstance(message, PluginMessage)]
    assert told == [0, 1, 2, 3, 4]
    assert call.result().reason == "plugin"
    assert [closing.message for closing in line.closed] == ["Goodbye."]


async def test_what_is_no_transport_is_refused(serve: Serve) -> None:
    door = Door()
    running = await serve(extra=(door,), **PLAIN)
    accepted = await door.calls.accept(None, CallRequest(identity=ANN))
    with pytest.raises(TypeError, match=r"core\.Transport"):
        await accepted.run(object())  # type: ignore[arg-type]
    assert not running.record.events


@pytest.mark.parametrize("samples", [np.zeros(80), np.zeros((2, 80), np.float32), np.zeros(80, np.int16), b"\0" * 160])
def test_sound_that_is_none_is_an_error_of_the_door(samples: Any) -> None:
    with pytest.raises(TypeError, match="float32"):
        CallerSound(samples)


def test_sound_that_is_not_finite_is_the_clients_fault() -> None:
    with pytest.raises(AudioError):
        CallerSound(np.full(80, np.nan, np.float32))


async def test_a_door_that_floods_is_hung_up_on(serve: Serve) -> None:
    door, line = Door(), Line()
    await serve(extra=(door,), **PLAIN, session={"max_messages_per_s": 50})
    async with held(door, line) as call:
        await line.told(Ready)
        for _ in range(1000):
            line.to_service.put_nowait(ClientMessage(size=1))
    assert call.result().reason == "too_fast"


async def test_calls_over_doors_end_with_the_service(serve: Serve) -> None:
    door, line = Door(), Line()
    running = await serve(extra=(door,), **PLAIN, server={"drain_s": 0})
    async with held(door, line) as call:
        await line.told(Ready)
        await running.service.drain()
        await running.service.end_calls()
    assert call.result().reason == "shutdown"
    with pytest.raises(RefusedError) as refusal:
        await door.calls.accept(None, CallRequest(identity=ANN))
    assert refusal.value.status == 503


async def test_a_door_whose_task_is_cancelled_frees_the_slot(serve: Serve) -> None:
    engine, door, line = EchoEngine(slots=1), Door(), Line()
    running = await serve(engine, extra=(door,), **PLAIN)
    async with held(door, line) as call:
        await line.told(Ready)
        [control] = running.record.controls.values()
        control.state["kept"] = "something large"
        call.cancel()
    assert call.cancelled()
    assert len(await running.record.ended()) == 1
    assert not control.state
    with pytest.raises(SayError, match="over"):
        control.say("Hello?")
    assert not engine.calls
    await is_fine(running)


async def test_where_nobody_can_call_a_door_has_no_calls(serve: Serve) -> None:
    given: list[Calls | None] = []

    class Asks:
        @hookimpl
        def startup(self, calls: Calls | None) -> None:
            given.append(calls)

    await serve(extra=(Asks(),), **PLAIN, server={"role": "page", "socket": "wss://calls.example.com"})
    assert given == [None]


# The door of the documentation, and one with a route of its own


def documented(name: str) -> str:
    """The source of a plugin in the documentation."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/plugins.md").read_text(), re.DOTALL)
    [source] = [block for block in blocks if f"plugins/{name}.py" in block.split("\n")[0]]
    return str(source)


async def test_the_documented_door_takes_calls_over_a_unix_socket(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "pcm_socket.py").write_text(documented("pcm_socket"))
    path = str(tmp_path / "calls")
    running = await serve(plugins={**PLAIN["plugins"], "options": {"pcm_socket": {"path": path}}})
    reader, writer = await asyncio.open_unix_connection(path)
    said = speech(0.8)
    pcm = (said * 32767).astype("<i2").tobytes()
    answer = b""
    async with asyncio.timeout(PATIENCE_S):
        await running.record.until(lambda: any(info.route == "pcm_socket" for info, _ in running.record.events))
        while len(answer) < len(pcm):  # what is said before the handshake is not heard
            writer.write(pcm[len(answer) : len(answer) + 2 * FRAME] or bytes(2 * FRAME))
            try:
                async with asyncio.timeout(0.2):
                    answer += await reader.readexactly(2 * FRAME)
            except TimeoutError:
                continue
    np.testing.assert_allclose(np.frombuffer(answer, "<i2")[: 2 * FRAME] / 32768, said[: 2 * FRAME], atol=1e-4)
    writer.close()
    assert [ended.reason for ended in await running.record.ended()] == ["left"]
    assert running.record.events[0][0].identity == Identity("sound-daemon")


ROUTE = """
import numpy as np
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from core import CallEnded, CallerSound, CallRequest, RefusedError, Transport, hookimpl


class Floats(Transport):
    def __init__(self, websocket):
        self.websocket = websocket

    async def receive(self):
        try:
            data = await self.websocket.receive_bytes()
        except WebSocketDisconnect:
            raise CallEnded("left") from None
        return CallerSound(np.frombuffer(data, np.float32).copy(), len(data))

    async def send_audio(self, sound):
        await self.websocket.send_bytes(sound.tobytes())

    async def close(self, ended):
        await self.websocket.close(4999, ended.message)


class Plugin:
    @hookimpl
    def startup(self, calls):
        self.calls = calls

    @hookimpl
    def register_routes(self):
        return [WebSocketRoute("/floats", self.answer)]

    async def answer(self, websocket):
        try:
            call = await self.calls.accept(websocket, CallRequest(persona=websocket.query_params.get("persona")))
        except RefusedError as refusal:
            await websocket.close(4000 + refusal.status, str(refusal))
            return
        await websocket.accept()
        await call.run(Floats(websocket))
"""


async def talk(url: str, said: Samples) -> Samples:
    """Say samples over the door `floats`, a frame at a time, each again until the first is answered."""
    answer: list[Samples] = []
    async with connect(url, proxy=None) as socket, asyncio.timeout(60):
        frames = said.reshape(-1, FRAME)
        while len(answer) < len(frames):
            await socket.send(frames[len(answer)].tobytes())
            try:
                async with asyncio.timeout(None if answer else 0.2):
                    answer.append(np.frombuffer(await socket.recv(), np.float32))  # type: ignore[arg-type]
            except TimeoutError:
                continue
    return np.concatenate(answer)


async def test_a_door_with_a_route_has_its_callers_authenticated(serve: Serve, tmp_path: Path) -> None:
    class Tickets:
        """Each is good for one use, so asking again would fail."""

        def __init__(self) -> None:
            self.left = {"one", "two"}

        @hookimpl
        def authenticate(self, connection: HTTPConnection) -> Identity | None:
            ticket = connection.query_params.get("ticket", "")
            if ticket not in self.left:
                return None
            self.left.remove(ticket)
            return Identity(ticket)

    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "floats.py").write_text(ROUTE)
    running = await serve(extra=(Tickets(),), **PLAIN)
    said = speech(0.16)
    np.testing.assert_array_equal(await talk(running.url("/floats?ticket=one"), said), said)
    await running.record.ended()
    info = running.record.events[0][0]
    assert (info.identity.name, info.route, info.address) == ("one", "/floats", "127.0.0.1")
    with pytest.raises(InvalidStatus, match="401"):
        async with connect(running.url("/floats?ticket=one"), proxy=None):
            pass
    with pytest.raises(InvalidStatus, match="403"):  # uvicorn's answer to a close before the accept
        async with connect(running.url("/floats?ticket=two&persona=nobody"), proxy=None):
            pass
    assert [event.route for event in running.record.service_events if isinstance(event, CallRefused)] == ["/floats"]


@pytest.mark.slow
async def test_a_door_with_a_route_takes_calls_in_every_worker(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "floats.py").write_text(ROUTE)
    async with several_processes(tmp_path) as service:
        said = speech(0.4)
        for other in ("worker 1", "worker 2"):
            with service.stopped(other):
                np.testing.assert_array_equal(await talk(service.url("/floats"), said), said)
