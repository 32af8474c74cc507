"""A dropped line is picked up again: the same conversation over another connection, and nobody else's."""

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from websockets.exceptions import InvalidStatus

from core.engine.call import Frame
from core.events import (
    CallRefused,
    SessionDropped,
    SessionEnded,
    SessionEvent,
    SessionInfo,
    SessionResumed,
    SessionWarned,
    TextSaid,
)
from core.plugin.hookspecs import hookimpl
from core.session.protocol import CloseCode
from core.session.resumption import Pickup
from core.testing import EchoEngine
from tests.caller import FRAME, PLAIN, Caller, dial, is_fine, refused
from tests.conftest import Running, Serve, speech
from tests.test_audio import alike

PCM = "/ws/chat?audio=pcm"


async def begin(caller: Caller) -> tuple[str, str]:
    """Shake hands; the session and its token."""
    await caller.shake_hands()
    [ready] = [told for told in caller.metadata if told["type"] == "ready"]
    return ready["session"], ready["resume"]


def again(
    running: Running, token: str, *, words: int | None = None, audio: str = "pcm", **options: Any
) -> AbstractAsyncContextManager[Caller]:
    """The same caller over a new connection."""
    query = f"/ws/chat?audio={audio}&resume={token}" + ("" if words is None else f"&words={words}")
    return dial(running.url(query), audio, **options)


async def cut(running: Running, caller: Caller) -> None:
    """The network is gone, and the server knows."""
    before = len(running.record.of(SessionDropped))
    caller.socket.transport.abort()
    await running.record.until(lambda: len(running.record.of(SessionDropped)) > before)


async def everything(caller: Caller) -> None:
    """Take all that the server has sent so far."""
    await caller.socket.send(b'\x04{"type": "echo", "id": 1}')
    await caller.told("echo")


def said(running: Running) -> str:
    """All that the agent has said, as the plugins hear it."""
    return "".join(event.text for event in running.record.of(TextSaid))


class Counting:
    """Counts the transforms that are made and the frames that pass them."""

    def __init__(self) -> None:
        self.made = self.frames = 0
        self.events: list[SessionEvent] = []

    @hookimpl
    def transform_input(self) -> "Counting":
        self.made += 1
        return self

    def process(self, frame: Frame) -> Frame:
        self.frames += 1
        return frame

    @hookimpl
    def session_event(self, session: SessionInfo, event: SessionEvent) -> None:
        self.events.append(event)


async def test_the_conversation_goes_on_over_another_connection(serve: Serve) -> None:
    counting = Counting()
    running = await serve(extra=(counting,), **PLAIN)
    async with dial(running.url(PCM), "pcm") as first:
        session, token = await begin(first)
        await first.talk(speech(0.8))
        await cut(running, first)
        assert len(running.engine.calls) == 1
        await running.record.until(lambda: "word3" in said(running))  # the agent goes on, and hears silence
    async with again(running, token, words=len(first.words)) as second:
        resumed, next_token = await begin(second)
        assert (resumed, next_token != token) == (session, True)
        await everything(second)
        mine = speech(0.8, seed=1)
        np.testing.assert_allclose(await second.talk(mine), mine, atol=1e-4)
        await everything(second)
        words = "".join(first.words + second.words)
        assert words == said(running) == "".join(f" word{index}" for index in range(words.count("word")))
        await second.socket.close()
        [end] = await running.record.ended()
    assert (end.reason, end.code, running.engine.opened) == ("left", 1000, 1)
    assert end.frames_in == end.frames_out == counting.frames
    assert counting.made == 1
    kinds = [type(event) for event in counting.events if isinstance(event, SessionDropped | SessionResumed)]
    assert kinds == [SessionDropped, SessionResumed]
    assert running.record.of(SessionDropped) == [SessionDropped(1006)]
    await is_fine(running)


async def test_opus_begins_a_new_stream_and_the_coding_may_change(serve: Serve) -> None:
    running = await serve(**PLAIN)
    async with dial(running.url()) as first:
        _, token = await begin(first)
        await first.talk(speech(0.8))
        await cut(running, first)
    for audio in ("opus", "pcm", "opus"):
        async with again(running, token, audio=audio) as caller:
            _, token = await begin(caller)
            await everything(caller)
            mine = speech(1.6, seed=2)
            assert alike(mine, await caller.talk(mine))
            await cut(running, caller)


async def test_a_line_that_the_server_takes_for_alive_is_taken_over(serve: Serve) -> None:
    """A client may notice sooner: its network has changed, and the old connection takes what is sent without a word."""
    running = await serve(**PLAIN)
    async with dial(running.url(PCM), "pcm") as first:
        _, token = await begin(first)
        await first.talk(speech(0.4))
        async with again(running, token, words=0) as second:
            await begin(second)
            assert await first.end() == CloseCode.REPLACED
            await everything(second)
            assert second.words == first.words, "what was sent, and perhaps not received"
            await second.talk(speech(0.4))
    assert running.record.of(SessionDropped) == [SessionDropped(CloseCode.REPLACED)]
    [end] = await running.record.ended()
    assert end.frames_out >= 10


