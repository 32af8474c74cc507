"""What a recording holds, and that neither the disk nor a crash can do harm."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from core import FlacWriter
from core.engine.call import Frame
from core.events import Identity, SessionEnded, SessionInfo, SessionReady, TransformFailed
from core.plugin.hookspecs import hookimpl
from plugins import recording
from plugins.recording import Recording, Tap, Writer
from tests.caller import dial, get
from tests.conftest import Running, Serve, write_config
from tests.echo_server import echo_server
from tests.plugin_folder import Folder

ON: dict[str, Any] = {"plugins": {"disabled": ["loudness"], "options": {"recording": {"enabled": True}}}}
FRAME = 1920


def info(id_: str = "0123abcd") -> SessionInfo:
    return SessionInfo(id_, Identity("../caller"), "teacher", "NATF2", "/ws/chat", "127.0.0.1", "pcm")


def noise(seconds: float) -> npt.NDArray[np.float32]:
    """Sound without a single zero, so that it can be told from silence that was filled in."""
    return np.random.default_rng(0).uniform(0.1, 0.5, int(seconds * 24_000)).astype(np.float32)


def pcm(samples: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int16]:
    """As samples are kept: on the wire and in the file, 16 bits each time."""
    return (samples * 32767).astype(np.int16)


def sides(path: Path) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """Left and right, int16, without the silence that stands for what nobody said."""
    samples, rate = soundfile.read(path, dtype="int16", always_2d=True)
    assert (rate, samples.shape[1]) == (24_000, 2)
    return samples[samples[:, 0] != 0, 0], samples[samples[:, 1] != 0, 1]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def files(folder: Path) -> tuple[Path, Path]:
    """The sound and the transcript of the only call."""
    (sound,), (transcript,) = folder.glob("*.flac"), folder.glob("*.jsonl")
    return sound, transcript


async def written(running: Running) -> None:
    """Return when all that has happened is on the disk."""
    host: Any = running.service.host
    await asyncio.to_thread(host._manager.get_plugin("recording")._writer.stop)


class Quieter:
    """The agent at half the level, so that the sides differ."""

    @hookimpl
    def transform_output(self) -> "Quieter":
        return self

    def process(self, frame: Frame) -> Frame:
        return frame / np.float32(2)


async def test_a_call_is_recorded_as_both_sides_hear_it(serve: Serve, tmp_path: Path) -> None:
    running = await serve(extra=(Quieter(),), **ON)
    said = noise(2)
    async with dial(running.url("/ws/chat?audio=pcm&persona=teacher"), "pcm") as caller:
        await caller.shake_hands()
        await caller.talk(said)
    await running.record.ended()
    await written(running)
    sound, transcript = files(tmp_path / "recordings")
    left, right = sides(sound)
    np.testing.assert_allclose(left, pcm(said), atol=2)
    np.testing.assert_allclose(right, pcm(said / 2), atol=2)

    [(session, _)] = [pair for pair in running.record.events if isinstance(pair[1], SessionEnded)]
    assert sound.stem == transcript.stem == session.id
    assert {path.stat().st_mode & 0o777 for path in (sound, transcript)} == {0o600}
    first, *words, last = lines(transcript)
    assert (first["session"], first["persona"], first["voice"]) == (session.id, "teacher", "NATM2")
    assert [word["text"] for word in words] == caller.words
    assert [word["at"] for word in words] == sorted(word["at"] for word in words)
    assert (last["type"], last["reason"]) == ("end", "left")
    assert words[-1]["at"] < last["at"] == pytest.approx(soundfile.info(sound).duration, abs=0.01)


async def test_callers_are_told_before_they_call(serve: Serve) -> None:
    running = await serve(plugins={"options": {"recording": {"enabled": True, "notice": "We listen."}}})
    assert json.loads((await get(running, "/session"))[2])["notices"] == ["We listen."]


async def test_nothing_is_recorded_unless_it_is_switched_on(serve: Serve, tmp_path: Path) -> None:
    running = await serve()
    assert json.loads((await get(running, "/session"))[2])["notices"] == []
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        await caller.talk(noise(0.16))
    await running.record.ended()
    assert not (tmp_path / "recordings").exists()


def test_recording_without_telling_is_not_possible(tmp_path: Path) -> None:
    found = Folder(tmp_path).problems("plugins: {options: {recording: {enabled: true, notice: ' '}}}")
    assert "plugins.options.recording: notice must say" in found


async def test_what_is_recorded_is_what_comes_out_of_the_other_transforms(tmp_path: Path) -> None:
    folder = Folder(tmp_path).plugin("zz", "@hookimpl(trylast=True)\ndef transform_input(): return None")
    host = folder.load("plugins: {options: {recording: {enabled: true}}}")
    assert host.output_chain(info(), folder.failures.append).plugins == ("loudness",)  # not started yet
    await host.startup(_Engine())  # type: ignore[arg-type]
    assert host.output_chain(info(), folder.failures.append).plugins == ("loudness", "recording")
    assert host.input_chain(info(), folder.failures.append).plugins == ("recording",)
    await host.shutdown()


class _Engine:
    def voices(self) -> tuple[str, ...]:
        return ("NATF0", "NATF1", "NATF2", "NATF3", "NATM0", "NATM1", "NATM2", "NATM3", "VARF0", "VARM0")

    def health(self) -> None: ...


# Time.


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["caller", "agent", "both", "look"]), st.floats(0, 1.5)), max_size=25))
def test_a_file_is_as_long_as_the_call_and_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, moments: list[tuple[str, float]]
) -> None:
    folder = tmp_path_factory.mktemp("recordings")
    now = [100.0]
    one = Recording(folder, info(), lambda: now[0])
    said: tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]] = ([], [])
    for who, pause in moments:
        now[0] += pause
        one.keep_up()
        for side in {"caller": (0,), "agent": (1,), "both": (0, 1), "look": ()}[who]:
            said[side].append(np.full(FRAME, len(said[side]) + 1, np.int16))
            one.hear(side, said[side][-1])
    one.keep_up()
    one.end("left")
    sound, transcript = files(folder)
    for heard, expected in zip(sides(sound), said, strict=True):
        np.testing.assert_array_equal(heard, np.concatenate([np.empty(0, np.int16), *expected]))
    length = soundfile.info(sound).duration
    assert now[0] - 100.0 - recording.SILENCE_AFTER_S - 0.01 <= length
    assert length <= now[0] - 100.0 + 0.08 * max(len(said[0]), len(said[1]), 1) + 0.01
    assert lines(transcript)[-1]["at"] == pytest.approx(length, abs=0.01)


# Crash and disk.


async def until(true: Callable[[], bool]) -> None:
    """Return when a file has become what it should."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_killed_process_leaves_files_that_can_be_played_to_the_last_second(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    said = noise(4)
    with echo_server(write_config(tmp_path, ON)) as (server, port):
        async with dial(f"ws://127.0.0.1:{port}/ws/chat?audio=pcm", "pcm") as caller:
            await caller.shake_hands()
            await caller.talk(said)
            sound, transcript = files(folder)
            whole = 3 * 24_000
            await until(lambda: len(sides(sound)[0]) >= whole)  # while the call goes on
            server.kill()
            server.wait()
    for side in sides(sound):
        assert len(side) >= whole
        np.testing.assert_allclose(side, pcm(said)[: len(side)], atol=2)
    assert "".join(line["text"] for line in lines(transcript)[1:]) == "".join(caller.words)


