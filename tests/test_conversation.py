"""Conversations over real sockets, with an engine that echoes: what is heard, said, counted, waited for and limited."""

import asyncio
import json
import time
from urllib.parse import urlencode

import numpy as np
import pytest

from core.events import (
    CallRefused,
    FirstAudio,
    FramesDropped,
    FrameTimed,
    Identity,
    SessionEnded,
    SessionQueued,
    SessionReady,
    SessionStarted,
    SessionWarned,
    TextSaid,
)
from core.session.protocol import CloseCode, Kind
from core.testing import EchoEngine
from tests.caller import FRAME, NVIDIA, PLAIN, audio, dial, get
from tests.conftest import Serve, speech
from tests.test_audio import alike


@pytest.mark.parametrize("route", ["/ws/chat", "/api/chat"])
@pytest.mark.parametrize("audio", ["opus", "pcm"])
async def test_a_conversation(serve: Serve, route: str, audio: str) -> None:
    running = await serve(**PLAIN)
    samples = speech(1.6)
    async with dial(running.url(f"{route}?audio={audio}&persona=teacher&seed=5"), audio) as caller:
        await caller.shake_hands()
        heard = await caller.talk(samples)
    assert alike(samples, heard)
    assert caller.words[:2] == [" word0", " word1"]
    if route == "/ws/chat":
        preparing, ready = caller.metadata[:2]
        assert preparing == {"type": "preparing"}
        assert ready | {"session": "", "resume": ""} == {
            "type": "ready",
            "session": "",
            "persona": "teacher",
            "voice": "NATM2",
            "engine": {"name": "echo", "notice": "This is an echo."},
            "seed": 5,
            "max_s": 900,
            "resume": "",
        }
    else:
        assert set(caller.kinds) <= {Kind.HANDSHAKE, Kind.AUDIO, Kind.TEXT}
        assert caller.kinds[0] == Kind.HANDSHAKE
    [end] = await running.record.ended()
    assert (end.reason, end.frames_in, end.frames_out, end.dropped, end.error) == ("left", 20, 20, 0, "")
    assert running.engine.calls == []
    info = running.record.events[0][0]
    assert (info.persona, info.voice, info.route, info.audio) == ("teacher", "NATM2", route, audio)
    assert (info.address, info.identity) == ("127.0.0.1", Identity("anonymous"))


async def test_the_events_of_a_conversation(serve: Serve) -> None:
    running = await serve()
    async with dial(running.url()) as caller:
        await caller.shake_hands()
        await caller.talk(speech(0.48))
    await running.record.ended()
    kinds = [type(event) for _, event in running.record.events]
    assert kinds[:3] == [SessionStarted, SessionReady, FirstAudio]
    assert kinds[-1] is SessionEnded
    assert kinds.count(TextSaid) == 2
    timed = running.record.of(FrameTimed)
    assert len(timed) == 6
    for frame in timed:
        parts = (frame.decode_ms, frame.transform_ms, frame.wait_ms, frame.step_ms, frame.encode_ms)
        assert all(part > 0 for part in parts)
        assert frame.total_ms > frame.decode_ms + frame.encode_ms
    assert len({info.id for info, _ in running.record.events}) == 1


async def test_two_callers_at_once_hear_themselves_only(serve: Serve) -> None:
    running = await serve(**PLAIN)
    url = running.url("/ws/chat?audio=pcm")
    async with dial(url, "pcm") as one, dial(url, "pcm") as two:
        await asyncio.gather(one.shake_hands(), two.shake_hands())
        mine, yours = speech(1.6, seed=1), speech(1.6, seed=2)
        heard = await asyncio.gather(one.talk(mine), two.talk(yours))
    np.testing.assert_allclose(heard[0], mine, atol=1e-4)
    np.testing.assert_allclose(heard[1], yours, atol=1e-4)


async def test_nvidias_client_is_served_unchanged(serve: Serve) -> None:
    running = await serve(personas={"custom": True})
    async with dial(running.url("/api/chat?" + urlencode(NVIDIA))) as caller:
        await caller.shake_hands()
        [call] = running.engine.calls
        assert isinstance(call.prompt.text, str)
        assert call.prompt.text == NVIDIA["text_prompt"]
        assert call.prompt.voice is not None
        assert (call.prompt.voice.name, call.seed) == ("NATM2", 88)
        await caller.talk(speech(0.4))
        assert set(caller.kinds) <= {Kind.HANDSHAKE, Kind.AUDIO, Kind.TEXT, Kind.PING}