async def test_of_the_sound_only_the_newest_is_kept(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.session.resumable_transport.KEPT_S", 0.4)
    running = await serve(**PLAIN)
    async with dial(running.url(PCM), "pcm") as first:
        _, token = await begin(first)
        await first.talk(speech(0.4))
        await cut(running, first)
        await running.record.until(lambda: "word3" in said(running))
    async with again(running, token, words=len(first.words)) as second:
        await begin(second)
        await everything(second)
        assert len(second.heard) <= 6 * FRAME
        assert "".join(first.words + second.words) == said(running), "but all of the words"


async def test_a_token_is_for_its_owner_and_for_one_use(serve: Serve) -> None:
    named = {"ann": "sesame", "bob": "saffron"}
    running = await serve(plugins={"disabled": ["loudness"], "options": {"password": {"named": named}}})
    ann, bob = ({"Authorization": f"Bearer {password}"} for password in named.values())
    async with dial(running.url(PCM), "pcm", additional_headers=ann) as first:
        _, token = await begin(first)
        await cut(running, first)
    again_url = f"{PCM}&resume={token}"
    assert (await refused(running, again_url))[0] == 401
    status, why = await refused(running, again_url, additional_headers=bob)
    assert (status, "somebody else's" in why) == (403, True)
    for garbage in ("x", "7.x", token + "x", "%00", "0." + "y" * 500, "é"):
        status, why = await refused(running, f"{PCM}&resume={garbage}", additional_headers=ann)
        assert (status, "is over" in why) == (410, True)
    assert (await refused(running, f"{again_url}&words=many", additional_headers=ann))[0] == 400
    async with again(running, token, additional_headers=ann) as second:
        _, next_token = await begin(second)
        assert (await refused(running, again_url, additional_headers=ann))[0] == 410
        await everything(second)
        await second.socket.close()
    await running.record.ended()
    assert (await refused(running, f"{PCM}&resume={next_token}", additional_headers=ann))[0] == 410
    refusals = [event.reason for event in running.record.service_events if isinstance(event, CallRefused)]
    assert set(refusals) == {"unauthorized", "forbidden", "gone", "bad_request"}


async def test_used_twice_at_once_it_opens_one_door(serve: Serve) -> None:
    running = await serve(**PLAIN)
    async with dial(running.url(PCM), "pcm") as first:
        _, token = await begin(first)
        await cut(running, first)

    async def come() -> int:
        try:
            async with again(running, token) as caller:
                await begin(caller)
                await everything(caller)
                return 101
        except InvalidStatus as refusal:
            return refusal.response.status_code

    assert sorted(await asyncio.gather(*(come() for _ in range(5)))) == [101, 410, 410, 410, 410]
    [_end] = await running.record.ended()


async def test_a_token_is_good_again_when_its_connection_came_to_nothing(serve: Serve) -> None:
    """The client never learned of the next one."""
    running = await serve(**PLAIN)
    async with dial(running.url(PCM), "pcm") as first:
        session, token = await begin(first)
        await cut(running, first)
    for _ in range(2):
        async with again(running, token) as lost:
            await cut(running, lost)
    async with again(running, token) as back:
        assert (await begin(back))[0] == session
        await everything(back)


async def test_a_kept_call_has_its_slot_and_the_limits_of_its_caller(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=1), server={"calls_per_address": 2}, session={"resume_s": 1.5}, **PLAIN)
    async with dial(running.url(PCM), "pcm") as first:
        _, token = await begin(first)
        await cut(running, first)
    async with dial(running.url(PCM), "pcm") as second:
        assert (await second.told("queued"))["place"] == 1
        async with dial(running.url(PCM), "pcm") as third:
            assert await third.end() == CloseCode.BUSY
            assert "2 calls come from your address" in third.error
        await second.shake_hands()  # nobody has come back in time
    ends = {end.reason: end.code for end in running.record.of(SessionEnded)}
    assert ends == {"left": 1006, "too_many_calls": CloseCode.BUSY}
    assert (await refused(running, f"{PCM}&resume={token}"))[0] == 410


async def test_limits_go_on_without_the_caller(serve: Serve) -> None:
    running = await serve(session={"max_s": 2.0, "warn_s": 1.9}, **PLAIN)
    async with dial(running.url(PCM), "pcm") as first:
        _, token = await begin(first)
        await cut(running, first)
        await running.record.until(lambda: bool(running.record.of(SessionWarned)) and "word1" in said(running))
    async with again(running, token) as second:
        _, token = await begin(second)
        assert (await second.told("warning"))["seconds"] < 1.9
        await cut(running, second)
    [end] = await running.record.ended()
    assert (end.reason, end.code) == ("time", CloseCode.TIME_LIMIT)
    assert (await refused(running, f"{PCM}&resume={token}"))[0] == 410


