"""The service over real sockets, with an engine that echoes."""

import asyncio
import base64
import contextlib
import json
import socket as sockets
import threading
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from core.engine.call import Frame
from core.errors import ConfigError, EngineError, PromptError
from core.events import (
    FirstAudio,
    FramesDropped,
    FrameTimed,
    Identity,
    SessionEnded,
    SessionInfo,
    SessionQueued,
    SessionReady,
    SessionStarted,
    SessionWarned,
    TextSaid,
    TransformFailed,
)
from core.hookspecs import hookimpl
from core.personas import Persona
from core.protocol import CloseCode, Kind
from tests.caller import dial
from tests.conftest import Running, Serve, speech
from tests.echo_engine import EchoEngine
from tests.test_audio import alike, coded

FRAME = 1920
NVIDIA = {
    "text_temperature": "0.7",
    "text_topk": "25",
    "audio_temperature": "0.8",
    "audio_topk": "250",
    "pad_mult": "0",
    "text_seed": "77",
    "audio_seed": "88",
    "repetition_penalty_context": "64",
    "repetition_penalty": "1",
    "text_prompt": "You enjoy having a good conversation.",
    "voice_prompt": "NATM2.pt",
}
"""What NVIDIA's web client sends."""
PLAIN: dict[str, Any] = {"plugins": {"disabled": ["loudness"]}}
"""No transform, so that PCM comes back as it went."""


async def get(running: Running, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """GET, off the loop."""

    def fetch() -> tuple[int, dict[str, str], bytes]:
        request = urllib.request.Request(running.url(path, "http"), headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    return await asyncio.to_thread(fetch)


async def refused(running: Running, path: str, **options: Any) -> tuple[int, str]:
    """Status and message of an upgrade that is not granted."""
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(running.url(path), proxy=None, **options):
            pass
    response = refusal.value.response
    assert response.headers["x-content-type-options"] == "nosniff"
    return response.status_code, json.loads(response.body or b"")["error"]


async def is_fine(running: Running) -> None:
    """A new caller is served: nothing is left of those before."""
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        assert len(await caller.talk(speech(0.16))) == 2 * FRAME


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
        ready = caller.metadata[0]
        assert ready | {"session": ""} == {
            "type": "ready",
            "session": "",
            "persona": "teacher",
            "voice": "NATM2",
            "engine": {"name": "echo", "notice": "This is an echo."},
            "seed": 5,
            "max_s": 900,
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
    running = await serve(personas={"default": "teacher"})
    async with dial(running.url("/api/chat?voice_prompt=NATF2.pt&text_prompt=")) as caller:
        await caller.shake_hands()
        prompt = running.engine.calls[0].prompt
        assert prompt.text == "You teach."
        assert prompt.voice is not None
        assert prompt.voice.name == "NATF2"


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("persona=nobody", 404, "nobody"),
        ("persona=../../etc/passwd", 404, "persona"),
        ("voice=VARF0", 404, "VARF0"),
        ("voice_prompt=../secret.pt", 404, "secret"),
        ("seed=abc", 400, "seed"),
        ("seed=99999999999999999999999", 400, "seed"),
        ("temperature=nan", 400, "temperature"),
        ("audio_temperature=9", 400, "temperature"),
        ("top_k=0", 400, "top_k"),
        ("text_topk=1.5", 400, "text_topk"),
        ("audio=mp3", 400, "audio"),
        ("prompt=You+are+free", 403, "personas.custom"),
        ("text_prompt=You+are+free", 403, "personas.custom"),
    ],
)
@pytest.mark.parametrize("route", ["/ws/chat", "/api/chat"])
async def test_bad_requests_are_refused_at_the_upgrade(
    serve: Serve, route: str, query: str, status: int, words: str
) -> None:
    running = await serve()
    code, message = await refused(running, f"{route}?{query}")
    assert code == status
    assert words in message
    assert running.record.events == []
    assert running.engine.opened == 0


async def test_a_prompt_too_long_or_beside_a_persona_is_refused(serve: Serve) -> None:
    running = await serve(personas={"custom": True, "max_prompt_chars": 20})
    assert await refused(running, "/ws/chat?prompt=" + "x" * 21) == (
        400,
        "The prompt has 21 characters; at most 20 are allowed.",
    )
    status, _ = await refused(running, "/ws/chat?prompt=x&persona=teacher")
    assert status == 400


async def test_the_password_is_asked_for_at_every_door(serve: Serve) -> None:
    running = await serve(plugins={"options": {"password": {"password": "sesame"}}})
    for path in ("/ws/chat", "/api/chat", "/ws/chat?persona=nobody"):
        status, message = await refused(running, path)
        assert status == 401
        assert "log in" in message
    assert (await refused(running, "/ws/chat", additional_headers={"Authorization": "Bearer wrong"}))[0] == 401
    basic = {"Authorization": "Basic " + base64.b64encode(b"me:sesame").decode()}
    for path in ("/personas", "/voices"):
        assert (await get(running, path))[0] == 401
        assert (await get(running, path, **basic))[0] == 200
    async with dial(running.url(), additional_headers=basic) as caller:
        await caller.shake_hands()
    assert (await get(running, "/health"))[0] == 200
    session = json.loads((await get(running, "/session"))[2])
    assert (session["authenticated"], session["identity"], session["protected"]) == (False, None, True)


async def test_who_is_not_authorised_is_refused(serve: Serve) -> None:
    class OnlyTeachers:
        @hookimpl
        def authorize(self, persona: Persona) -> bool:
            return persona.id == "teacher"

    running = await serve(extra=(OnlyTeachers(),))
    assert (await refused(running, "/ws/chat?persona=assistant"))[0] == 403
    async with dial(running.url("/ws/chat?persona=teacher")) as caller:
        await caller.shake_hands()
    listed = json.loads((await get(running, "/personas"))[2])
    assert [persona["id"] for persona in listed["personas"]] == ["teacher"]


# What a client may send.


def audio(data: bytes) -> bytes:
    return bytes([Kind.AUDIO]) + data


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        ("hello", CloseCode.BAD_MESSAGE, "binary"),
        (b"", CloseCode.BAD_MESSAGE, "empty"),
        (audio(b"garbage that is no Ogg"), CloseCode.BAD_MESSAGE, "Ogg"),
        (audio(coded(speech(0.2))[0][:200] + b"OggS" * 50), CloseCode.BAD_MESSAGE, "Ogg"),
        (bytes([Kind.METADATA]) + b"{not json", CloseCode.BAD_MESSAGE, "JSON"),
        (bytes([Kind.METADATA]) + b'{"type": "\xff"}', CloseCode.BAD_MESSAGE, "JSON"),
    ],
)
async def test_bad_messages_end_this_call_and_no_other(
    serve: Serve, message: str | bytes, code: CloseCode, words: str
) -> None:
    running = await serve(**PLAIN)
    samples = speech(1.2)
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as other:
        await other.shake_hands()
        half = await other.talk(samples[: 7 * FRAME])
        async with dial(running.url()) as caller:
            await caller.shake_hands()
            await caller.socket.send(message)
            assert await caller.end() == code
            assert words in caller.error
        rest = await other.talk(samples[7 * FRAME :])
        [end] = await running.record.ended()
        assert (end.reason, end.code) == ("bad_message", code)
        assert len(running.engine.calls) == 1
    np.testing.assert_allclose(np.concatenate([half, rest]), samples, atol=1e-4)