async def test_an_empty_custom_prompt_is_one(serve: Serve) -> None:
    running = await serve(personas={"custom": True})
    async with dial(running.url("/api/chat?text_prompt=&voice_prompt=NATF2")) as caller:
        await caller.shake_hands()
        assert running.engine.calls[0].prompt.text == ""
    [info] = {info.persona for info, _ in running.record.events}
    assert info == "custom"


async def test_a_voice_may_be_chosen_and_a_bare_call_gets_the_default(serve: Serve) -> None:
    running = await serve(personas={"default": "teacher", "custom": False})
    async with dial(running.url("/api/chat?voice_prompt=NATF2.pt&text_prompt=")) as caller:
        await caller.shake_hands()
        prompt = running.engine.calls[0].prompt
        assert prompt.text == "You teach."
        assert prompt.voice is not None
        assert prompt.voice.name == "NATF2"


async def test_an_echo_comes_back_at_once_where_metadata_is_known(serve: Serve) -> None:
    running = await serve()
    async with dial(running.url()) as caller:
        await caller.shake_hands()
        await caller.socket.send(b'\x04{"type": "echo", "id": 17}')
        assert await caller.told("echo") == {"type": "echo", "id": 17}
    async with dial(running.url("/api/chat")) as caller:
        await caller.shake_hands()
        await caller.socket.send(b'\x04{"type": "echo", "id": 17}')
        await caller.socket.send(b"\x04{not json")
        await caller.talk(speech(0.16))
        assert Kind.METADATA not in caller.kinds


async def test_audio_before_the_handshake_is_dropped_but_its_stream_goes_on(serve: Serve) -> None:
    engine = EchoEngine()
    engine.prompts.clear()
    running = await serve(engine, **PLAIN)
    samples = speech(1.6)
    async with dial(running.url()) as caller:
        await caller.say(samples[: 5 * FRAME])
        await caller.socket.send(b'\x04{"type": "echo", "id": 1}')
        await caller.told("echo")  # so everything before it has been taken
        engine.prompts.set()
        await caller.shake_hands()
        heard = await caller.talk(samples[5 * FRAME :])
    assert alike(samples[5 * FRAME :], heard)
    [end] = await running.record.ended()
    assert end.frames_in == 15


async def test_pcm_in_any_chunking(serve: Serve) -> None:
    running = await serve(**PLAIN)
    samples = speech(0.8)
    data = (samples * 32767).astype("<i2").tobytes()
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        for at in range(0, len(data), 1000):
            await caller.socket.send(audio(data[at : at + 1000]))
            if at % 4000 == 0:
                await asyncio.sleep(0.01)
        while len(caller.heard) < len(samples):
            await caller.next()
        np.testing.assert_allclose(caller.heard, samples, atol=1e-4)
        await caller.socket.send(audio(b"odd"))
        assert await caller.end() == CloseCode.BAD_MESSAGE
        assert "16-bit" in caller.error


@pytest.mark.slow
async def test_frames_beyond_the_lag_are_dropped_counted_and_told(serve: Serve) -> None:
    engine = EchoEngine(max_waiting=5)
    running = await serve(engine)
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        engine.steps.clear()
        await caller.say(speech(1.6))
        while sum(event.count for event in running.record.of(FramesDropped)) < 14:
            await caller.say(speech(0.08))  # the lag is how long the oldest has waited, so this goes on for 400 ms
            await caller.next()
        stats = await caller.told("stats")
        while stats["dropped"] < 14:
            stats = await caller.told("stats")
        assert stats["input_lag_ms"] <= 6 * 80
        engine.steps.set()
        await caller.next()
    [end] = await running.record.ended()
    assert end.dropped >= 14


async def test_stats_tell_how_full_the_window_is(serve: Serve) -> None:
    running = await serve(EchoEngine(window=0.75))
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        await caller.say(speech(0.08))
        stats = await caller.told("stats")
        while stats["frames"] == 0:
            stats = await caller.told("stats")
        assert stats["window"] == 0.75


async def test_callers_wait_in_order_and_hear_their_place(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=1), server={"queue": 2})
    url = running.url()
    async with dial(url) as first:
        await first.shake_hands()
        async with dial(url) as second, dial(running.url("/api/chat")) as third:
            assert (await second.told("queued"))["place"] == 1
            await running.record.until(lambda: SessionQueued(2) in running.record.of(SessionQueued))
            async with dial(url) as fourth:
                assert await fourth.end() == CloseCode.BUSY
                assert "2 callers wait" in fourth.error
            assert json.loads((await get(running, "/health"))[2])["waiting"] == 2
            await first.socket.close()
            await second.shake_hands()
            await running.record.until(lambda: running.record.of(SessionQueued)[-1] == SessionQueued(1))
            await second.socket.close()
            await third.shake_hands()
            assert Kind.METADATA not in third.kinds
    starts = running.record.of(SessionStarted)
    assert len(starts) == 3


