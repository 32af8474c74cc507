"""Clients that others wrote, unchanged: LiveKit's PersonaPlex plugin, and what NVIDIA's web client does."""

import asyncio
import contextlib
import io
import re
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import yaml

from core.client.load_test_audio import FRAME_DURATIONS_MS
from core.events import CallRefused, SessionStarted
from core.media.ogg import PageReader
from core.session.protocol import CloseCode, Kind
from core.session.session import HEARTBEAT_S
from core.session.websocket_transport import PING_S
from core.testing import EchoEngine
from tests.caller import FRAME, NVIDIA, Caller, dial
from tests.conftest import Running, Serve, speech
from tests.documents import doc
from tests.test_audio import HEAD, TAGS, alike

CUSTOM = {"personas": {"custom": True}, "plugins": {"disabled": ["loudness"]}}
"""Both clients bring a prompt."""
LIVEKIT = "livekit.plugins.nvidia.experimental.realtime"


class LiveKit:
    """A session of LiveKit's plugin and what it made known."""

    def __init__(self, model: Any) -> None:
        self.heard: npt.NDArray[np.float32] = np.empty(0, np.float32)
        self.words: list[str] = []
        self.errors: list[Any] = []
        self.changed = asyncio.Event()
        self._readers: list[asyncio.Task[None]] = []
        self.session = model.session()
        self.session.on("generation_created", self._listen)
        self.session.on("error", self._failed)

    def _failed(self, error: Any) -> None:
        self.errors.append(error)
        self.changed.set()

    def _listen(self, generation: Any) -> None:
        async def read() -> None:
            async for message in generation.message_stream:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._hear(message.audio_stream))
                    group.create_task(self._read(message.text_stream))

        self._readers.append(asyncio.create_task(read()))

    async def _hear(self, frames: Any) -> None:
        async for frame in frames:
            self.heard = np.concatenate([self.heard, np.frombuffer(frame.data, np.int16) / np.float32(32768)])
            self.changed.set()

    async def _read(self, words: Any) -> None:
        async for word in words:
            self.words.append(word)

    def say(self, samples: npt.NDArray[np.float32]) -> None:
        """Push samples as LiveKit's rooms give them: 10 ms a frame."""
        from livekit import rtc

        for piece in (samples * 32767).astype("<i2").reshape(-1, 240):
            self.session.push_audio(rtc.AudioFrame(piece.tobytes(), 24_000, 1, 240))

    async def until(self, true: Any) -> None:
        """Return as soon as something makes it true."""
        async with asyncio.timeout(15):
            while not true():
                self.changed.clear()
                await self.changed.wait()

    async def close(self) -> None:
        await self.session.aclose()
        await asyncio.gather(*self._readers)


@asynccontextmanager
async def livekit(address: str, **options: Any) -> AsyncIterator[LiveKit]:
    """A session with the server at this address. Skips the test where the plugin is not installed."""
    reason = "uv run --with livekit-plugins-nvidia pytest tests/test_peers.py"
    realtime = pytest.importorskip(LIVEKIT, reason=reason, exc_type=ImportError)
    import aiohttp

    async with aiohttp.ClientSession() as http:
        model = realtime.RealtimeModel(base_url=address, http_session=http, **options)
        client = LiveKit(model)
        try:
            yield client
        finally:
            await client.close()


foreign = pytest.mark.filterwarnings("default")
"""Warnings in others' code are theirs."""