@pytest.mark.slow
async def test_a_full_disk_ends_the_recording_and_not_the_call(tmp_path: Path) -> None:
    with echo_server(write_config(tmp_path, ON), "--largest-file", "60000") as (_, port):
        async with dial(f"ws://127.0.0.1:{port}/ws/chat?audio=pcm", "pcm") as caller:
            await caller.shake_hands()
            await caller.talk(noise(4))
            health = await _health_with_problems(port)
            assert len(await caller.talk(noise(0.8))) == 10 * FRAME
    assert health["status"] == "ok"
    assert "File too large" in health["details"][0]
    sound, _ = files(tmp_path / "recordings")
    assert sound.stat().st_size <= 60_000
    left, _ = sides(sound)
    np.testing.assert_allclose(left, pcm(noise(4))[: len(left)], atol=2)
    assert len(left) > 24_000


async def _health_with_problems(port: int) -> dict[str, Any]:
    running: Any = type("Address", (), {"url": lambda self, path, scheme: f"{scheme}://127.0.0.1:{port}{path}"})()
    async with asyncio.timeout(20):
        while True:
            health: dict[str, Any] = json.loads((await get(running, "/health"))[2])
            if "problems" in health:
                return health
            await asyncio.sleep(0.02)


async def test_a_folder_that_cannot_be_written_ends_recordings_and_not_calls(serve: Serve, tmp_path: Path) -> None:
    running = await serve(**ON)
    (tmp_path / "recordings").rmdir()
    for expected in (1, 2):
        async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
            await caller.shake_hands()
            assert len(await caller.talk(noise(0.8))) == 10 * FRAME
        await running.record.ended(expected)
    await written(running)
    health = json.loads((await get(running, "/health"))[2])
    assert (health["status"], health["problems"]) == ("ok", 1)
    assert "No such file or directory" in health["details"][0]


