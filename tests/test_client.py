"""The caller behind `personaplex call`, where calls do not go well."""

import asyncio

import pytest

from core.client.connection import CallOptions
from core.client.place_call import place_call
from core.events import FramesDropped
from core.testing import EchoEngine
from tests.caller import FRAME
from tests.conftest import Serve, speech


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/ws/chat", "/api/chat"])
async def test_a_call_ends_when_answers_are_missing(serve: Serve, path: str) -> None:
    """The server says something each second for as long as the call is open; answers that it dropped never come."""
    engine = EchoEngine(max_waiting=5)
    engine.steps.clear()
    running = await serve(engine)
    calling = asyncio.create_task(place_call(running.url(path), speech(8 * FRAME / 24_000), CallOptions({})))
    await running.record.until(lambda: len(running.record.of(FramesDropped)) == 3)
    engine.steps.set()
    async with asyncio.timeout(10):
        _, report = await calling
    assert (report.frames_sent, report.frames_received) == (8, 5)
    assert report.dropped == (3 if path == "/ws/chat" else 0)