async def test_a_message_of_10_mb_closes_the_call(serve: Serve) -> None:
    running = await serve()
    async with dial(running.url()) as caller:
        await caller.shake_hands()
        with contextlib.suppress(ConnectionClosed):
            await caller.socket.send(audio(bytes(10 * 2**20)))
        await caller.end()
    [end] = await running.record.ended()
    assert (end.reason, end.code) == ("bad_message", CloseCode.TOO_BIG)
    await is_fine(running)


async def test_unknown_kinds_and_the_servers_own_are_ignored(serve: Serve) -> None:
    running = await serve()
    async with dial(running.url()) as caller:
        await caller.shake_hands()
        for kind in (0, 2, 3, 5, 6, 7, 99, 255):
            await caller.socket.send(bytes([kind]) + b"\xff\x00")
        await caller.socket.send(b'\x04{"type": "something", "else": 1}')
        await caller.socket.send(bytes([Kind.AUDIO]))
        assert len(await caller.talk(speech(0.16))) == 2 * FRAME


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


async def test_an_old_streams_pages_are_dropped(serve: Serve) -> None:
    running = await serve(**PLAIN)
    samples = speech(0.8, seed=3)
    async with dial(running.url()) as caller:
        await caller.shake_hands()
        for piece in coded(speech(0.8))[4:]:
            await caller.socket.send(audio(piece))
        assert alike(samples, await caller.talk(samples))
    [end] = await running.record.ended()
    assert end.frames_in == 10