async def test_busy_is_an_accept_an_error_and_1013(serve: Serve) -> None:
    """As LiveKit's plugin needs it: it gives up on an HTTP error, reconnects at once after 1000, and backs off here."""
    running = await serve(EchoEngine(slots=0), server={"queue": 0})
    async with dial(running.url("/api/chat?voice_prompt=NATF2.pt&text_prompt=&seed=3")) as caller:
        assert await caller.end() == CloseCode.BUSY
    assert caller.kinds == [Kind.ERROR]
    [end] = await running.record.ended()
    assert (end.reason, end.seconds, end.error) == ("busy", 0.0, "")


async def test_a_wait_too_long_is_busy_too(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=0), server={"queue_wait_s": 0.05})
    async with dial(running.url()) as caller:
        assert await caller.end() == CloseCode.BUSY
        assert "0.05 s" in caller.error


async def test_a_silent_wait_is_pinged(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.session.websocket_transport.PING_S", 0.1)
    monkeypatch.setattr("core.session.session.HEARTBEAT_S", 0.1)
    running = await serve(EchoEngine(slots=0))
    async with dial(running.url("/ws/chat")) as caller:
        while await caller.next() != Kind.PING:
            pass


async def test_clients_of_nvidias_route_hear_nothing_before_the_handshake(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many take the first message for the handshake, whatever its kind."""
    monkeypatch.setattr("core.session.websocket_transport.PING_S", 0.01)
    monkeypatch.setattr("core.session.session.HEARTBEAT_S", 0.01)
    engine = EchoEngine()
    engine.prompts.clear()
    running = await serve(engine, **PLAIN)
    async with dial(running.url("/ws/chat")) as other, dial(running.url("/api/chat")) as caller:
        while other.kinds.count(Kind.PING) < 10:
            await other.next()
        engine.prompts.set()
        assert await caller.next() == Kind.HANDSHAKE
        while await caller.next() != Kind.PING:  # from here on they are for everybody
            pass


async def test_nvidias_route_ignores_empty_and_text_messages(serve: Serve) -> None:
    engine = EchoEngine()
    engine.prompts.clear()
    running = await serve(engine, **PLAIN)
    async with dial(running.url("/api/chat?audio=pcm"), "pcm") as caller:
        for message in ("hello", b"", "", bytes([Kind.CONTROL, 1])):
            await caller.socket.send(message)
        engine.prompts.set()
        await caller.shake_hands()
        for message in ("hello", b""):
            await caller.socket.send(message)
        assert len(await caller.talk(speech(0.16))) == 2 * FRAME


@pytest.mark.parametrize("route", ["/ws/chat", "/api/chat"])
async def test_a_request_without_an_upgrade_is_told_what_it_lacks(serve: Serve, route: str) -> None:
    running = await serve()
    status, headers, body = await get(running, route)
    assert (status, headers["upgrade"]) == (426, "websocket")
    assert "WebSocket" in json.loads(body)["error"]
    [refusal] = running.record.service_events
    assert refusal == CallRefused("upgrade_required", 426, route, "127.0.0.1")


@pytest.mark.slow
async def test_what_was_said_before_the_handshake_does_not_make_the_call_late(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiveKit's plugin keeps all that is said in the queue, and sends it with the handshake."""
    monkeypatch.setattr("core.session.ahead.LEAST_WAIT_S", 0.0)
    engine = EchoEngine()
    engine.prompts.clear()
    running = await serve(engine, **PLAIN)
    stored = 20
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        begun = time.monotonic()
        while time.monotonic() - begun < stored * 0.08:
            await caller.next()
        engine.prompts.set()
        await caller.shake_hands()
        level = np.float32(1 / 100)
        for index in range(stored):
            await caller.say(np.full(FRAME, (index + 1) * level))
        heard = 0
        for index in range(stored, stored + 12):  # and goes on in real time
            await asyncio.sleep(0.08)
            await caller.say(np.full(FRAME, (index + 1) * level))
        while heard != stored + 12:
            await caller.next()
            heard = round(float(caller.heard[-1]) * 100)
    frames = np.round(caller.heard[::FRAME] * 100).astype(int).tolist()
    assert frames == sorted(frames)
    assert frames[-12:] == list(range(stored + 1, stored + 13)), "all that was said since, and the newest of before"
    assert len(frames) <= 12 + 7, "so the answers are late by 0.5 s at most"
    [end] = await running.record.ended()
    assert (end.reason, end.dropped) == ("left", stored + 12 - len(frames))


async def test_the_voice_goes_on_through_a_flood_that_ends(serve: Serve) -> None:
    """More than max_ahead_s at once: the rest is dropped, and nobody is hung up on."""
    running = await serve(EchoEngine(max_waiting=1000), session={"max_ahead_s": 2}, **PLAIN)
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        for index in range(100):
            await caller.say(np.full(FRAME, np.float32(index / 100)))
        while len(caller.heard) < 24 * FRAME:
            await caller.next()
        while caller.heard[-1] < 0.985:  # the newest are kept, until their time has come
            await caller.say(np.full(FRAME, np.float32(0.99)))
            await caller.next()
    [end] = await running.record.ended()
    assert end.reason == "left"
    assert end.dropped > 50


async def test_the_longest_call_ends_after_a_warning(serve: Serve) -> None:
    running = await serve(session={"max_s": 0.4, "warn_s": 0.3})
    async with dial(running.url()) as caller:
        await caller.shake_hands()
        warning = await caller.told("warning")
        assert warning["limit"] == "time"
        assert 0 < warning["seconds"] <= 0.3
        assert await caller.end() == CloseCode.TIME_LIMIT
        assert "longest" in caller.error
    assert [warned.limit for warned in running.record.of(SessionWarned)] == ["time"]
    [end] = await running.record.ended()
    assert end.reason == "time"


async def test_silence_ends_the_call_on_both_routes(serve: Serve) -> None:
    running = await serve(session={"idle_s": 0.3, "warn_s": 0.1})
    for route in ("/ws/chat", "/api/chat"):
        async with dial(running.url(route)) as caller:
            await caller.shake_hands()
            assert await caller.end() == CloseCode.IDLE
            assert "heard" in caller.error
    assert [warned.limit for warned in running.record.of(SessionWarned)] == ["idle", "idle"]


async def test_who_sends_nothing_at_all_is_ended(serve: Serve) -> None:
    running = await serve(session={"first_audio_s": 0.1})
    async with dial(running.url()) as caller:
        await caller.shake_hands()
        assert await caller.end() == CloseCode.IDLE
        assert "microphone" in caller.error
    [end] = await running.record.ended()
    assert end.reason == "no_audio"


async def test_a_model_that_never_answers_is_a_fault(serve: Serve) -> None:
    engine = EchoEngine()
    running = await serve(engine, session={"first_audio_s": 0.3})
    async with dial(running.url()) as caller:
        await caller.shake_hands()
        engine.steps.clear()
        await caller.say(speech(0.16))
        assert await caller.end() == CloseCode.INTERNAL
    [end] = await running.record.ended()
    assert (end.reason, "does not answer" in end.error) == ("engine", True)
    assert engine.calls == []


async def test_nobody_has_more_calls_than_allowed(serve: Serve) -> None:
    named = {"ann": "sesame", "bob": "saffron"}
    running = await serve(
        EchoEngine(slots=3),
        server={"calls_per_identity": 1, "calls_per_address": 2},
        plugins={"options": {"password": {"named": named}}},
    )
    ann, bob = ({"Authorization": f"Bearer {password}"} for password in named.values())
    async with (
        dial(running.url(), additional_headers=ann) as first,
        dial(running.url(), additional_headers=bob) as second,
    ):
        await first.shake_hands()
        await second.shake_hands()
        async with dial(running.url("/api/chat"), additional_headers=ann) as third:
            assert await third.end() == CloseCode.BUSY
            assert "You have 1 call already" in third.error
        [end] = await running.record.ended()
        assert end.reason == "too_many_calls"
    await running.record.ended(3)
    async with dial(running.url(), additional_headers=ann) as again:
        await again.shake_hands()


async def test_a_prompt_that_takes_too_long_ends_the_call(serve: Serve) -> None:
    engine = EchoEngine()
    engine.prompts.clear()
    running = await serve(engine, session={"prompt_s": 0.05})
    async with dial(running.url()) as caller:
        assert await caller.end() == CloseCode.HANDSHAKE_TIMEOUT
    await running.record.ended()
    assert engine.calls == []
