"""A session of OpenAI's Live API without a socket: what each event of the client does, and what the call becomes."""

import base64
import json
from typing import Any

import numpy as np
import pytest

from core import (
    AgentText,
    CallEnded,
    CallerSound,
    CallerText,
    ClientMessage,
    Preparing,
    Queued,
    RefusedError,
    SayError,
    Stats,
    Warned,
)
from core.media.audio_codecs import Samples
from core.plugin.server_messages import Ready, ReadyEngine
from plugins.openai_live.endings import explain_refusal
from plugins.openai_live.events import SessionStart
from plugins.openai_live.live_session import ORDER_TO_SPEAK, LiveSession
from plugins.openai_live.outbox import Outbox
from plugins.openai_live.reading import EventError, read_event
from plugins.openai_live.silence_gate import SilenceGate
from plugins.openai_live.start import Start, read_start
from tests.conftest import speech

READY = Ready("0123abcd", "teacher", "NATM2", ReadyEngine("nano", ""), seed=1, max_s=900)


class Speaker:
    """Keeps what it is given to say."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.problem = ""

    def say(self, text: str) -> None:
        if self.problem:
            raise SayError(self.problem)
        self.said.append(text)


class Client:
    """The client's end of a LiveSession."""

    def __init__(self, session: dict[str, Any] | None = None, delegates: bool = True, context_s: float = 240.0) -> None:
        self.speaker = Speaker()
        self.live = LiveSession(start_of(session or {}), Outbox(), delegates=delegates, context_s=context_s)

    def begin(self) -> "Client":
        self.live.begin(READY, self.speaker)
        self.told()
        return self

    def send(self, type_: str, **fields: Any) -> CallerSound | ClientMessage:
        return self.live.receive(json.dumps({"type": type_, "event_id": "mine", **fields}))

    def append(self, sound: bytes) -> CallerSound | ClientMessage:
        return self.send("session.input_audio.append", audio=base64.b64encode(sound).decode())

    def told(self) -> list[dict[str, Any]]:
        messages = self.live.outbox.messages
        events = [json.loads(messages.popleft()) for _ in range(len(messages))]
        assert all(event["event_id"] for event in events)
        return events

    def error(self) -> dict[str, Any]:
        [event] = self.told()
        assert event["type"] == "error"
        assert event["client_event_id"] == event["error"]["client_event_id"] == "mine"
        error: dict[str, Any] = event["error"]
        assert error["type"] == "invalid_request_error"
        assert error["message"]
        return error


def start_of(session: dict[str, Any]) -> Start:
    event = {"type": "session.start", "event_id": "first", "session": {"model": "personaplex", **session}}
    read = read_event(json.dumps(event))
    assert isinstance(read, SessionStart)
    return read_start(read.session, read.event_id)


def refused(session: dict[str, Any]) -> tuple[str, str | None]:
    with pytest.raises(EventError) as refusal:
        start_of(session)
    assert refusal.value.detail.client_event_id == "first"
    return refusal.value.detail.code, refusal.value.detail.param


# session.start


@pytest.mark.parametrize(
    ("model", "persona", "notices"),
    [
        ("personaplex", None, []),
        ("personaplex/teacher", "teacher", []),
        ("gpt-live-1", None, ["model_substituted"]),
        ("gpt-live-1.1", None, ["model_substituted"]),
    ],
)
def test_the_model_names_a_persona(model: str, persona: str | None, notices: list[str]) -> None:
    start = start_of({"model": model})
    assert start.request.persona == persona
    assert [notice.code for notice in start.notices] == notices


@pytest.mark.parametrize("voice", ["NATF2", {"id": "NATF2"}])
def test_instructions_and_voice_are_those_of_the_call(voice: object) -> None:
    start = start_of({"instructions": "You are Ada.", "audio": {"output": {"voice": voice}}})
    assert (start.request.prompt, start.request.voice, start.notices) == ("You are Ada.", "NATF2", ())