async def test_a_truncated_stream_does_not_hold_anything(serve: Serve) -> None:
    running = await serve()
    async with dial(running.url()) as caller:
        await caller.shake_hands()
        pieces = coded(speech(0.4))
        for piece in pieces[:-1]:
            await caller.socket.send(audio(piece))
        await caller.socket.send(audio(pieces[-1][:-20]))
        while caller.kinds.count(Kind.AUDIO) < 4:
            await caller.next()
    await running.record.ended()
    assert running.engine.calls == []


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


async def test_a_flood_of_audio_is_ended(serve: Serve) -> None:
    running = await serve()
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        for _ in range(30):
            await caller.socket.send(audio(bytes(48_000)))
        assert await caller.end() == CloseCode.TOO_FAST
        assert "real time" in caller.error


async def test_frames_beyond_the_lag_are_dropped_counted_and_told(serve: Serve) -> None:
    engine = EchoEngine(max_waiting=5)
    running = await serve(engine)
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        engine.steps.clear()
        await caller.say(speech(1.6))
        await running.record.until(lambda: sum(e.count for e in running.record.of(FramesDropped)) >= 14)
        stats = await caller.told("stats")
        while stats["dropped"] < 14:
            stats = await caller.told("stats")
        assert stats["input_lag_ms"] <= 6 * 80
        engine.steps.set()
        await caller.next()
    [end] = await running.record.ended()
    assert end.dropped >= 14


# Leaving, at any point.


async def test_a_client_that_vanishes_gives_its_slot_back_in_every_phase(serve: Serve) -> None:
    engine = EchoEngine(slots=1)
    running = await serve(engine)

    def cut(socket: Any) -> None:
        socket.transport.abort()  # no goodbye: the network is gone

    async with dial(running.url()) as caller:  # in mid-call
        await caller.shake_hands()
        await caller.talk(speech(0.4))
        cut(caller.socket)
        [end] = await running.record.ended(1)
        assert (end.reason, end.frames_out) == ("left", 5)

    engine.prompts.clear()
    async with dial(running.url()) as caller:  # while the prompt is prepared
        await running.record.until(lambda: len(running.record.of(SessionStarted)) == 2)
        cut(caller.socket)
        await running.record.ended(2)
    assert engine.calls == []
    engine.prompts.set()

    async with dial(running.url()) as holder:
        await holder.shake_hands()
        async with dial(running.url()) as caller:  # in the queue
            assert (await caller.told("queued"))["place"] == 1
            cut(caller.socket)
            await running.record.ended(3)
        assert running.service.admission.waiting == 0
        engine.steps.clear()
        await holder.say(speech(0.4))  # with frames that the engine has and has not answered
        cut(holder.socket)
        await running.record.ended(4)
    engine.steps.set()

    async with connect(running.url(), compression=None, proxy=None) as socket:  # right after the upgrade
        cut(socket)
    await running.record.ended(5)
    assert engine.calls == []
    await is_fine(running)
    ids = [info.id for info, event in running.record.events if isinstance(event, SessionEnded)]
    assert len(ids) == len(set(ids))


async def test_calls_dropped_in_every_phase_leave_nothing_behind(serve: Serve) -> None:
    engine = EchoEngine(slots=3)
    running = await serve(engine)
    await is_fine(running)
    tasks, threads = asyncio.all_tasks(), threading.active_count()

    async def drop(index: int) -> None:
        async with connect(running.url(f"/ws/chat?audio={('opus', 'pcm')[index % 2]}"), proxy=None) as socket:
            if index % 4 > 0:
                await socket.recv()
            if index % 4 > 1:
                await socket.send(audio(bytes(3840)))
            if index % 4 > 2:
                await socket.send(audio(bytes(3840)))
                socket.transport.abort()

    for start in range(0, 80, 8):
        await asyncio.gather(*(drop(start + index) for index in range(8)))
    await running.record.ended(81)
    assert engine.calls == []
    assert running.service.admission.waiting == 0
    assert threading.active_count() <= threads + 8
    _done, left = await asyncio.wait(asyncio.all_tasks() - tasks | {asyncio.create_task(asyncio.sleep(0))}, timeout=10)
    assert left == set()
    ids = [info.id for info, event in running.record.events if isinstance(event, SessionEnded)]
    assert len(ids) == len(set(ids))