async def test_a_server_that_stops_waits_for_nobody_who_is_away(serve: Serve) -> None:
    running = await serve(server={"drain_s": 60}, **PLAIN)
    async with dial(running.url(PCM), "pcm") as away, dial(running.url(PCM), "pcm") as here:
        _, token = await begin(away)
        await begin(here)
        await cut(running, away)
        draining = asyncio.create_task(running.service.drain())
        [end] = await running.record.ended()
        assert end.reason == "shutdown"
        assert (await refused(running, f"{PCM}&resume={token}"))[0] == 503
        assert (await here.told("warning"))["limit"] == "shutdown"
        await here.talk(speech(0.16))
        here.socket.transport.abort()  # it cannot come back any more
        assert (await running.record.ended(2))[1].reason == "left"
        await draining


@pytest.mark.parametrize(("code", "kept"), [(1000, False), (1001, False), (4100, True), (1011, True)])
async def test_a_goodbye_ends_the_call_at_once(serve: Serve, code: int, kept: bool) -> None:
    running = await serve(**PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        await begin(caller)
        await caller.socket.close(code)
        await running.record.until(lambda: bool(running.record.of(SessionDropped) or running.record.of(SessionEnded)))
    assert [event.code for event in running.record.of(SessionDropped)] == [code] * kept
    assert len(running.engine.calls) == kept


async def test_where_no_call_is_kept_there_is_no_token(serve: Serve) -> None:
    running = await serve(session={"resume_s": 0}, **PLAIN)
    async with dial(running.url(PCM), "pcm") as caller:
        assert (await begin(caller))[1] == ""
        caller.socket.transport.abort()
        [end] = await running.record.ended()
    assert end.reason == "left"


async def test_calls_of_nvidias_clients_are_not_kept(serve: Serve) -> None:
    running = await serve(**PLAIN)
    async with dial(running.url("/api/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        caller.socket.transport.abort()
        [end] = await running.record.ended()
    assert end.reason == "left"
    assert not running.record.of(SessionDropped)


async def test_plugins_say_what_they_want_to_whoever_comes_back(serve: Serve) -> None:
    running = await serve(**PLAIN)
    async with dial(running.url(PCM), "pcm") as first:
        session, token = await begin(first)
        await cut(running, first)
    control = running.record.controls[session]
    control.tell("count", value=7)
    control.caller_said("hello", 0, 80)
    control.state["kept"] = True
    async with again(running, token) as second:
        await begin(second)
        await second.told("caller_text")
        assert [told["value"] for told in second.metadata if told["type"].endswith(".count")] == [7]
        assert control.state["kept"]


async def test_the_recording_is_whole(serve: Serve, tmp_path: Path) -> None:
    recording = {"disabled": ["loudness"], "options": {"recording": {"enabled": True}}}
    running = await serve(plugins=recording)
    async with dial(running.url(PCM), "pcm") as first:
        _, token = await begin(first)
        await first.talk(speech(0.8))
        await cut(running, first)
        await running.record.until(lambda: "word3" in said(running))
    async with again(running, token) as second:
        await begin(second)
        await everything(second)
        await second.talk(speech(0.8, seed=1))
    [end] = await running.record.ended()
    host: Any = running.service.host
    await asyncio.to_thread(host._manager.get_plugin("recording")._writer.stop)
    folder = tmp_path / "recordings"
    ([sound], [transcript]) = list(folder.glob("*.flac")), list(folder.glob("*.jsonl"))
    samples, _ = soundfile.read(sound, dtype="int16", always_2d=True)
    assert len(samples) >= end.frames_out * FRAME
    lines = [json.loads(line) for line in transcript.read_text().splitlines()]
    assert "".join(line["text"] for line in lines if line["type"] == "text") == said(running)
    assert not [line for line in lines if line["type"] == "lost"]


class LateSocket:
    """A connection that is accepted when its call has just ended."""

    def __init__(self) -> None:
        self.code = 0

    async def receive(self) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def send(self, message: bytes) -> None:
        raise AssertionError("the call is over")

    async def close(self, code: int, reason: str = "") -> None:
        self.code = code


async def test_who_comes_back_while_the_call_ends_is_hung_up_on(serve: Serve) -> None:
    running = await serve(**PLAIN)
    async with dial(running.url(PCM), "pcm") as first:
        session, token = await begin(first)
        await cut(running, first)
    pickup = Pickup(token, "anonymous", "pcm", None)
    call = running.service.dropped.claim(pickup)
    running.record.controls[session].end("over", "That is all.")
    await running.record.ended()
    call.give_back(token)
    assert (await refused(running, f"{PCM}&resume={token}"))[0] == 410
    socket = LateSocket()
    async with asyncio.timeout(10):
        await running.service.dropped.resume(call, pickup, socket)
    assert socket.code == CloseCode.GOING_AWAY