@foreign
@pytest.mark.parametrize("seed", [None, 5])
async def test_livekit_holds_a_conversation(serve: Serve, seed: int | None, caplog: pytest.LogCaptureFixture) -> None:
    running = await serve(EchoEngine(max_waiting=100), **CUSTOM)
    said = speech(1.6)
    async with livekit(running.url(""), voice="NATM2", text_prompt="You sell maps & more.", seed=seed) as client:
        client.say(said)
        await client.until(lambda: len(client.heard) >= len(said))
        [call] = running.engine.calls
        assert call.prompt.voice is not None
        assert (call.prompt.text, call.prompt.voice.name) == ("You sell maps & more.", "NATM2")
        [started] = running.record.of(SessionStarted)
        assert started.seed == (seed if seed is not None else call.seed)
    assert alike(said, client.heard)
    assert "".join(client.words).split() == ["word0", "word1", "word2", "word3"]
    assert client.errors == []
    assert [record.message for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []
    [end] = await running.record.ended()
    assert (end.reason, end.frames_in) == ("left", 20)
    assert running.engine.calls == []


@foreign
async def test_livekit_tries_again_while_the_server_is_busy(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=1), server={"queue": 0}, **CUSTOM)
    async with contextlib.AsyncExitStack() as stack:
        holder = await stack.enter_async_context(dial(running.url()))
        await holder.shake_hands()
        async with livekit(running.url("")) as client:
            await client.until(lambda: client.errors)
            assert client.errors[0].recoverable
            ends = await running.record.ended()
            assert (ends[0].reason, ends[0].code) == ("busy", CloseCode.BUSY)
            await stack.aclose()
            await running.record.until(lambda: len(running.record.of(SessionStarted)) == 2)
            client.say(speech(0.4))
            await client.until(lambda: len(client.heard) >= 5 * FRAME)


@foreign
@pytest.mark.parametrize(
    ("who", "voice", "status"),
    [("", "NATF2", 401), ("ann:wrong@", "NATF2", 401), ("ann:sesame@", "NOBODY", 404), ("ann:sesame@", "NATF2", 0)],
)
async def test_livekit_gives_up_when_it_is_refused(serve: Serve, who: str, voice: str, status: int) -> None:
    running = await serve(personas={"custom": True}, plugins={"options": {"password": {"password": "sesame"}}})
    async with livekit(f"ws://{who}127.0.0.1:{running.port}", voice=voice) as client:
        if status == 0:
            client.say(speech(0.4))
            await client.until(lambda: len(client.heard) >= 5 * FRAME)
            return
        await client.until(lambda: client.errors)
        async with asyncio.timeout(10):
            await client.session._main_atask
        [error] = client.errors
        assert not error.recoverable
        assert str(status) in str(error.error)
    [refusal] = [event for event in running.record.service_events if isinstance(event, CallRefused)]
    assert refusal.status == status
    assert running.engine.opened == 0


@foreign
async def test_the_recipe_for_livekit_is_one_that_the_plugin_takes(serve: Serve) -> None:
    """Its code runs, and a session of the model that it makes holds a conversation."""
    pytest.importorskip(LIVEKIT, reason="livekit-plugins-nvidia is not installed", exc_type=ImportError)
    (code,) = re.findall(r"```python\n(.*?)```", doc("recipes/livekit"), re.DOTALL)
    (settings, *_) = re.findall(r"```yaml\n(.*?)```", doc("recipes/livekit"), re.DOTALL)
    options = {"password": {"password": "PASSWORD"}}
    running = await serve(**yaml.safe_load(settings), plugins={"disabled": ["loudness"], "options": options})
    address = running.url("").removeprefix("ws://")
    code = code.replace("wss://agent:PASSWORD@talk.example.com", f"ws://agent:PASSWORD@{address}")
    names: dict[str, Any] = {}
    import aiohttp

    async with aiohttp.ClientSession() as http:
        exec(code, names)
        names["model"]._http_session = http  # LiveKit's own is for its workers
        client = LiveKit(names["model"])
        try:
            client.say(speech(0.4))
            await client.until(lambda: len(client.heard) >= 5 * FRAME)
        finally:
            await client.close()
    assert len(running.record.of(SessionStarted)) == 1


# NVIDIA's web client. What it does was read off its source: it closes when nothing came for 10 s, knows the kinds 0 to
# 6, and records with opus-recorder: packets of 20 ms, two a page, each page a message, header and tags first.

SILENCE_S = 10.0


