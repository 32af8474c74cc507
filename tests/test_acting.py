"""Plugins that act in a session: what they hear, what they can do, and what they cannot do to a call."""

import asyncio
import inspect
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import pytest
from starlette.requests import HTTPConnection

from core.engine.call import Frame
from core.errors import ControlError, SayError, SessionOverError
from core.events import (
    CallerText,
    HandlerFailed,
    Identity,
    SessionEnded,
    SessionEvent,
    SessionQueued,
    SessionStarted,
    TextSaid,
)
from core.plugin.acting import AgentText, Line, SessionControl, SessionHandler
from core.plugin.handlers import METHODS, MOST_MESSAGES
from core.plugin.hookspecs import hookimpl
from core.session.control import Control
from core.session.protocol import CloseCode
from core.testing import EchoEngine
from tests.caller import FRAME, PLAIN, Caller, dial, is_fine, refused
from tests.conftest import Running, Serve, speech

PATIENCE_S = 10
PCM = "/ws/chat?audio=pcm"


@dataclass
class Hearer:
    """A handler that keeps all that it hears, by method."""

    control: SessionControl
    heard: list[tuple[str, Any]] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def caller_frame(self, frame: Frame) -> None:
        self.heard.append(("caller_frame", frame))

    async def agent_frame(self, frame: Frame) -> None:
        self.heard.append(("agent_frame", frame))

    async def agent_text(self, text: AgentText) -> None:
        self.heard.append(("agent_text", text))

    async def caller_text(self, text: CallerText) -> None:
        self.heard.append(("caller_text", text))

    async def event(self, event: SessionEvent) -> None:
        self.heard.append(("event", event))

    async def message(self, type: str, data: Mapping[str, Any]) -> None:
        self.heard.append(("message", (type, data)))

    async def close(self, ended: SessionEnded) -> None:
        self.heard.append(("close", ended))
        self.closed.set()

    def of(self, method: str) -> list[Any]:
        return [what for name, what in self.heard if name == method]


class Hears:
    """A plugin whose handlers keep all that they hear."""

    def __init__(self) -> None:
        self.handlers: list[Hearer] = []

    @hookimpl
    def open_session(self, control: SessionControl) -> Hearer:
        self.handlers.append(Hearer(control))
        return self.handlers[-1]


class Opens:
    """A plugin whose `open_session` is a function of the test's."""

    def __init__(self, open_session: Callable[[SessionControl], Any]) -> None:
        self._open_session = open_session

    @hookimpl
    def open_session(self, control: SessionControl) -> Any:
        return self._open_session(control)


def control_of(running: Running, which: int = 0) -> SessionControl:
    """A control of one of the sessions so far, in the order in which they began."""
    return list(running.record.controls.values())[which]