async def test_half_a_request_holds_nothing(serve: Serve) -> None:
    running = await serve()
    _reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(b"GET /ws/chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n")
    await writer.drain()
    writer.transport.abort()
    await is_fine(running)


async def test_a_client_that_never_reads_is_closed(serve: Serve) -> None:
    running = await serve(EchoEngine(max_waiting=500), sndbuf=4096, session={"send_s": 0.2})
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", running.port))
    async with connect(
        running.url("/ws/chat?audio=pcm"), sock=raw, compression=None, proxy=None, max_queue=1, close_timeout=0.1
    ) as socket:
        for _ in range(150):
            await socket.send(audio(bytes(3840)))
        [end] = await running.record.ended()
        assert (end.reason, end.code) == ("slow", CloseCode.SLOW_READER)
    assert running.engine.calls == []
    await is_fine(running)


# The queue.


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


async def test_a_silent_wait_is_pinged(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=0))
    async with dial(running.url("/api/chat")) as caller:
        assert await caller.next() == Kind.PING


# Limits.


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


async def test_a_prompt_that_takes_too_long_ends_the_call(serve: Serve) -> None:
    engine = EchoEngine()
    engine.prompts.clear()
    running = await serve(engine, session={"prompt_s": 0.05})
    async with dial(running.url()) as caller:
        assert await caller.end() == CloseCode.HANDSHAKE_TIMEOUT
    await running.record.ended()
    assert engine.calls == []


# Faults behind the session.


@pytest.mark.parametrize("phase", ["open", "ready", "push", "frames"])
@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (EngineError("The card is on fire."), CloseCode.INTERNAL, "The card is on fire."),
        (RuntimeError("secret detail"), CloseCode.INTERNAL, "Something failed in the server."),
        (PromptError("The prompt is too long."), CloseCode.BAD_MESSAGE, "too long"),
    ],
)
async def test_an_engine_that_fails_ends_this_call_and_no_other(
    serve: Serve, phase: str, error: Exception, code: CloseCode, words: str
) -> None:
    running = await serve(**PLAIN)
    trouble = running.engine.troubles
    async with dial(running.url("/ws/chat?audio=pcm&persona=assistant"), "pcm") as other:
        await other.shake_hands()
        trouble.only, trouble.frames_at = "NATM2", 2
        setattr(trouble, phase, error)
        async with dial(running.url("/ws/chat?persona=teacher")) as caller:
            if phase in ("push", "frames"):
                await caller.shake_hands()
                await caller.say(speech(0.4))
            assert await caller.end() == code
            assert words in caller.error
            assert "secret" not in caller.error
        [end] = await running.record.ended()
        assert end.code == code
        assert len(running.engine.calls) == 1
        samples = speech(0.8)
        np.testing.assert_allclose(await other.talk(samples), samples, atol=1e-4)


async def test_an_engine_that_closes_ends_every_call_and_health_says_so(serve: Serve) -> None:
    running = await serve()
    async with dial(running.url()) as one, dial(running.url("/api/chat")) as two:
        await asyncio.gather(one.shake_hands(), two.shake_hands())
        running.engine.close()
        assert await asyncio.gather(one.end(), two.end()) == [CloseCode.INTERNAL] * 2
    status, _, body = await get(running, "/health")
    assert status == 503
    assert json.loads(body)["problem"] == "The engine is closed."


class Faulty:
    """Raises in every hook of a running call."""

    def _raise(self) -> None:
        raise RuntimeError("plugin out of order")

    @hookimpl
    def list_personas(self) -> list[Persona]:
        self._raise()
        return []

    @hookimpl
    def resolve_persona(self) -> None:
        self._raise()

    @hookimpl
    def list_voices(self) -> list[str]:
        self._raise()
        return []

    @hookimpl
    def load_voice(self) -> None:
        self._raise()

    @hookimpl
    def transform_input(self) -> None:
        self._raise()

    @hookimpl
    def transform_output(self) -> None:
        self._raise()

    @hookimpl
    def session_event(self) -> None:
        self._raise()


class FaultyTransform:
    """A transform that breaks at its third frame."""

    def __init__(self) -> None:
        self.frames = 0

    @hookimpl
    def transform_output(self) -> "FaultyTransform":
        return FaultyTransform()

    def process(self, frame: Frame) -> Frame:
        self.frames += 1
        if self.frames == 3:
            raise RuntimeError("transform out of order")
        return frame


