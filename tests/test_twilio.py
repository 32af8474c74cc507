"""The plugin twilio: the answer to a call, and its media stream as Twilio's documentation gives its messages."""

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import numpy as np
import pytest
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from core.events import CallRefused, KeyPressed, SessionEnded, SessionReady
from core.media.audio_codecs import Samples
from core.media.raw_audio import RawAudioReader, RawAudioWriter
from core.testing import EchoEngine
from tests.caller import dial, is_fine
from tests.conftest import Running, Serve, speech

TOKEN = "a3f0c2b79d1e4f5a8b6c7d8e9f001122"
STREAM = "MZ18ad3ab5a668481ce02b83e7395059f0"
FORM = {"CallSid": "CA123", "From": "+15005550006", "To": "+15005550010", "Direction": "inbound"}
PIECE = 160
"""20 ms of mu-law."""


def settings(**options: Any) -> dict[str, Any]:
    return {"plugins": {"disabled": ["loudness"], "options": {"twilio": {"auth_token": TOKEN, **options}}}}


def sign(url: str, form: dict[str, str] | None = None, token: str = TOKEN) -> dict[str, str]:
    return {"X-Twilio-Signature": RequestValidator(token).compute_signature(url, form or {})}


async def ring(running: Running, headers: dict[str, str] | None = None, query: str = "") -> tuple[int, str]:
    """A call comes in: status and body of the answer."""
    url = running.url("/twilio/voice" + query, "http")
    request = Request(url, urlencode(FORM).encode(), sign(url, FORM) if headers is None else headers)

    def post() -> tuple[int, str]:
        try:
            with urlopen(request, timeout=10) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(post)


async def parameters(running: Running) -> dict[str, str]:
    """The parameters that the answer to a call gives its stream."""
    status, twiml = await ring(running)
    assert status == 200
    return dict(re.findall(r'<Parameter name="(\w+)" value="([^"]*)"', twiml))