async def until(condition: Callable[[], bool]) -> None:
    """Return when it holds: handlers are called beside the call."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - no event says that a handler has been called
            await asyncio.sleep(0.005)


async def says(caller: Caller, text: str) -> None:
    """Talk until the agent has said it."""
    async with asyncio.timeout(PATIENCE_S):
        while text not in "".join(caller.words):
            await caller.talk(speech(0.08))


# What a plugin can do


class Receptionist:
    """The plugin that the documentation shows."""

    def __init__(self, control: SessionControl) -> None:
        self._control = control

    async def caller_text(self, said: CallerText) -> None:
        if "human" in said.text:
            self._control.say("One moment, please.", interrupt=True)


async def test_an_agent_answers_what_the_caller_says_in_a_plugins_words(serve: Serve) -> None:
    hears = Hears()
    running = await serve(extra=(Opens(Receptionist), hears), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller, dial(running.url(PCM), "pcm") as other:
        await asyncio.gather(caller.shake_hands(), other.shake_hands())
        await caller.talk(speech(0.08))
        control_of(running).caller_said(" May I talk to a human? ", 0, 960.04)
        assert await caller.told("caller_text") == {
            "type": "caller_text",
            "text": "May I talk to a human?",
            "start_ms": 0.0,
            "end_ms": 960.0,
        }
        await says(caller, "One moment, please.")
        await until(lambda: bool(hears.handlers[0].of("caller_text")))
        await other.talk(speech(0.8))
        assert "".join(other.words) == " word0 word1"
    said = CallerText("May I talk to a human?", 0.0, 960.0)
    handler = hears.handlers[0]
    assert handler.of("caller_text") == [said]
    assert [event for info, event in running.record.events if isinstance(event, CallerText)] == [said]
    given = [piece for piece in handler.of("agent_text") if piece.given]
    assert "".join(piece.text for piece in given) == " One moment, please."
    assert {piece.end_ms - piece.start_ms for piece in given} == {80}
    lines = handler.control.transcript
    assert lines[0] == Line("caller", "May I talk to a human?", 0.0, 960.0) or lines[0].text.startswith("word0")
    assert {line.side for line in lines} == {"caller", "agent"}
    assert any("One moment, please." in line.text for line in lines)
    assert hears.handlers[1].control.transcript[0].text == "word0 word1"


async def test_what_is_said_before_the_handshake_comes_first(serve: Serve) -> None:
    def open_session(control: SessionControl) -> None:
        control.say("Never heard.")
        control.hush()
        control.say("Never heard either.")
        control.say("Good morning.", interrupt=True)
        control.say("How are you?")

    running = await serve(extra=(Opens(open_session),), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await caller.shake_hands()
        await says(caller, " word1")
    assert "".join(caller.words) == " Good morning. How are you? word1"


async def test_hush_ends_what_is_being_said(serve: Serve) -> None:
    running = await serve(extra=(Opens(lambda control: control.say("one two three four five six")),), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await caller.shake_hands()
        await caller.talk(speech(0.16))
        control_of(running).hush()
        await caller.talk(speech(0.4))
        assert "".join(caller.words) == " one two"


async def test_a_muted_agent_is_silent_to_the_caller_and_heard_by_plugins(serve: Serve) -> None:
    hears = Hears()
    running = await serve(extra=(hears,), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await caller.shake_hands()
        said = speech(0.4)
        assert np.abs(await caller.talk(said)).max() > 0.1
        control = control_of(running)
        control.mute("agent", True)
        assert not (await caller.talk(said)).any()
        control.mute("agent", False)
        assert np.abs(await caller.talk(said)).max() > 0.1
        [handler] = hears.handlers
        await until(lambda: len(handler.of("agent_frame")) == 15)
    assert "".join(caller.words) == " word0 word2"
    assert [piece.text for piece in handler.of("agent_text")] == [" word0", " word1", " word2"]
    assert [event.text for event in running.record.of(TextSaid)] == [" word0", " word2"]
    assert control.transcript == (Line("agent", "word0 word2", 0, 880),)
    assert [bool(frame.any()) for frame in handler.of("agent_frame")] == [True] * 5 + [False] * 5 + [True] * 5


async def test_a_muted_caller_is_silent_to_the_agent_until_nobody_mutes(serve: Serve) -> None:
    hears = Hears()
    running = await serve(extra=(hears,), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await caller.shake_hands()
        said = speech(0.16)
        [handler] = hears.handlers
        for control in (handler.control, control_of(running)):
            control.mute("caller", True)
            control.mute("caller", True)
        assert not (await caller.talk(said)).any()
        handler.control.mute("caller", False)
        assert not (await caller.talk(said)).any()
        control_of(running).mute("caller", False)
        np.testing.assert_allclose(await caller.talk(said), said, atol=1e-4)
        await until(lambda: len(handler.of("caller_frame")) == 6)
    assert [bool(frame.any()) for frame in handler.of("caller_frame")] == [False] * 4 + [True] * 2


async def test_handlers_hear_what_the_engine_gets_and_what_is_sent(serve: Serve) -> None:
    class Louder:
        @hookimpl
        def transform_input(self) -> "Louder":
            return self

        @hookimpl
        def transform_output(self) -> "Louder":
            return self

        def process(self, frame: Frame) -> Frame:
            return frame * np.float32(2)

    hears = Hears()
    running = await serve(extra=(hears, Louder()), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await caller.shake_hands()
        said = speech(0.4) / np.float32(10)
        await caller.talk(said)
        [handler] = hears.handlers
        await until(lambda: len(handler.of("agent_frame")) == 5)
    np.testing.assert_allclose(np.concatenate(handler.of("caller_frame")), said * 2, atol=1e-4)
    np.testing.assert_allclose(np.concatenate(handler.of("agent_frame")), said * 4, atol=1e-4)
    assert not handler.of("caller_frame")[0].flags.writeable


async def test_a_plugin_and_its_client_talk_by_messages_of_its_name(serve: Serve) -> None:
    hears = Hears()
    running = await serve(extra=(hears,), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller, dial(running.url("/api/chat"), "opus") as other:
        await asyncio.gather(caller.shake_hands(), other.shake_hands())
        mine, theirs = hears.handlers
        if mine.control.info.route != "/ws/chat":
            mine, theirs = theirs, mine
        theirs.control.tell("progress", done=1)  # who knows no METADATA gets none
        mine.control.tell("progress", done=0.5, steps=["a", {"ü": None}])
        told = await caller.told("Hears.progress")
        assert told == {"type": "Hears.progress", "done": 0.5, "steps": ["a", {"ü": None}]}
        for sent in (
            b'{"type":"Hears.pressed","button":3}',
            b'{"type":"Nobody.pressed"}',
            b'{"type":"pressed"}',
            b'{"type":7}',
            b"[]",
            b'{"type":"Hears.","x":1}',
        ):
            await caller.socket.send(b"\x04" + sent)
        await other.socket.send(b'\x04{"type":"Hears.pressed"}')
        await until(lambda: len(mine.of("message")) == 2)
        await caller.talk(speech(0.08))
    assert mine.of("message") == [("pressed", {"button": 3}), ("", {"x": 1})]
    assert not theirs.of("message")
    assert all(metadata["type"] in ("preparing", "ready", "stats", "Hears.progress") for metadata in caller.metadata)


async def test_a_plugin_ends_a_call_with_a_sentence(serve: Serve) -> None:
    hears = Hears()
    running = await serve(extra=(hears,), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await caller.shake_hands()
        hears.handlers[0].control.end("account-empty", " Your account is empty. ")
        hears.handlers[0].control.end("later", "This comes too late.")
        assert await caller.end() == CloseCode.PLUGIN
        assert caller.error == "Your account is empty."
    [ended] = await running.record.ended()
    assert (ended.reason, ended.code, ended.detail) == ("plugin", 4010, "Hears: account-empty")
    assert not ended.error


async def test_a_plugin_ends_a_call_before_it_begins(serve: Serve) -> None:
    engine = EchoEngine()
    engine.prompts.clear()
    running = await serve(engine, extra=(Opens(lambda control: control.end("closed", "We are closed.")),), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        assert await caller.end() == CloseCode.PLUGIN
    assert caller.error == "We are closed."
    assert not engine.calls


async def test_each_session_has_a_control_a_handler_and_a_state_of_its_own(serve: Serve) -> None:
    hears = Hears()
    running = await serve(extra=(hears,), **PLAIN)
    async with dial(running.url(PCM + "&persona=teacher"), "pcm") as first, dial(running.url(PCM), "pcm") as second:
        await asyncio.gather(first.shake_hands(), second.shake_hands())
        handlers = {handler.control.persona.id: handler for handler in hears.handlers}
        teacher, assistant = handlers["teacher"], handlers["assistant"]
        assert teacher.control.persona.prompt == "You teach."
        teacher.control.state["asked"] = 1
        assert assistant.control.state == {}
        teacher.control.say("Only here.")
        teacher.control.mute("caller", True)
        await says(first, "Only here.")
        assert (await second.talk(speech(0.4))).any()
        assert "Only" not in "".join(second.words)
        await first.socket.close()
        await teacher.closed.wait()
        assert (await second.talk(speech(0.16))).any()
    assert teacher.control.state == {}
    await until(lambda: assistant.closed.is_set())
    for handler in hears.handlers:
        methods = [name for name, _ in handler.heard]
        assert methods.count("close") == 1
        assert methods[-1] == "close"
        assert isinstance(handler.of("event")[-1], SessionEnded)
        assert handler.of("close") == handler.of("event")[-1:]
        assert {type(event) for event in handler.of("event")} >= {SessionStarted, SessionEnded}


async def test_a_control_may_be_used_from_any_thread(serve: Serve) -> None:
    errors: list[SayError] = []

    class InThreads(SessionHandler):
        def __init__(self, control: SessionControl) -> None:
            self.control = control

        def caller_text(self, text: CallerText) -> None:
            assert threading.current_thread() is not threading.main_thread()
            self.control.say("From a thread.")
            self.control.tell("heard", text=text.text, lines=len(self.control.transcript))
            try:
                self.control.say(" ")
            except SayError as error:
                errors.append(error)
            self.control.mute("caller", False)

    running = await serve(extra=(Opens(InThreads),), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await caller.shake_hands()
        control = control_of(running)
        await asyncio.to_thread(control.caller_said, "Hello.", 0, 80)
        assert (await caller.told("Opens.heard"))["text"] == "Hello."
        await says(caller, "From a thread.")
    assert [str(error) for error in errors] == ["A sentence to be said is empty."]
    await running.record.ended()
    with pytest.raises(SayError, match="over"):
        await asyncio.to_thread(control.say, "Hello?")


# What a plugin cannot do


async def test_say_is_refused_with_a_sentence_and_the_caller_hears_nothing_of_it(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=1), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await caller.shake_hands()
        control = control_of(running)
        wrong: tuple[Any, ...] = ("", " \n", "x" * 1001, "half \ud800", "bell \x07", None, b"bytes", 7)
        for text in wrong:
            with pytest.raises(SayError, match="A sentence to be said"):
                control.say(text)
        async with dial(running.url(PCM), "pcm") as waiting:
            assert (await waiting.told("queued"))["place"] == 1
            with pytest.raises(SayError, match="waits in the queue"):
                control_of(running, 1).say("Please wait.")
        for number in range(16):
            control.say(f"Sentence {number}.")
        with pytest.raises(SayError, match="16 sentences are waiting"):
            control.say("One more.")
        await says(caller, " Sentence 0.")


async def test_a_control_that_is_kept_says_that_the_session_is_over(serve: Serve) -> None:
    hears = Hears()
    running = await serve(extra=(hears,), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await caller.shake_hands()
        await caller.talk(speech(0.08))
    await hears.handlers[0].closed.wait()
    control = hears.handlers[0].control
    with pytest.raises(SayError, match="The session is over"):
        control.say("Hello?")
    acts: list[Callable[[], None]] = [
        control.hush,
        lambda: control.mute("agent", True),
        lambda: control.tell("late"),
        lambda: control.end("late", "Too late."),
        lambda: control.caller_said("Hello?", 0, 80),
    ]
    for act in acts:
        with pytest.raises(SessionOverError, match="The session is over"):
            act()
    assert control.transcript == (Line("agent", "word0", 0, 80),)
    assert len(running.record.of(SessionEnded)) == 1
    assert not running.record.of(CallerText)


WRONG: dict[str, Callable[[Any], None]] = {
    "mute nobody": lambda control: control.mute("both", True),
    "tell with capitals": lambda control: control.tell("Progress"),
    "tell another's": lambda control: control.tell("other.progress"),
    "tell nothing": lambda control: control.tell(""),
    "tell no word": lambda control: control.tell(7),
    "tell a type twice": lambda control: control.tell("x", type="y"),
    "tell what is no JSON": lambda control: control.tell("x", what=object()),
    "tell half a character": lambda control: control.tell("x", what="\ud800"),
    "tell a circle": lambda control: control.tell("x", what=circle()),
    "tell too much": lambda control: control.tell("x", what="y" * 20_000),
    "end without a word": lambda control: control.end("", "Sorry."),
    "end with a sentence for a word": lambda control: control.end("I am tired.", "Sorry."),
    "end without a sentence": lambda control: control.end("tired", " "),
    "end with too long a sentence": lambda control: control.end("tired", "x" * 501),
    "end with half a character": lambda control: control.end("tired", "\udc00"),
    "nobody said": lambda control: control.caller_said("", 0, 1),
    "half a character said": lambda control: control.caller_said("\ud800", 0, 1),
    "too much said": lambda control: control.caller_said("x" * 2001, 0, 1),
    "said backwards": lambda control: control.caller_said("x", 2, 1),
    "said before the call": lambda control: control.caller_said("x", -1, 1),
    "said for ever": lambda control: control.caller_said("x", 0, float("inf")),
    "said at no time": lambda control: control.caller_said("x", float("nan"), 1),
    "said at a word": lambda control: control.caller_said("x", "soon", 1),
}


def circle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


async def test_what_is_wrong_is_refused_with_a_sentence_and_changes_nothing(serve: Serve) -> None:
    running = await serve(**PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await caller.shake_hands()
        for what, act in WRONG.items():
            with pytest.raises(ControlError) as error:
                act(control_of(running))
            assert re.match(r"[A-Z].* .*", str(error.value)), what
        assert (await caller.talk(speech(0.16))).any()
        assert {metadata["type"] for metadata in caller.metadata} <= {"preparing", "ready", "stats"}


async def test_a_thousand_messages_a_second_are_too_many(serve: Serve) -> None:
    running = await serve(**PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await caller.shake_hands()
        control = control_of(running)
        refused, said = 0, set[str]()
        for number in range(1000):
            try:
                control.tell("count", number=number)
            except ControlError as error:
                said.add(str(error))
                refused += 1
        assert said == {"More than 50 messages a second to one client: put more into each."}
        assert refused >= 850
        assert (await caller.talk(speech(0.16))).any()
        told = [metadata["number"] for metadata in caller.metadata if metadata["type"] == "EventRecorder.count"]
        assert told[:100] == list(range(100))

        def may_tell() -> bool:
            try:
                control.tell("again")
            except ControlError:
                return False
            return True

        await until(may_tell)
        await caller.told("EventRecorder.again")


class Panic(BaseException):
    """Like a Rust panic, it is no Exception."""


def raises(error: BaseException) -> NoReturn:
    raise error


def hangs() -> None:
    threading.Event().wait(60)


async def hangs_on_the_loop() -> None:
    await asyncio.Event().wait()


def generates() -> Any:
    yield 1


class Method:
    """A handler with one method that is bad, and the plain or `async` function that it is."""

    def __init__(self, agent_text: Any) -> None:
        self.agent_text = agent_text


class Mutates:
    def caller_frame(self, frame: Frame) -> None:
        frame[:] = 0


FAILING: dict[str, tuple[Callable[[SessionControl], Any], str]] = {
    "raises": (lambda _: Method(lambda _text: raises(ValueError("word0 is secret"))), "agent_text raised ValueError"),
    "panics": (lambda _: Method(lambda _text: raises(Panic())), "agent_text raised Panic"),
    "exits": (lambda _: Method(lambda _text: raises(SystemExit(1))), "agent_text raised SystemExit"),
    "takes nothing": (lambda _: Method(lambda: None), "agent_text raised TypeError"),
    "never returns": (lambda _: Method(lambda _text: hangs()), "agent_text has not returned"),
    "never returns, async": (lambda _: Method(lambda _text: hangs_on_the_loop()), "agent_text has not returned"),
    "is a generator": (lambda _: Method(lambda _text: generates()), "agent_text is a generator"),
    "is no function": (lambda _: Method(7), "agent_text is int, not a function"),
    "changes a frame": (lambda _: Mutates(), "caller_frame raised ValueError"),
    "is no handler": (lambda _: "a handler", "open_session returned str"),
    "cannot be opened": (lambda _: raises(RuntimeError("x")), "open_session raised RuntimeError"),
    "is async": (lambda _: hangs_on_the_loop(), "open_session raised TypeError"),
}


@pytest.mark.parametrize("kind", FAILING)
async def test_a_handler_that_fails_loses_itself_and_not_the_call(
    serve: Serve, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("core.plugin.handlers.LIMIT_S", 0.3)
    make, reason = FAILING[kind]
    hears = Hears()
    running = await serve(extra=(Opens(make), hears), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await caller.shake_hands()
        said = speech(0.4)
        np.testing.assert_allclose(await caller.talk(said), said, atol=1e-4)
        await running.record.until(lambda: bool(running.record.of(HandlerFailed)))
        np.testing.assert_allclose(await caller.talk(said), said, atol=1e-4)
        await until(lambda: len(hears.handlers[0].of("agent_frame")) == 10)
        assert len(hears.handlers[0].of("agent_text")) == 2
    await hears.handlers[0].closed.wait()
    [failure] = running.record.of(HandlerFailed)
    assert failure.plugin == "Opens"
    assert failure.reason.startswith(reason)
    assert "secret" not in caplog.text
    assert [ended.reason for ended in await running.record.ended()] == ["left"]


async def test_a_handler_that_falls_behind_is_left_out_and_what_it_muted_is_heard(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.plugin.handlers.MOST_WAITING", 5)
    opened = threading.Event()

    class Slow:
        def __init__(self, control: SessionControl) -> None:
            control.mute("agent", True)

        def agent_frame(self, _frame: Frame) -> None:
            opened.wait(60)

    running = await serve(extra=(Opens(Slow),), **PLAIN)
    try:
        async with dial(running.url(PCM), "pcm") as caller:
            await caller.shake_hands()
            heard = await caller.talk(speech(0.8))
            assert not heard[: 5 * FRAME].any()
            [failure] = running.record.of(HandlerFailed)
            assert "fell behind" in failure.reason
            assert (await caller.talk(speech(0.16))).any()
    finally:
        opened.set()


async def test_a_handler_that_is_left_out_is_closed_at_the_end_all_the_same(serve: Serve) -> None:
    began: list[asyncio.Task[None]] = []
    heard: list[str] = []

    class Works:
        async def message(self, type: str, _data: Mapping[str, Any]) -> None:
            heard.append(type)
            began.append(asyncio.create_task(hangs_on_the_loop()))
            raise RuntimeError("x")

        async def close(self, ended: SessionEnded) -> None:
            heard.append(ended.reason)
            began[0].cancel()
            raise RuntimeError("y")

    running = await serve(extra=(Opens(lambda _: Works()),), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await caller.shake_hands()
        await caller.socket.send(b'\x04{"type":"Opens.first"}')
        await running.record.until(lambda: bool(running.record.of(HandlerFailed)))
        await caller.socket.send(b'\x04{"type":"Opens.second"}')
        await caller.talk(speech(0.16))
    await until(lambda: not running.service._sessions)
    assert heard == ["first", "left"]
    await asyncio.wait(began)
    assert [failure.reason.split(" (")[0] for failure in running.record.of(HandlerFailed)] == [
        "message raised RuntimeError"
    ]


def swallows() -> None:
    pass


@pytest.mark.parametrize("then", [swallows, lambda: raises(RuntimeError("x"))])
async def test_a_handler_that_catches_the_cancellation_does_not_hold_up_the_end(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, then: Callable[[], None]
) -> None:
    monkeypatch.setattr("core.plugin.handlers.MOST_WAITING", 5)
    monkeypatch.setattr("core.plugin.handlers.CLOSE_S", 60)

    class Stubborn:
        async def agent_frame(self, _frame: Frame) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                then()

    running = await serve(extra=(Opens(lambda _: Stubborn()),), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await caller.shake_hands()
        await caller.talk(speech(0.8))
    await until(lambda: not running.service._sessions)
    [failure] = running.record.of(HandlerFailed)
    assert "fell behind" in failure.reason


async def test_a_client_that_floods_a_plugin_loses_its_call_and_not_the_handler(serve: Serve) -> None:
    released = asyncio.Event()
    heard: list[str] = []

    class Slow:
        async def message(self, type: str, _data: Mapping[str, Any]) -> None:
            heard.append(type)
            await released.wait()

    running = await serve(extra=(Opens(lambda _: Slow()),), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await caller.shake_hands()
        for _ in range(MOST_MESSAGES):
            await caller.socket.send(b'\x04{"type":"Opens.x"}')
        await caller.talk(speech(0.16))  # so many are taken
        for _ in range(2):
            await caller.socket.send(b'\x04{"type":"Opens.x"}')
        assert await caller.end() == CloseCode.TOO_FAST
        assert "Send fewer" in caller.error
    released.set()
    await until(lambda: len(heard) == MOST_MESSAGES + 1)
    assert [ended.reason for ended in await running.record.ended()] == ["too_fast"]
    assert not running.record.of(HandlerFailed)


async def test_nothing_happens_in_a_session_after_its_end(serve: Serve) -> None:
    class Late:
        @hookimpl
        def open_session(self, control: SessionControl) -> None:
            self.control = control

        @hookimpl
        def session_event(self, event: SessionEvent) -> None:
            if isinstance(event, SessionEnded):
                self.control.caller_said("Wait!", 0, 80)

    running = await serve(extra=(Late(),), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await caller.shake_hands()
    await until(lambda: not running.service._sessions)
    assert isinstance(running.record.events[-1][1], SessionEnded)
    assert not running.record.of(CallerText)


async def test_a_handler_that_does_not_close_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.plugin.handlers.CLOSE_S", 0.2)
    began = asyncio.Event()

    class Lingers:
        async def close(self, _ended: SessionEnded) -> None:
            began.set()
            await asyncio.Event().wait()

    hears = Hears()
    running = await serve(extra=(Opens(lambda _: Lingers()), hears), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await caller.shake_hands()
    await began.wait()
    await hears.handlers[0].closed.wait()
    await until(lambda: not running.service._sessions)
    assert len(running.record.of(SessionEnded)) == 1
    assert isinstance(running.record.events[-1][1], SessionEnded)
    await is_fine(running)
    await until(lambda: not running.service._sessions)


async def test_a_handler_hears_of_the_queue_and_of_a_caller_who_leaves_it(serve: Serve) -> None:
    hears = Hears()
    running = await serve(EchoEngine(slots=1), extra=(hears,), **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await caller.shake_hands()
        async with dial(running.url(PCM), "pcm") as waiting:
            await waiting.told("queued")
        handler = hears.handlers[1]
        await handler.closed.wait()
        assert [type(event) for event in handler.of("event")] == [SessionQueued, SessionEnded]
        assert handler.of("close")[0].reason == "left"


async def test_a_caller_who_is_refused_opens_no_session(serve: Serve) -> None:
    class Locked:
        @hookimpl
        def authenticate(self, connection: HTTPConnection) -> Identity | None:
            return None

    hears = Hears()
    running = await serve(extra=(hears, Locked()), **PLAIN)
    assert (await refused(running, PCM))[0] == 401
    assert not hears.handlers
    assert not running.record.controls


def test_every_method_of_the_control_and_the_handler_is_there() -> None:
    """The classes that do it, and the one that documents it."""

    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(SessionControl) <= public(Control)
    assert public(SessionHandler) == set(METHODS)
    for name in public(SessionControl):
        wanted = inspect.getattr_static(SessionControl, name)
        if inspect.isfunction(wanted):
            assert str(inspect.signature(wanted)) == str(inspect.signature(getattr(Control, name))), name