async def test_a_plugin_that_raises_in_every_hook_disturbs_no_call(serve: Serve) -> None:
    running = await serve(extra=(FaultyTransform(), Looks()), **PLAIN)
    host: Any = running.service.host
    host._manager.register(Faulty(), "faulty")
    samples = speech(0.8)
    async with dial(running.url("/ws/chat?audio=pcm&persona=teacher"), "pcm") as caller:
        await caller.shake_hands()
        np.testing.assert_allclose(await caller.talk(samples), samples, atol=1e-4)
    [end] = await running.record.ended()
    assert (end.reason, end.frames_out) == ("left", 10)
    failed = [failure.plugin for failure in running.record.of(TransformFailed)]
    assert sorted(failed) == ["FaultyTransform", "faulty", "faulty"]


class Looks:
    """A transform that sees the session it is for."""

    @hookimpl
    def transform_input(self, session: SessionInfo) -> None:
        assert session.persona == "teacher"


async def test_a_denial_by_a_broken_auth_plugin(serve: Serve) -> None:
    class Broken:
        @hookimpl
        async def authenticate(self) -> Identity:
            raise RuntimeError("no database")

    running = await serve(extra=(Broken(),))
    assert (await refused(running, "/ws/chat"))[0] == 401
    assert (await get(running, "/personas"))[0] == 401


async def test_goodbye(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=1))
    async with dial(running.url()) as talking, dial(running.url("/api/chat")) as waiting:
        await talking.shake_hands()
        await running.record.until(lambda: running.service.admission.waiting == 1)
        running.server.should_exit = True
        assert await asyncio.gather(talking.end(), waiting.end()) == [CloseCode.GOING_AWAY] * 2
        assert "shutting down" in talking.error
        assert "shutting down" in waiting.error
    assert {end.reason for end in await running.record.ended(2)} == {"shutdown"}
    assert running.engine.calls == []


# HTTP.


async def test_the_json_endpoints(serve: Serve) -> None:
    running = await serve(personas={"custom": True, "max_prompt_chars": 99, "default": "teacher"})
    personas = json.loads((await get(running, "/personas"))[2])
    assert personas == {
        "personas": [
            {"id": "teacher", "name": "Teacher", "description": "", "voice": "NATM2"},
            {"id": "assistant", "name": "Assistant", "description": "Helps.", "voice": "NATF2"},
        ],
        "default": "teacher",
        "custom": True,
        "max_prompt_chars": 99,
    }
    assert json.loads((await get(running, "/voices"))[2]) == {"voices": ["NATF2", "NATM2"]}
    status, headers, body = await get(running, "/health")
    health = json.loads(body)
    assert status == 200
    assert health | {"version": ""} == {
        "status": "ok",
        "engine": {"name": "echo", "notice": "This is an echo.", "device": "cpu", "slots": 2, "busy": 0},
        "waiting": 0,
        "version": "",
    }
    assert headers["cache-control"] == "no-store"
    assert json.loads((await get(running, "/session"))[2]) == {
        "authenticated": True,
        "identity": "anonymous",
        "protected": False,
        "login": None,
        "engine": {"name": "echo", "notice": "This is an echo."},
    }


async def test_the_page_and_nothing_else(serve: Serve, tmp_path: Any) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "link.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "page" / ".hidden").write_text("secret")
    running = await serve()
    status, headers, body = await get(running, "/")
    assert (status, body) == (200, b"<!doctype html><title>page</title>")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    status, headers, _ = await get(running, "/app.js")
    assert headers["content-type"].startswith("text/javascript")
    assert (await get(running, "/app.js", **{"If-None-Match": headers["etag"]}))[0] == 304
    for path in (
        "/nothing.html",
        "/link.txt",
        "/.hidden",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/app.js%00",
        "//etc/passwd",
        "/page/index.html",
    ):
        status, _, body = await get(running, path)
        assert (status, b"secret" in body) == (404, False), path
        assert "error" in json.loads(body)


async def test_a_page_folder_without_a_page_is_named(serve: Serve, tmp_path: Any) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"server\.web: .*index\.html"):
        await serve(server={"web": "empty"})


async def test_queries_stay_out_of_the_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    running = await serve(personas={"custom": True})
    async with dial(running.url("/ws/chat?prompt=top+secret&ticket=hushhush")) as caller:
        await caller.shake_hands()
        await caller.talk(speech(0.16))
    await refused(running, "/ws/chat?persona=nobody&ticket=hushhush")
    await running.record.ended()
    assert "session ended" in caplog.text
    assert "secret" not in caplog.text
    assert "hushhush" not in caplog.text