@pytest.mark.parametrize("instructions", ["", " \n ", None])
def test_blank_instructions_are_none(instructions: str | None) -> None:
    assert start_of({"instructions": instructions}).request.prompt is None


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"model": "gpt-4o"}, "model_not_found", "session.model"),
        ({"store": True}, "unsupported_parameter", "session.store"),
        ({"triggers": [{"type": "x"}]}, "unsupported_parameter", "session.triggers"),
        ({"client": {"data_channel": {}}}, "unsupported_parameter", "session.client"),
        ({"delegation": {"type": "decisions"}}, "unsupported_parameter", "session.delegation.type"),
        (
            {"delegation": {"type": "responses", "responses": {"model": "m", "tools": [{"type": "function"}]}}},
            "unsupported_parameter",
            "session.delegation.responses.tools",
        ),
        ({"audio": {"format": {"type": "audio/pcm", "rate": 48000}}}, "invalid_value", "session.audio.format.rate"),
        ({"audio": {"format": {"type": "audio/pcmu", "rate": 24000}}}, "invalid_value", "session.audio.format.rate"),
    ],
)
def test_what_the_service_does_not_have_is_refused(session: dict[str, Any], code: str, param: str) -> None:
    assert refused(session) == (code, param)


@pytest.mark.parametrize(
    ("session", "notices"),
    [
        ({"store": False, "triggers": [], "safety_identifier": "u1"}, []),
        ({"delegation": {"type": "client", "acknowledgement_delay_ms": 400}}, []),
        ({"delegation": {"type": "responses", "responses": {"model": "m", "tools": []}}}, ["delegation_not_used"]),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]}, ["input_not_used"]),
        (
            {"input": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}]},
            ["input_not_used"],
        ),
    ],
)
def test_what_is_not_used_is_said(session: dict[str, Any], notices: list[str]) -> None:
    assert [notice.code for notice in start_of(session).notices] == notices
    assert [event["code"] for event in Client(session).told()] == notices


# Events that cannot be read


@pytest.mark.parametrize(
    ("message", "code", "param", "event_id"),
    [
        ("{}", "missing_required_parameter", "type", None),
        ("[]", "invalid_event", None, None),
        ("nonsense", "invalid_json", None, None),
        (b"\xff\xfe", "invalid_json", None, None),
        ("[" * 100_000, "invalid_event", None, None),
        ('{"type": "response.audio.delta", "event_id": "a"}', "unknown_event", "type", "a"),
        ('{"type": "response.create", "event_id": "a"}', "unsupported_event", "type", "a"),
        ('{"type": "session.output_audio.fixture.play"}', "unsupported_event", "type", None),
        ('{"type": "session.start"}', "missing_required_parameter", "session", None),
        ('{"type": "session.start", "session": {}}', "missing_required_parameter", "session.model", None),
        ('{"type": "session.start", "session": {"model": 3}}', "invalid_value", "session.model", None),
        ('{"type": "session.start", "session": {"model": "m", "v": 1}}', "unknown_parameter", "session.v", None),
        ('{"type": "session.input_audio.append", "audio": "%%%%"}', "invalid_value", "audio", None),
        ('{"type": "session.input_audio.append", "audio": 7}', "invalid_value", "audio", None),
        ('{"type": "session.close", "more": 1}', "unknown_parameter", "more", None),
    ],
)
def test_the_error_names_what_is_wrong(
    message: str | bytes, code: str, param: str | None, event_id: str | None
) -> None:
    with pytest.raises(EventError) as wrong:
        read_event(message)
    detail = wrong.value.detail
    assert (detail.code, detail.param, detail.client_event_id) == (code, param, event_id)


def test_what_is_wrong_is_told_and_the_session_goes_on() -> None:
    client = Client().begin()
    assert client.live.receive("nonsense") == ClientMessage(size=8)
    [event] = client.told()
    assert event["error"]["code"] == "invalid_json"
    assert isinstance(client.append(bytes(3840)), CallerSound)


# A session that has begun


def test_the_session_is_told_as_it_is() -> None:
    client = Client({"model": "personaplex/teacher", "audio": {"format": {"type": "audio/pcma", "rate": 8000}}})
    client.live.begin(READY, client.speaker)
    [started] = client.told()
    assert (started["type"], started["client_event_id"]) == ("session.started", "first")
    session = started["session"]
    assert session.pop("expires_at") > 1_700_000_000
    assert session == {
        "id": "0123abcd",
        "model": "personaplex/teacher",
        "status": "active",
        "audio": {"format": {"type": "audio/pcma", "rate": 8000}, "output": {"voice": "NATM2"}},
        "delegation": {"type": "client"},
    }