class Phone:
    """Twilio's end of a media stream."""

    def __init__(self, socket: ClientConnection, running: Running) -> None:
        self.socket = socket
        self._running = running
        self.heard: Samples = np.empty(0, np.float32)
        self.pieces: list[int] = []
        self.marks: list[str] = []
        self.cleared = 0
        self._number = 0
        self._reader, self._writer = RawAudioReader("mulaw", 8000), RawAudioWriter("mulaw", 8000)

    async def send(self, event: str, **fields: Any) -> None:
        self._number += 1
        message = {"event": event, "sequenceNumber": str(self._number), "streamSid": STREAM, **fields}
        await self.socket.send(json.dumps(message))

    async def start(self, custom: dict[str, str], encoding: str = "audio/x-mulaw") -> "Phone":
        await self.socket.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        await self.send(
            "start",
            start={
                "accountSid": "AC123",
                "streamSid": STREAM,
                "callSid": "CA123",
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": encoding, "sampleRate": 8000, "channels": 1},
                "customParameters": custom,
            },
        )
        return self

    async def call(self) -> "Phone":
        """Have a session: a call comes in, is answered, and its caller is heard."""
        record = self._running.record
        before = len(record.of(SessionReady))
        await self.start(await parameters(self._running))
        await record.until(lambda: len(record.of(SessionReady)) > before)
        return self

    async def next(self) -> str:
        """Take one message; its event."""
        async with asyncio.timeout(10):
            message = json.loads(await self.socket.recv())
        assert message["streamSid"] == STREAM
        match message["event"]:
            case "media":
                sound = base64.b64decode(message["media"]["payload"])
                self.pieces.append(len(sound))
                self.heard = np.concatenate([self.heard, self._reader.read(sound)])
            case "mark":
                self.marks.append(message["mark"]["name"])
            case "clear":
                self.cleared += 1
        return str(message["event"])

    async def say(self, samples: Samples) -> None:
        """Say samples, 20 ms a message."""
        sound = self._writer.write(samples)
        for chunk, start in enumerate(range(0, len(sound), PIECE)):
            payload = base64.b64encode(sound[start : start + PIECE]).decode()
            await self.send(
                "media",
                media={"track": "inbound", "chunk": str(chunk), "timestamp": str(20 * chunk), "payload": payload},
            )

    async def talk(self, samples: Samples) -> Samples:
        """Say samples frame by frame, waiting for each answer; the answer."""
        before = len(self.heard)
        for start in range(0, len(samples), 1920):
            await self.say(samples[start : start + 1920])
            while len(self.heard) < before + start + 1920:
                await self.next()
        return self.heard[before:]

    async def end(self) -> tuple[int, str]:
        """Take all that comes until the server closes; code and reason."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.next()
        return self.socket.close_code or 0, self.socket.close_reason or ""


@asynccontextmanager
async def stream(running: Running, headers: dict[str, str] | None = None) -> AsyncIterator[Phone]:
    url = running.url("/twilio/media")
    options = {"additional_headers": sign(url) if headers is None else headers}
    async with connect(url, compression=None, proxy=None, **options) as socket:  # type: ignore[arg-type]
        yield Phone(socket, running)


async def test_a_call_is_answered_with_a_stream(serve: Serve) -> None:
    running = await serve(**settings(persona="teacher", voice="NATF2"))
    status, twiml = await ring(running, query="?from=console")
    assert status == 200  # the signature is that of the address with its query
    status, twiml = await ring(running, sign(running.url("/twilio/voice", "http"), FORM), "?from=console")
    assert status == 403
    status, twiml = await ring(running)
    assert status == 200
    assert f'<Connect><Stream url="{running.url("/twilio/media")}">' in twiml
    given = await parameters(running)
    assert (given["persona"], given["voice"], given["from"]) == ("teacher", "NATF2", "+15005550006")
    assert len(given["token"]) > 40
    assert given["token"] != (await parameters(running))["token"]


async def test_the_address_may_be_the_operators(serve: Serve) -> None:
    running = await serve(**settings(url="https://talk.example.com"))
    status, twiml = await ring(running, sign("https://talk.example.com/twilio/voice", FORM))
    assert status == 200
    assert '<Stream url="wss://talk.example.com/twilio/media">' in twiml


@pytest.mark.parametrize(
    "headers", [{}, {"X-Twilio-Signature": "nonsense"}, sign("http://elsewhere/twilio/voice", FORM)]
)
async def test_a_call_without_the_signature_is_refused(serve: Serve, headers: dict[str, str]) -> None:
    running = await serve(**settings())
    status, body = await ring(running, headers)
    assert status == 403
    assert "signature" in json.loads(body)["error"]


async def test_a_call_by_telephone(serve: Serve) -> None:
    engine = EchoEngine()
    running = await serve(engine, **settings(persona="teacher", voice="NATF2"))
    said = speech(2.4)
    async with stream(running) as phone:
        await phone.call()
        heard = await phone.talk(said)
        [call] = engine.calls
        assert call.prompt.text == "You teach."
        assert call.prompt.voice is not None
        assert call.prompt.voice.name == "NATF2"
        for digit in ("1", "", "12", "x"):  # of which the others are no keys
            await phone.send("dtmf", dtmf={"track": "inbound_track", "digit": digit})
        await phone.send("stop", stop={"accountSid": "AC123", "callSid": "CA123"})
        assert (await phone.end())[0] == 1000
    assert running.record.of(KeyPressed) == [KeyPressed("1")]
    assert set(phone.pieces) == {PIECE}
    assert phone.marks == ["25"]
    late = 240  # four filters of 2.5 ms
    error = heard[late:] - said[:-late]
    assert np.corrcoef(said[:-late], heard[late:])[0, 1] > 0.97
    assert np.sqrt(np.mean(np.square(error))) < 0.35 * np.sqrt(np.mean(np.square(said)))
    [ended] = await running.record.ended()
    assert (ended.reason, ended.frames_in, ended.frames_out) == ("left", 30, 30)
    info, _ = running.record.events[0]
    assert (info.route, info.audio, info.identity.name) == ("/twilio/media", "mulaw 8000", "phone")
    assert info.identity.claims == {"call": "CA123", "from": "+15005550006"}


@pytest.mark.parametrize("headers", [{}, {"X-Twilio-Signature": "nonsense"}])
async def test_a_stream_without_the_signature_is_refused(serve: Serve, headers: dict[str, str]) -> None:
    running = await serve(**settings())
    with pytest.raises(InvalidStatus) as refusal:
        async with stream(running, headers):
            pass
    assert refusal.value.response.status_code == 403


@pytest.mark.parametrize(("headers", "status"), [({}, 101), ({"X-Twilio-Signature": "nonsense"}, 403)])
async def test_streams_of_others_may_be_unsigned(serve: Serve, headers: dict[str, str], status: int) -> None:
    """A wrong signature is never one."""
    running = await serve(**settings(signed_streams=False))
    if status == 101:
        async with stream(running, headers) as phone:
            await phone.call()
            await phone.talk(speech(0.16))
        return
    with pytest.raises(InvalidStatus) as refusal:
        async with stream(running, headers):
            pass
    assert refusal.value.response.status_code == status


async def test_a_token_is_good_for_one_stream(serve: Serve) -> None:
    running = await serve(**settings())
    given = await parameters(running)
    async with stream(running) as phone:
        await phone.start(given)
        await running.record.until(lambda: bool(running.record.of(SessionReady)))
    for token in (given["token"], "", "stream.nonsense"):
        async with stream(running) as phone:
            await phone.start(given | {"token": token})
            code, reason = await phone.end()
            assert (code, "token" in reason) == (1008, True)
    assert running.engine.opened == 1


async def test_an_unknown_persona_is_refused_and_counted(serve: Serve) -> None:
    running = await serve(**settings(persona="nobody"))
    async with stream(running) as phone:
        await phone.start(await parameters(running))
        assert (await phone.end())[0] == 1008
    [refusal] = [event for event in running.record.service_events if isinstance(event, CallRefused)]
    assert (refusal.status, refusal.route) == (404, "/twilio/media")


async def test_a_phone_beside_a_caller_of_the_page(serve: Serve) -> None:
    running = await serve(**settings())
    async with stream(running) as phone, dial(running.url("/ws/chat?audio=pcm"), "pcm") as page:
        await phone.call()
        await page.shake_hands()
        said, other = speech(0.8, 1), speech(0.8, 2)
        heard, theirs = await asyncio.gather(phone.talk(said), page.talk(other))
    assert np.corrcoef(said[:-240], heard[240:])[0, 1] > 0.95
    assert np.allclose(other, theirs, atol=1e-3)


async def test_what_waits_too_long_to_be_played_is_dropped(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twilio sends a mark back when it has played what came before: late here, at once afterwards."""
    monkeypatch.setattr("plugins.twilio.LATEST_S", 0.0)
    monkeypatch.setattr("plugins.twilio.MARK_FRAMES", 2)
    running = await serve(**settings())
    async with stream(running) as phone:
        await phone.call()
        await phone.talk(speech(0.32))
        while phone.marks != ["2", "4"]:
            await phone.next()
        await phone.send("mark", mark={"name": "2"})
        while await phone.next() != "clear":
            pass
        await phone.send("mark", mark={"name": "4"})  # which the clear has sent back
        await phone.send("mark", mark={"name": "never sent"})
        await phone.talk(speech(0.16))
    assert phone.cleared == 1


