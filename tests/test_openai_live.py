"""The plugin openai_live over real sockets: a client close to the bytes of OpenAI's Live API."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from core import SessionControl, SessionHandler, hookimpl
from core.events import CallRefused, SessionEnded
from core.media.audio_codecs import Samples
from core.media.raw_audio import RawAudioReader, RawAudioWriter, RawEncoding
from core.testing import EchoEngine
from tests.caller import PLAIN, Talker, dial, is_fine
from tests.conftest import Running, Serve, speech
from tests.test_audio import alike

ROUTE = "/v1/live/sessions"
FRAME = 1920


class LiveClient(Talker):
    """One connection, and what came over it."""

    def __init__(self, socket: ClientConnection, encoding: RawEncoding = "pcm", rate: int = 24_000) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []
        """All but sound."""
        self.heard: Samples = np.empty(0, np.float32)
        self._reader, self._writer = RawAudioReader(encoding, rate), RawAudioWriter(encoding, rate)

    async def send(self, type_: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": type_, **fields}))

    async def next(self) -> str:
        """Take one event; its type."""
        async with asyncio.timeout(10):
            message = await self.socket.recv()
        assert isinstance(message, str)
        event = json.loads(message)
        if event["type"] == "session.output_audio.delta":
            self.heard = np.concatenate([self.heard, self._reader.read(base64.b64decode(event["delta"]))])
        else:
            self.events.append(event)
        return str(event["type"])

    async def told(self, type_: str) -> dict[str, Any]:
        """The next event of a type."""
        while await self.next() != type_:
            pass
        return self.events[-1]

    async def has(self, type_: str) -> dict[str, Any]:
        """The first event of a type, whether it has come or is still to come."""
        while not (found := [event for event in self.events if event["type"] == type_]):
            await self.next()
        return found[0]

    async def start(self, **session: Any) -> dict[str, Any]:
        """Begin a session; the session as it is."""
        await self.send("session.start", session={"model": "personaplex", **session})
        started = await self.told("session.started")
        session_as_it_is: dict[str, Any] = started["session"]
        return session_as_it_is

    async def say(self, samples: Samples) -> None:
        sound = base64.b64encode(self._writer.write(samples)).decode()
        await self.send("session.input_audio.append", audio=sound)

    def codes(self, type_: str) -> list[str]:
        """The codes of all events of a type."""
        return [(event.get("error") or event)["code"] for event in self.events if event["type"] == type_]


@asynccontextmanager
async def live(
    running: Running, encoding: RawEncoding = "pcm", rate: int = 24_000, **options: Any
) -> AsyncIterator[LiveClient]:
    async with connect(running.url(ROUTE), compression=None, proxy=None, max_size=2**24, **options) as socket:
        yield LiveClient(socket, encoding, rate)


async def test_a_conversation(serve: Serve) -> None:
    engine = EchoEngine()
    running = await serve(engine, **PLAIN)
    said = speech(0.8)
    async with live(running) as client:
        session = await client.start(model="personaplex/teacher", audio={"output": {"voice": "NATF2"}})
        assert (session["model"], session["audio"]["output"]["voice"]) == ("personaplex/teacher", "NATF2")
        heard = await client.talk(said)
        [call] = engine.calls
        assert call.prompt.text == "You teach."
        assert call.prompt.voice is not None
        assert call.prompt.voice.name == "NATF2"
        await client.send("session.close", event_id="bye")
        closed = await client.told("session.closed")
        assert (closed["reason"], closed["client_event_id"]) == ("close_requested", "bye")
        assert closed["session"]["id"] == session["id"]
        assert await client.end() == 1000
    assert alike(said, heard)
    words = [event for event in client.events if event["type"] == "session.output_transcript.delta"]
    assert "".join(word["delta"] for word in words).split()[:2] == ["word0", "word1"]
    starts = [word["start_ms"] for word in words]
    assert starts == sorted(set(starts))
    assert all(word["end_ms"] == word["start_ms"] + 80 for word in words)
    [ended] = await running.record.ended()
    assert (ended.reason, ended.frames_in, ended.frames_out) == ("left", 10, 10)
    info, _ = running.record.events[0]
    assert (info.route, info.audio) == (ROUTE, "pcm 24000")


@pytest.mark.parametrize(
    ("type_", "encoding", "rate"),
    [("audio/pcm", "pcm", 16_000), ("audio/pcmu", "mulaw", 8000), ("audio/pcma", "alaw", 8000)],
)
async def test_other_formats(serve: Serve, type_: str, encoding: RawEncoding, rate: int) -> None:
    running = await serve(**PLAIN)
    said = speech(0.8)
    async with live(running, encoding, rate) as client:
        session = await client.start(audio={"format": {"type": type_, "rate": rate}})
        assert session["audio"]["format"] == {"type": type_, "rate": rate}
        heard = await client.talk(said)
    assert len(heard) == len(said)
    late = 4 * 60  # the way there and back goes through four filters of 2.5 ms
    correlation = np.corrcoef(said[:-late], heard[late:])[0, 1]
    assert correlation > 0.95


async def test_a_prompt_of_the_clients_own(serve: Serve) -> None:
    engine = EchoEngine()
    running = await serve(engine, **PLAIN)
    async with live(running) as client:
        session = await client.start(
            model="gpt-live-1", instructions="You sell maps.", audio={"output": {"voice": "marin"}}
        )
        assert (session["model"], session["instructions"]) == ("personaplex", "You sell maps.")
        assert engine.calls[0].prompt.text == "You sell maps."
        assert client.codes("info")[:2] == ["model_substituted", "voice_substituted"]
    await running.record.ended()
    assert [event for event in running.record.service_events if isinstance(event, CallRefused)] == []


async def test_muted_is_silence(serve: Serve) -> None:
    running = await serve(**PLAIN)
    said = np.full(4 * FRAME, 0.1, np.float32)
    async with live(running) as client:
        await client.start()
        assert np.abs(await client.talk(said)).max() > 0.09
        await client.send("session.input_audio.mute")
        await client.told("session.input_audio.muted")
        quiet = await client.talk(np.full(16 * FRAME, 0.1, np.float32))
        assert not quiet[-FRAME:].any()
        await client.send("session.input_audio.unmute")
        await client.told("session.input_audio.unmuted")
        assert np.abs(await client.talk(said)).max() > 0.09


async def test_commentary_is_said(serve: Serve) -> None:
    running = await serve(**PLAIN)
    async with live(running) as client:
        await client.start()
        await client.send("session.commentary.append", content="Your table is booked.", delegation_id=None)
        await client.told("session.commentary.appended")
        await client.talk(speech(0.8))
    words = [event["delta"] for event in client.events if event["type"] == "session.output_transcript.delta"]
    assert "Your table is booked." in "".join(words)


class Understands:
    """Knows what the caller says, as the plugin transcribe does."""

    @hookimpl
    def open_session(self, control: SessionControl) -> SessionHandler:
        class Ear(SessionHandler):
            frames = 0

            async def caller_frame(self, frame: object) -> None:
                self.frames += 1
                if self.frames == 3:
                    control.caller_said("A table for two.", 0, 240)

        return Ear()


async def test_what_the_caller_said_is_answered_by_the_client(serve: Serve) -> None:
    running = await serve(extra=(Understands(),), **PLAIN)
    async with live(running) as client:
        await client.start(delegation={"type": "client"})
        await client.talk(speech(0.4))
        created = await client.has("session.delegation.created")
        said = next(event for event in client.events if event["type"] == "session.input_transcript.delta")
        assert (said["delta"], said["start_ms"], said["end_ms"]) == ("A table for two.", 0, 240)
        await client.send(
            "session.commentary.append", content="It is booked.", delegation_id=created["delegation"]["id"]
        )
        await client.has("session.commentary.appended")
        await client.talk(speech(0.8))
    assert "It is booked." in "".join(event.get("delta", "") for event in client.events[-20:])


async def test_two_at_once_beside_another_door(serve: Serve) -> None:
    """Each hears itself alone."""
    running = await serve(EchoEngine(slots=3), **PLAIN)
    voices = [speech(0.8, seed) for seed in range(3)]
    async with live(running) as one, live(running) as two, dial(running.url("/ws/chat?audio=pcm"), "pcm") as page:
        await one.start()
        await two.start()
        await page.shake_hands()
        first, second, third = await asyncio.gather(one.talk(voices[0]), two.talk(voices[1]), page.talk(voices[2]))
    assert alike(voices[0], first)
    assert alike(voices[1], second)
    assert np.allclose(voices[2], third, atol=1e-3)


async def test_who_waits_is_told_the_place(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=1), **PLAIN)
    async with live(running) as first:
        await first.start()
        async with live(running) as second:
            await second.send("session.start", session={"model": "personaplex"})
            queued = await second.told("info")
            assert queued["code"] == "queued"
            assert "place in the queue is 1" in queued["message"]
            await second.say(speech(0.08))
            assert (await second.told("error"))["error"]["code"] == "session_not_started"
            await first.send("session.close")
            await second.told("session.started")
            await second.talk(speech(0.16))
            assert second.codes("error") == ["session_not_started"]


async def test_a_full_service_says_so(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=0), server={"queue": 0}, **PLAIN)
    async with live(running) as client:
        await client.send("session.start", session={"model": "personaplex"})
        assert await client.end() == 1013
    assert client.codes("error") == ["busy"]
    assert "session.closed" not in [event["type"] for event in client.events]


# Who may call


async def test_the_key_is_a_password(serve: Serve) -> None:
    running = await serve(plugins={"disabled": ["loudness"], "options": {"password": {"password": "sesame"}}})
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        with pytest.raises(InvalidStatus) as refusal:
            async with live(running, additional_headers=headers):
                pass
        assert refusal.value.response.status_code == 401
    async with live(running, additional_headers={"Authorization": "Bearer sesame"}) as client:
        await client.start(instructions="You sell maps.")
        await client.talk(speech(0.16))


@pytest.mark.parametrize(("enabled", "status"), [("auto", 404), (True, 101), (False, 403)])
async def test_it_is_off_where_everybody_could_call(serve: Serve, enabled: object, status: int) -> None:
    running = await serve(
        server={"host": "0.0.0.0", "insecure": True},
        plugins={"disabled": ["loudness"], "options": {"openai_live": {"enabled": enabled}}},
    )
    with contextlib.ExitStack() as stack:
        refusal = None if status == 101 else stack.enter_context(pytest.raises(InvalidStatus))
        async with live(running) as client:
            await client.start()
    assert refusal is None or refusal.value.response.status_code == status


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"model": "personaplex/nobody"}, "not_found", "session"),
        ({"model": "personaplex/teacher", "instructions": "Sell."}, "bad_request", "session"),
        ({"model": "whisper"}, "model_not_found", "session.model"),
        ({"instructions": "x" * 5000}, "bad_request", "session"),
        ({"store": True}, "unsupported_parameter", "session.store"),
        ({"temperature": 1}, "unknown_parameter", "session.temperature"),
    ],
)
async def test_a_start_that_cannot_be_had_closes(serve: Serve, session: dict[str, Any], code: str, param: str) -> None:
    running = await serve(**PLAIN)
    async with live(running) as client:
        await client.send("session.start", event_id="mine", session={"model": "personaplex", **session})
        assert await client.end() == 1008
    [event] = client.events
    assert (event["error"]["code"], event["error"]["param"]) == (code, param)
    assert event["client_event_id"] == "mine"
    assert running.engine.opened == 0


async def test_prompts_may_be_forbidden(serve: Serve) -> None:
    running = await serve(personas={"custom": False}, **PLAIN)
    async with live(running) as client:
        await client.send("session.start", session={"model": "personaplex", "instructions": "Sell."})
        assert await client.end() == 1008
    assert client.codes("error") == ["forbidden"]


# What no client should send


async def test_before_the_start_everything_is_an_error(serve: Serve) -> None:
    running = await serve(**PLAIN)
    async with live(running) as client:
        for message in ("nonsense", b"\xff", '{"type": "session.input_audio.append", "audio": "AAAA"}'):
            await client.socket.send(message)
            await client.told("error")
        await client.start()
        await client.talk(speech(0.16))
    assert client.codes("error") == ["invalid_json", "invalid_json", "session_not_started"]


async def test_who_sends_everything_but_a_start_is_closed(serve: Serve) -> None:
    running = await serve(**PLAIN)
    async with live(running) as client:
        for _ in range(25):
            await client.socket.send("nonsense")
        assert await client.end() == 1008
    assert client.codes("error") == ["invalid_json"] * 20 + ["session_not_started"]
    await is_fine(running)


async def test_a_start_that_never_comes(serve: Serve) -> None:
    running = await serve(server={"request_s": 0.2}, **PLAIN)
    async with live(running) as client:
        assert await client.end() == 1008
    assert client.codes("error") == ["session_not_started"]


async def test_what_is_broken_in_mid_call_is_told_and_the_call_goes_on(serve: Serve) -> None:
    running = await serve(**PLAIN)
    said = speech(0.4)
    async with live(running) as client:
        await client.start()
        for message in (
            '{"type": "session.input_audio.append", "audio": "*"}',
            '{"type": "session.input_audio.append", "audio": "AAAA"}',
            '{"type": "session.start", "session": {"model": "personaplex"}}',
            '{"type": "session.make_coffee"}',
            b"\x00\x01",
            "",
        ):
            await client.socket.send(message)
            await client.told("error")
        assert alike(said, await client.talk(said))
    assert client.codes("error") == [
        "invalid_value",
        "invalid_value",
        "session_already_started",
        "unknown_event",
        "invalid_json",
        "invalid_json",
    ]


async def test_a_message_of_ten_megabytes(serve: Serve) -> None:
    running = await serve(**PLAIN)
    async with live(running) as client:
        await client.start()
        with contextlib.suppress(ConnectionClosed):
            await client.socket.send("x" * 10_000_000)
        assert await client.end() in (1009, 1006)
    [ended] = await running.record.ended()
    assert ended.reason == "bad_message"
    await is_fine(running)


async def test_a_flood(serve: Serve) -> None:
    running = await serve(session={"max_messages_per_s": 20}, **PLAIN)
    async with live(running) as client:
        await client.start()
        message = json.dumps({"type": "session.input_audio.mute"})
        with contextlib.suppress(ConnectionClosed):
            for _ in range(2000):
                await client.socket.send(message)
        assert await client.end() in (4004, 1006)
    [ended] = await running.record.ended()
    assert ended.reason == "too_fast"
    await is_fine(running)


async def test_a_client_that_is_gone_without_a_word_frees_its_slot(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=1), **PLAIN)
    async with live(running) as client:
        await client.start()
        client.socket.transport.abort()
    [ended] = await running.record.ended()
    assert ended.reason == "left"
    await is_fine(running)


async def test_a_limit_is_told_before_and_at_the_end(serve: Serve) -> None:
    running = await serve(session={"max_s": 0.4, "warn_s": 0.3}, **PLAIN)
    async with live(running) as client:
        await client.start()
        assert await client.end() == 4000
    assert client.codes("info") == ["preparing", "notice", "time_limit", "time"]
    assert client.events[-1]["reason"] == "expired"


async def test_the_control_of_a_session_that_never_began_is_forgotten(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=1), **PLAIN)
    async with live(running) as first, live(running) as second:
        await first.start()
        await second.send("session.start", session={"model": "personaplex"})
        await second.told("info")
        await second.send("session.close")
        assert await second.end() == 1000
    ends: list[SessionEnded] = await running.record.ended(2)
    assert [end.reason for end in ends] == ["left", "left"]