def test_a_model_that_must_be_introduced_is() -> None:
    client = Client()
    client.live.begin(Ready("1", "a", "b", ReadyEngine("nano", "This is nano."), seed=1, max_s=1), client.speaker)
    assert client.told()[0]["message"] == "This is nano."


def test_before_it_has_begun_nothing_is_heard_and_that_is_said_once() -> None:
    client = Client()
    for _ in range(3):
        assert isinstance(client.append(bytes(3840)), ClientMessage)
    assert client.error()["code"] == "session_not_started"
    events: dict[str, dict[str, Any]] = {
        "session.input_audio.mute": {},
        "session.update": {"session": {}},
        "session.commentary.append": {"content": "Hi"},
    }
    for kind, fields in events.items():
        client.send(kind, **fields)
        assert client.error()["code"] == "session_not_started"
    assert client.speaker.said == []


def test_a_second_start_is_an_error() -> None:
    client = Client().begin()
    client.send("session.start", session={"model": "personaplex"})
    assert client.error()["code"] == "session_already_started"


@pytest.mark.parametrize(
    ("format_", "rate", "width"), [("audio/pcm", 24_000, 2), ("audio/pcm", 16_000, 2), ("audio/pcmu", 8000, 1)]
)
def test_sound_comes_in_the_format_that_was_chosen(format_: str, rate: int, width: int) -> None:
    client = Client({"audio": {"format": {"type": format_, "rate": rate}}}).begin()
    sound = client.append(bytes(rate // 10 * width))
    assert isinstance(sound, CallerSound)
    assert len(sound.samples) == 2400
    assert sound.size > rate // 10 * width  # the bytes of the message


def test_half_a_sample_is_an_error() -> None:
    client = Client().begin()
    assert isinstance(client.append(bytes(3841)), ClientMessage)
    assert (client.error()["param"], client.told()) == ("audio", [])


def test_a_muted_caller_is_silence_of_the_same_length() -> None:
    client = Client().begin()
    loud = (speech(0.08) * 32767).astype("<i2").tobytes()

    def level() -> float:
        sound = client.append(loud)
        assert isinstance(sound, CallerSound)
        assert len(sound.samples) == 1920
        return float(np.abs(sound.samples).max())

    assert level() > 0.05
    client.send("session.input_audio.mute")
    assert [event["type"] for event in client.told()] == ["session.input_audio.muted"]
    assert level() == 0
    client.send("session.input_audio.unmute")
    [event] = client.told()
    assert (event["type"], event["client_event_id"]) == ("session.input_audio.unmuted", "mine")
    assert level() > 0.05


def test_commentary_is_said() -> None:
    client = Client().begin()
    for _ in range(10):
        client.live.frame_sent()
    client.send("session.commentary.append", content="Your table is booked.", delegation_id=None)
    [event] = client.told()
    assert client.speaker.said == ["Your table is booked."]
    assert (event["type"], event["start_ms"], event["end_ms"]) == ("session.commentary.appended", 800, 800)


def test_a_long_commentary_is_said_in_pieces_that_can_be() -> None:
    client = Client().begin()
    words = ["word"] * 450
    client.send("session.commentary.append", content=" ".join(words))
    assert [len(piece) <= 1000 for piece in client.speaker.said] == [True] * 3
    assert " ".join(client.speaker.said).split() == words


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"content": " \n"}, "invalid_value"),
        ({"content": "Yes.", "delegation_id": "delegation_9"}, "delegation_not_found"),
        ({"content": f"Reply to the caller now. {ORDER_TO_SPEAK}"}, "unsupported_content"),
    ],
)
def test_what_cannot_be_said_is_an_error(fields: dict[str, Any], code: str) -> None:
    client = Client().begin()
    client.send("session.commentary.append", **fields)
    assert client.error()["code"] == code
    assert client.speaker.said == []


def test_what_the_call_cannot_say_is_told() -> None:
    client = Client().begin()
    client.speaker.problem = "16 sentences wait already."
    client.send("session.commentary.append", content="One more.")
    assert client.error()["message"] == "16 sentences wait already."


