"""What fails behind a session: the engine, plugins, the server itself."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from core.engine.call import Frame
from core.errors import EngineError, PromptError
from core.events import (
    SessionInfo,
    TransformFailed,
)
from core.plugin.hookspecs import hookimpl
from core.plugin.personas import Persona
from core.session.protocol import CloseCode
from core.testing import EchoEngine
from tests.caller import PLAIN, dial, get, refused
from tests.conftest import Serve, speech


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
    faults = running.engine.faults
    async with dial(running.url("/ws/chat?audio=pcm&persona=assistant"), "pcm") as other:
        await other.shake_hands()
        faults.only, faults.frames_at = "NATM2", 2
        setattr(faults, phase, error)
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
        assert list(await asyncio.gather(one.end(), two.end())) == [CloseCode.INTERNAL] * 2
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


async def test_calls_may_end_by_themselves_when_the_server_stops(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=1), server={"drain_s": 60})
    async with dial(running.url()) as talking, dial(running.url("/api/chat")) as waiting:
        await talking.shake_hands()
        await running.record.until(lambda: running.service.admission.waiting == 1)
        running.server.should_exit = True
        assert await waiting.end() == CloseCode.GOING_AWAY
        warning = await talking.told("warning")
        assert warning == {"type": "warning", "limit": "shutdown", "seconds": 60.0}
        status, _, body = await get(running, "/health")
        assert (status, json.loads(body)["status"]) == (503, "stopping")
        assert (await refused(running, "/ws/chat"))[0] == 503
        assert len(await talking.talk(speech(0.4))) == 5 * 1920
    assert [end.reason for end in await running.record.ended(2)] == ["shutdown", "left"]


async def test_a_second_signal_ends_them_at_once(serve: Serve) -> None:
    running = await serve(server={"drain_s": 60})
    async with dial(running.url()) as caller:
        await caller.shake_hands()
        running.server.handle_exit(2, None)
        await caller.told("warning")
        running.server.handle_exit(2, None)
        assert await caller.end() == CloseCode.GOING_AWAY


async def test_goodbye(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=1), server={"drain_s": 0.05})
    async with dial(running.url()) as talking, dial(running.url("/api/chat")) as waiting:
        await talking.shake_hands()
        await running.record.until(lambda: running.service.admission.waiting == 1)
        running.server.should_exit = True
        assert list(await asyncio.gather(talking.end(), waiting.end())) == [CloseCode.GOING_AWAY] * 2
        assert "shutting down" in talking.error
        assert "shutting down" in waiting.error
    assert {end.reason for end in await running.record.ended(2)} == {"shutdown"}
    assert running.engine.calls == []