class WebClient(Caller):
    """Breaks where NVIDIA's client would."""

    async def next(self) -> int:
        async with asyncio.timeout(SILENCE_S):
            kind = await super().next()
        assert kind < 7, "its decoder throws"
        assert kind not in (Kind.CONTROL, Kind.METADATA), "what it would show to its user makes no sense to it"
        return kind


def recorded(samples: npt.NDArray[np.float32]) -> list[bytes]:
    """Ogg pages as opus-recorder makes them."""
    file = io.BytesIO()
    soundfile.write(file, samples, 24_000, format="OGG", subtype="OPUS")
    packets: list[bytes] = []
    for page in PageReader().read(file.getvalue()):
        start = end = 0
        for segment in page.lacing:
            end += segment
            if segment < 255:
                packets.append(page.body[start:end])
                start = end
    packets = [
        packet for packet in packets[2:] if FRAME_DURATIONS_MS[packet[0] >> 3] == 20
    ]  # all but the last, which is shorter
    sound = [packets[index : index + 2] for index in range(0, len(packets), 2)]
    pages = [([HEAD], 2, 0), ([TAGS], 0, 0)]
    pages += [(pair, 0, 1920 * (index + 1)) for index, pair in enumerate(sound)]
    return [_page(pair, flags, granule, number) for number, (pair, flags, granule) in enumerate(pages)]


def _page(packets: list[bytes], flags: int, granule: int, number: int) -> bytes:
    lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    head = b"OggS" + struct.pack("<BBqII", 0, flags, granule, 4711, number)
    body = bytes([len(lacing)]) + lacing + b"".join(packets)
    return head + struct.pack("<I", _checksum(head + bytes(4) + body)) + body


def _checksum(data: bytes) -> int:
    """Ogg's CRC-32 (RFC 3533): polynomial 0x04c11db7, neither reflected nor inverted."""
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


@asynccontextmanager
async def web_client(running: Running) -> AsyncIterator[WebClient]:
    """NVIDIA's page, connected from a browser."""
    origin = f"http://127.0.0.1:{running.port}"
    async with dial(running.url(f"/api/chat?{urlencode(NVIDIA)}"), origin=origin) as caller:
        yield WebClient(caller.socket)


async def test_nvidias_web_client_holds_a_conversation(serve: Serve) -> None:
    running = await serve(EchoEngine(max_waiting=100), **CUSTOM)
    said = speech(2.4)
    async with web_client(running) as client:
        await client.shake_hands()
        pages = recorded(said)
        assert len(pages) == 2 + 60
        for page in pages:
            await client.socket.send(bytes([Kind.AUDIO]) + page)
        while len(client.heard) < 30 * FRAME:
            await client.next()
        [call] = running.engine.calls
        assert call.prompt.voice is not None
        assert (call.prompt.text, call.prompt.voice.name, call.seed) == (NVIDIA["text_prompt"], "NATM2", 88)
    assert alike(said, client.heard)
    assert "".join(client.words).split()[:2] == ["word0", "word1"]
    assert client.error == ""


async def test_nvidias_web_client_outlasts_any_wait(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PING_S + HEARTBEAT_S < SILENCE_S
    monkeypatch.setattr("core.session.websocket_transport.PING_S", 0.2)
    monkeypatch.setattr("core.session.session.HEARTBEAT_S", 0.1)
    engine = EchoEngine(slots=1)
    running = await serve(engine, **CUSTOM)
    engine.prompts.clear()
    async with web_client(running) as client:
        while client.kinds.count(Kind.PING) < 3:  # while its prompt takes long
            await client.next()
        async with web_client(running) as second:
            while second.kinds.count(Kind.PING) < 3:  # in the queue
                await second.next()
        engine.prompts.set()
        await client.shake_hands()
        while client.kinds.count(Kind.PING) < 6:  # while the caller is silent
            await client.next()
    assert set(client.kinds) == {Kind.PING, Kind.HANDSHAKE}


async def test_nvidias_web_client_is_told_why_it_is_not_served(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=0), server={"queue": 0}, **CUSTOM)
    async with web_client(running) as client:
        assert await client.end() == CloseCode.BUSY
    assert client.kinds == [Kind.ERROR]