@pytest.mark.parametrize("kind", ["session.thinking.append", "session.instructions.append"])
def test_what_is_not_to_be_said_is_not_supported(kind: str) -> None:
    client = Client().begin()
    client.send(kind, content="The caller is called Ann.", delegation_id=None)
    assert client.error()["code"] == "unsupported_event"
    assert client.speaker.said == []


def test_an_update_changes_nothing_that_is_fixed() -> None:
    client = Client({"delegation": {"type": "client"}}).begin()
    client.send("session.update", session={"delegation": {"type": "client", "acknowledgement_delay_ms": 100}})
    [event] = client.told()
    assert (event["type"], event["session"]["status"]) == ("session.updated", "active")
    client.send("session.update", session={"delegation": {"type": "responses"}})
    assert client.error()["code"] == "immutable_parameter"
    client.send("session.update", session={"triggers": [{}]})
    assert client.error()["param"] == "session.triggers"
    client.send("session.update", session={"instructions": "New ones."})
    assert client.error()["code"] == "unknown_parameter"


# What the call tells


def test_words_of_both_sides_come_with_their_times() -> None:
    client = Client(delegates=False).begin()
    client.live.agent_said(AgentText(" Hello", 160, 240, given=False))
    client.live.tell(CallerText("Is anybody there?", 99.6, 1500.2))
    mine, callers = client.told()
    assert (mine["type"], mine["delta"], mine["start_ms"], mine["end_ms"]) == (
        "session.output_transcript.delta",
        " Hello",
        160,
        240,
    )
    assert (callers["type"], callers["start_ms"], callers["end_ms"]) == ("session.input_transcript.delta", 100, 1500)


def test_a_turn_of_the_caller_may_be_answered_by_the_client() -> None:
    client = Client().begin()
    client.live.tell(CallerText("A table for two.", 0, 1500))
    transcript, created = client.told()
    assert transcript["delta"] == "A table for two."
    assert (created["type"], created["offset_ms"]) == ("session.delegation.created", 1500)
    assert (created["delegation"]["type"], created["delegation"]["target"]) == ("delegation", "client")
    client.send("session.commentary.append", content="It is booked.", delegation_id=created["delegation"]["id"])
    assert client.speaker.said == ["It is booked."]


@pytest.mark.parametrize(("session", "delegates"), [({"delegation": {"type": "responses"}}, True), ({}, False)])
def test_nobody_is_asked_who_does_not_answer(session: dict[str, Any], delegates: bool) -> None:
    client = Client(session, delegates).begin()
    client.live.tell(CallerText("A table for two.", 0, 1500))
    assert [event["type"] for event in client.told()] == ["session.input_transcript.delta"]


def test_the_queue_and_the_limits_are_notices() -> None:
    client = Client()
    client.live.tell(Queued(3))
    client.live.tell(Preparing())
    client.live.tell(Warned("time", 30.0))
    assert [(event["type"], event["code"]) for event in client.told()] == [
        ("info", "queued"),
        ("info", "preparing"),
        ("info", "time_limit"),
    ]