@pytest.mark.parametrize(
    "message",
    [
        "nonsense",
        b"\xff\x00",
        "[]",
        "{}",
        json.dumps({"event": "media", "streamSid": STREAM, "media": {"payload": "AAAA"}}),
        json.dumps({"event": "start", "streamSid": STREAM}),
        json.dumps({"event": "start", "streamSid": STREAM, "start": {"streamSid": STREAM}}),
    ],
)
async def test_a_stream_that_begins_with_something_else_is_closed(serve: Serve, message: str | bytes) -> None:
    running = await serve(**settings())
    async with stream(running) as phone:
        await phone.socket.send(message)
        assert (await phone.end())[0] == 1008
    assert running.engine.opened == 0


async def test_another_coding_is_refused(serve: Serve) -> None:
    running = await serve(**settings())
    async with stream(running) as phone:
        await phone.start(await parameters(running), "audio/l16")
        code, reason = await phone.end()
    assert (code, "x-mulaw" in reason) == (1008, True)


async def test_a_start_that_never_comes(serve: Serve) -> None:
    running = await serve(server={"request_s": 0.2}, **settings())
    async with stream(running) as phone:
        assert (await phone.end())[0] == 1008


@pytest.mark.parametrize(
    "message", ["nonsense", json.dumps({"event": "media", "media": {"payload": "*"}}), json.dumps({"event": 5})]
)
async def test_nonsense_in_mid_call_ends_it(serve: Serve, message: str) -> None:
    running = await serve(**settings())
    async with stream(running) as phone:
        await phone.call()
        await phone.talk(speech(0.16))
        await phone.socket.send(message)
        assert (await phone.end())[0] == 1003
    ends: list[SessionEnded] = await running.record.ended()
    assert ends[0].reason == "bad_message"
    await is_fine(running)


async def test_events_that_are_not_known_are_ignored(serve: Serve) -> None:
    running = await serve(**settings())
    async with stream(running) as phone:
        await phone.call()
        await phone.send("weather", weather={"rain": True})
        await phone.send("media", media={"track": "outbound", "payload": "AAAA"})
        await phone.talk(speech(0.16))


async def test_it_is_off_without_a_token(serve: Serve) -> None:
    running = await serve()
    status, _ = await ring(running)
    assert status == 405  # as for every path that is not there
