"""`core.testing`: a plugin's tests without a model and without sockets, by the service's own code."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from starlette.requests import HTTPConnection

from core import (
    ConfigError,
    FirstAudio,
    Frame,
    FrameTimed,
    Identity,
    PluginFailed,
    RefusedError,
    SessionEnded,
    SessionInfo,
    SessionReady,
    SessionStarted,
    TextSaid,
    TransformFailed,
    hookimpl,
)
from core.errors import EngineError
from core.settings.sections import ServerConfig, SessionConfig
from core.testing import VOICES, EchoEngine, PluginHarness, SessionClosedError
from core.testing.harness import PATIENT
from plugins import metrics

FRAME = np.full(1920, 0.25, np.float32)
SHOUT = """
import msgspec
from core import hookimpl

class Plugin:
    class Options(msgspec.Struct):
        gain: float = 2

    def __init__(self, options):
        self.gain = options.gain

    @hookimpl
    def transform_output(self):
        return self

    def process(self, frame):
        return (frame * self.gain).clip(-1, 1)
"""


class Notes:
    """A plugin that notes when it starts and stops, and counts the caller's frames."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.frames = 0

    @hookimpl
    def startup(self, engine: Any) -> None:
        self.notes.append(engine.info.name)

    @hookimpl
    def shutdown(self) -> None:
        self.notes.append("stopped")

    @hookimpl
    def transform_input(self, session: SessionInfo) -> "Notes":
        self.notes.append(session.voice)
        return self

    def process(self, frame: Frame) -> Frame:
        self.frames += 1
        return -frame


async def test_a_session_is_driven_frame_by_frame() -> None:
    plugin = Notes()
    async with PluginHarness(plugin) as harness:
        async with harness.session(voice="VARM0", seed="7") as session:
            for number in range(1, 7):
                answer = await session.exchange(FRAME * np.float32(number / 6))
                np.testing.assert_allclose(answer, -FRAME * number / 6, atol=1e-4)
                assert plugin.frames == number
            assert session.text == " word0 word1"
            assert session.ended is None
            assert (session.info.persona, session.info.address, session.info.audio) == ("echo", "127.0.0.1", "pcm")
        kinds = [type(event) for event in session.events if not isinstance(event, FrameTimed | TextSaid)]
        assert kinds == [SessionStarted, SessionReady, FirstAudio, SessionEnded]
        assert session.ended is not None
        assert (session.ended.reason, session.ended.frames_in, session.ended.frames_out) == ("left", 6, 6)
        assert harness.engine.calls == []
    assert plugin.notes == ["echo", "VARM0", "stopped"]


async def test_a_plugin_file_gets_its_options(tmp_path: Path) -> None:
    path = tmp_path / "shout.py"
    path.write_text(SHOUT)
    async with PluginHarness(path, options={"gain": 3}) as harness, harness.session() as session:
        np.testing.assert_allclose(await session.exchange(FRAME), 3 * FRAME, atol=1e-4)
    with pytest.raises(ConfigError, match=r"plugins.options.shout.gain: expected float"):
        PluginHarness(path, options={"gain": "loud"})
    path.write_text("1 / 0")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        PluginHarness(path)


async def test_two_sessions_at_once_are_kept_apart() -> None:
    async with PluginHarness(Notes()) as harness, harness.session() as one, harness.session() as two:
        for number in range(1, 4):
            mine, yours = await asyncio.gather(
                one.exchange(FRAME / np.float32(number)), two.exchange(-FRAME / np.float32(number))
            )
            np.testing.assert_allclose(mine, -FRAME / number, atol=1e-4)
            np.testing.assert_allclose(yours, FRAME / number, atol=1e-4)
        assert {info.id for info, _ in harness.recorder.events} == {one.info.id, two.info.id}
        assert one.info.id != two.info.id


class Door:
    """A plugin that lets in who knows the word."""

    @hookimpl
    def authenticate(self, connection: HTTPConnection) -> Identity | None:
        return Identity("ann") if connection.headers.get("authorization") == "Bearer sesame" else None


async def test_a_refused_caller_is_told_why() -> None:
    async with PluginHarness(Door()) as harness:
        with pytest.raises(RefusedError, match="log in") as refused:
            async with harness.session():
                pass
        assert refused.value.status == 401
        async with harness.session(headers={"authorization": "Bearer sesame"}) as session:
            assert session.info.identity == Identity("ann")
        with pytest.raises(RefusedError, match="no persona") as refused:
            async with harness.session(headers={"authorization": "Bearer sesame"}, persona="nobody"):
                pass
        assert refused.value.status == 404


async def test_a_session_that_the_service_ends_says_how() -> None:
    async with PluginHarness(Notes()) as harness:
        async with harness.session() as session:
            harness.engine.faults.frames = EngineError("The GPU is gone.")
            with pytest.raises(SessionClosedError, match="The GPU is gone") as closed:
                await session.exchange(FRAME)
        assert closed.value.code == 1011
        assert session.ended is not None
        assert (session.ended.reason, session.ended.error) == ("engine", "The GPU is gone.")


async def test_a_session_that_gets_no_slot_does_not_begin() -> None:
    config = replace(PATIENT, server=ServerConfig(queue=0))
    async with PluginHarness(Notes(), config=config, engine=EchoEngine(slots=0)) as harness:
        with pytest.raises(SessionClosedError) as closed:
            async with harness.session():
                pass
        assert closed.value.code == 1013


class Broken:
    """A plugin whose transform and event hook raise."""

    @hookimpl
    def transform_output(self) -> "Broken":
        return self

    def process(self, frame: Frame) -> Frame:
        raise ValueError(len(frame))

    @hookimpl
    def session_event(self, event: object) -> None:
        raise RuntimeError


async def test_what_a_plugin_does_wrong_is_seen() -> None:
    async with PluginHarness(Broken()) as harness, harness.session() as session:
        for _ in range(2):
            np.testing.assert_allclose(await session.exchange(FRAME), FRAME, atol=1e-4)
        await harness.recorder.until(lambda: bool(harness.recorder.of(TransformFailed)))
        assert harness.recorder.of(TransformFailed) == [TransformFailed("Broken", "ValueError: 1920")]
        assert PluginFailed("Broken", "session_event", "RuntimeError") in harness.recorder.service_events


async def test_hooks_and_routes_can_be_called_without_a_session() -> None:
    harness = PluginHarness(metrics)
    plugin = harness.host.describe()[0]
    assert (plugin.name, plugin.state) == ("metrics", "on")
    assert await harness.host.list_voices() == list(VOICES)
    assert [getattr(route, "path", "") for route in harness.host.routes()] == ["/metrics"]


async def test_the_limits_of_a_call_are_those_of_the_config() -> None:
    config = replace(PATIENT, session=SessionConfig(max_s=0.5))
    async with PluginHarness(Notes(), config=config) as harness, harness.session() as session:

        async def talk_on_and_on() -> None:
            while True:
                await session.exchange(FRAME)

        with pytest.raises(SessionClosedError) as closed:
            await talk_on_and_on()
        assert closed.value.code == 4000