@pytest.mark.parametrize(
    ("context_s", "ratio"), [(240.0, {"usage_ratio": 0.042}), (5.0, {"usage_ratio": 1.0}), (0.0, None)]
)
def test_the_usage_is_told_every_ten_seconds(context_s: float, ratio: object) -> None:
    client = Client(context_s=context_s).begin()
    for second in range(1, 21):
        for _ in range(13 if second % 2 else 12):
            client.live.frame_sent()
        client.live.tell(Stats(input_lag_ms=0, dropped=0, frames=client.live.now_ms // 80))
    first, _second = client.told()
    assert (first["type"], first["usage"], first.get("context_window")) == (
        "session.usage.updated",
        {"seconds": 10.0},
        ratio,
    )


# Ends


def test_a_client_that_closes_is_answered() -> None:
    client = Client().begin()
    with pytest.raises(CallEnded) as ended:
        client.send("session.close")
    client.live.end(ended.value)
    [event] = client.told()
    assert (event["type"], event["reason"], event["client_event_id"]) == ("session.closed", "close_requested", "mine")
    assert event["usage"] == {"seconds": 0.0}


@pytest.mark.parametrize(
    ("ended", "events"),
    [
        (CallEnded("time", 4000, "Too long."), [("info", "time"), ("session.closed", "expired")]),
        (CallEnded("plugin", 4010, "Good bye."), [("info", "plugin"), ("session.closed", "remote_hangup")]),
        (CallEnded("shutdown", 1001, "Stopping."), [("info", "shutdown"), ("session.closed", "connection_lost")]),
        (CallEnded("engine", 1011, "Broken."), [("error", "server_error"), ("session.closed", "connection_lost")]),
        (
            CallEnded("too_fast", 4004, "Slower."),
            [("error", "rate_limit_error"), ("session.closed", "connection_lost")],
        ),
    ],
)
def test_an_end_has_its_reason(ended: CallEnded, events: list[tuple[str, str]]) -> None:
    client = Client().begin()
    client.live.end(ended)
    told = client.told()
    assert [
        (event["type"], event.get("code") or event.get("reason") or event["error"]["type"]) for event in told
    ] == events


def test_what_never_began_is_not_closed() -> None:
    client = Client()
    client.live.end(CallEnded("busy", 1013, "No slot."))
    [event] = client.told()
    assert (event["error"]["type"], event["error"]["code"]) == ("rate_limit_error", "busy")


@pytest.mark.parametrize(
    ("status", "code"), [(400, 1008), (401, 1008), (403, 1008), (404, 1008), (429, 1013), (500, 1011), (503, 1013)]
)
def test_a_refusal_says_whether_to_try_again(status: int, code: int) -> None:
    detail, closes = explain_refusal(RefusedError(status, "No."), "mine")
    assert closes == code
    assert (detail.message, detail.client_event_id) == ("No.", "mine")
    if status == 403:
        assert detail.code == "forbidden"  # which LiveKit takes as final


# Silence


def levels(frames: list[Samples], texts: tuple[int, ...] = ()) -> list[float]:
    """The RMS of each frame behind the gate; `texts` are the frames with which a word comes."""
    gate, found = SilenceGate(), []
    for index, frame in enumerate(frames):
        found.append(float(np.sqrt(np.mean(np.square(gate.process(frame))))))
        if index in texts:
            gate.text()
    return found


def hiss(rms: float) -> Samples:
    return np.random.default_rng(0).normal(0, rms, 1920).astype(np.float32)


@pytest.mark.parametrize("rms", [0.0, 0.0001, 0.001, 0.0018, 0.003])
def test_what_a_model_makes_at_rest_is_sent_as_zeros(rms: float) -> None:
    assert levels([hiss(rms)] * 20) == [0.0] * 20


def test_speech_passes_as_it_is_and_the_gate_closes_a_third_of_a_second_after_it() -> None:
    loud, quiet = hiss(0.05), hiss(0.002)
    found = levels([quiet, loud, loud, *[quiet] * 10, loud])
    assert found[0] == 0
    assert found[2] == pytest.approx(0.05, rel=0.1)
    assert [level > 0.0015 for level in found[3:7]] == [True] * 4
    assert found[7] < 0.001  # faded out
    assert found[8:13] == [0.0] * 5
    assert found[13] == pytest.approx(0.05, rel=0.1)


def test_a_soft_word_is_heard_from_its_beginning() -> None:
    found = levels([hiss(0.002)] * 20, texts=(4,))
    assert found[:5] == [0.0] * 5
    assert [level > 0.0015 for level in found[5:15]] == [True] * 10
    assert found[16:] == [0.0] * 4


def test_the_gate_opens_and_closes_without_a_click() -> None:
    """The sound begins and ends at zero, and runs up to its level in 10 ms."""
    flat = np.full(1920, 0.002, np.float32)
    gate = SilenceGate()
    opened = gate.process(np.full(1920, 0.1, np.float32))
    assert opened[0] == 0
    assert np.abs(np.diff(opened)).max() < 0.0006
    for _ in range(4):
        gate.process(flat)
    closed = gate.process(flat)
    assert (closed[0], closed[-1]) == (pytest.approx(0.002), 0)
    assert np.abs(np.diff(closed)).max() < 0.0001