def test_a_slow_disk_stops_nobody_and_takes_no_memory_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(*_: Any, **__: Any) -> None:
        begun.set()
        go_on.wait()

    monkeypatch.setattr(recording, "MAX_QUEUED", 10)
    monkeypatch.setattr(recording, "FlacWriter", slow)
    writer = Writer(tmp_path)
    tap = Tap(writer, info(), "caller")
    frame = np.full(FRAME, 0.5, np.float32)
    tap.process(frame)
    assert begun.wait(10)  # from now on the thread takes nothing from the queue
    for _ in range(100):
        assert tap.process(frame) is frame
    assert writer._queue.qsize() <= 10
    go_on.set()
    writer.stop()


def test_what_a_slow_disk_has_lost_is_said_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(recording, "MAX_QUEUED", 10)
    monkeypatch.setattr(recording, "FlacWriter", lambda *of, **named: go_on.wait() and FlacWriter(*of, **named))
    writer = Writer(tmp_path)
    tap = Tap(writer, info(), "caller")
    for index in range(100):
        tap.process(np.full(FRAME, (index + 1) / 200, np.float32))
        while index == 0 and not writer._queue.empty():  # until the writer holds the first one, and is stuck with it
            threading.Event().wait(0.01)
    go_on.set()
    while not writer._queue.empty():
        threading.Event().wait(0.01)
    tap.process(np.full(FRAME, 0.75, np.float32))
    writer.put(recording._Item(info(), "end", "left"))
    writer.stop()
    sound, transcript = files(tmp_path)
    left, _ = soundfile.read(sound, dtype="float32", always_2d=True)[0].T
    levels = left[::FRAME]
    [lost] = [line for line in lines(transcript) if line["type"] == "lost"]
    kept = 100 - lost["caller"]
    assert kept == 11
    assert levels[kept - 1] == pytest.approx(kept / 200, abs=0.001)
    assert not levels[kept:100].any()
    assert levels[100] == pytest.approx(0.75, abs=0.001)
    assert "too slow" in lost["reason"]


async def test_a_side_that_is_not_recorded_any_more_is_said(serve: Serve, tmp_path: Path) -> None:
    running = await serve(**ON)
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        await caller.talk(noise(0.16))
        [session] = running.service._sessions
        running.service.host.event(session.info, TransformFailed("recording", "OSError: gone"))
    await running.record.ended()
    await written(running)
    _, transcript = files(tmp_path / "recordings")
    [lost] = [line for line in lines(transcript) if line["type"] == "lost"]
    assert lost["reason"] == "OSError: gone"


def test_frames_that_come_after_the_end_begin_no_new_file(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    tap = Tap(writer, info(), "agent")
    writer.put(recording._Item(info(), "ready"))
    tap.process(np.full(FRAME, 0.5, np.float32))
    writer.put(recording._Item(info(), "end", "left"))
    tap.process(np.full(FRAME, 0.5, np.float32))
    writer.put(recording._Item(info("other"), "end", "busy"))
    writer.stop()
    sound, _ = files(tmp_path)
    assert soundfile.info(sound).frames == FRAME
    assert writer.problem == ""
    assert writer._recordings == {}


def test_a_recording_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "0123abcd.flac").symlink_to(tmp_path / "precious")
    (tmp_path / "precious").write_text("precious")
    writer = Writer(tmp_path)
    writer.put(recording._Item(info(), "ready", SessionReady(1)))
    writer.stop()
    assert "File exists" in writer.problem
    assert (tmp_path / "precious").read_text() == "precious"
