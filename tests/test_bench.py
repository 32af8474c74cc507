"""`bench`: its figures are those of the calls, and its exit code is the operator's answer."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.client.climb import climb
from core.client.load_test import Load
from core.client.load_test_audio import OpusSampleCounter, encode_messages, open_sample_counter, synthetic_speech
from core.engine.call import FRAME_SAMPLES
from core.errors import AudioError
from core.events import FramesDropped
from core.media.audio_codecs import OpusReader, OpusWriter, open_reader
from core.media.sound_files import write_wav
from core.session.protocol import Kind
from core.testing import EchoEngine
from tests.conftest import Running, Serve, speech
from tests.test_audio import opening, page
from tests.test_cli import failed, run


async def bench(running: Running, *arguments: str, path: str = "") -> Any:
    """The command, off the loop that the server runs in."""
    fast = ("--stagger", "0.05", "--seconds", "1")
    return await asyncio.to_thread(run, "bench", running.url(path, "http"), *fast, *arguments)


@pytest.mark.parametrize(("path", "audio"), [("/ws/chat", "pcm"), ("/api/chat", "opus")])
async def test_figures_for_machines(serve: Serve, tmp_path: Path, path: str, audio: str) -> None:
    running = await serve(EchoEngine(slots=3))
    write_wav(tmp_path / "in.wav", speech(0.5)[np.newaxis])
    result = await bench(
        running, "--callers", "3", "--audio", audio, "--sound", str(tmp_path / "in.wav"), "--json", path=path
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["callers"], report["held"], report["errors"], report["broken"]) == (3, 3, {}, [])
    ends = await running.record.ended(3)
    assert report["frames_sent"] == report["frames_answered"] == sum(end.frames_in for end in ends) > 20
    assert (report["dropped"], report["audio"]) == (0, audio)
    assert report["url"] == running.url(path)
    for name in ("connect_ms", "handshake_ms", "first_audio_ms", "delay_ms"):
        spread = report[name]
        assert 0 < spread["p50"] <= spread["p95"] <= spread["p99"] <= spread["max"]
    assert len({info.id for info, _ in running.record.events}) == 3
    assert running.engine.calls == []


async def test_a_table_for_people(serve: Serve) -> None:
    running = await serve()
    result = await bench(running, "--callers", "2", "--persona", "teacher")
    assert result.exit_code == 0, result.output
    for what in ("connect", "first audio", "delay of a frame", "2 of 2", "0 dropped", "of a core", "p95"):
        assert what in result.output
    assert {info.persona for info, _ in running.record.events} == {"teacher"}


async def test_the_password_goes_along(serve: Serve) -> None:
    running = await serve(plugins={"options": {"password": {"password": "sesame"}}})
    assert "HTTP 401" in (await bench(running)).output
    assert (await bench(running, "--password", "sesame")).exit_code == 0


async def test_bounds_that_are_broken_are_named_and_the_exit_code_is_1(serve: Serve) -> None:
    running = await serve()
    bounds = ("--max-p99-ms", "0", "--max-first-audio-ms", "0", "--max-drops", "0")
    result = await bench(running, *bounds, "--json")
    assert result.exit_code == 1
    broken = json.loads(result.stdout)["broken"]
    assert len(broken) == 2
    for words in ("p99 of the frame delay", "first audio"):
        [sentence] = [sentence for sentence in broken if words in sentence]
        assert sentence in failed(result)


async def test_bounds_that_hold(serve: Serve) -> None:
    running = await serve()
    bounds = ("--max-p99-ms", "1000", "--max-first-audio-ms", "1000", "--max-drops", "0", "--min-held", "1")
    assert (await bench(running, *bounds)).exit_code == 0


@pytest.mark.slow
async def test_callers_without_a_slot_are_not_held(serve: Serve) -> None:
    """They wait to the end, since those who talk stay as long; or are refused, where nobody may wait."""
    running = await serve(EchoEngine(slots=1))
    result = await bench(running, "--callers", "3", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["held"]) == (1, 1)
    [(problem, count)] = report["errors"].items()
    assert count == 2
    assert "waited" in problem
    assert "1 of 3 calls were held" in failed(result)
    assert (await bench(running, "--callers", "2", "--min-held", "1")).exit_code == 0


async def test_refusals_are_told(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=1), server={"queue": 0})
    output = failed(await bench(running, "--callers", "2"))
    assert "1013" in output
    output = failed(await bench(running, "--persona", "nobody", "--max-p99-ms", "80"))
    assert "HTTP 404" in output
    assert "p99 of the frame delay: none" in output


async def test_a_call_that_the_server_ends_is_not_held(serve: Serve) -> None:
    running = await serve(session={"max_s": 0.4, "warn_s": 0.1})
    result = await bench(running, "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["held"]) == (1, 0)
    assert "4000" in next(iter(report["errors"]))
    assert report["frames_answered"] > 0


async def test_frames_that_are_dropped_are_counted(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.client.load_test.LAST_ANSWERS_S", 0.5)
    engine = EchoEngine(max_waiting=2)
    engine.steps.clear()
    running = await serve(engine)

    async def go_on_after_a_drop() -> None:
        await running.record.until(lambda: bool(running.record.of(FramesDropped)))
        engine.steps.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(go_on_after_a_drop())
        result = await bench(running, "--max-drops", "0", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 1
    assert report["dropped"] == report["frames_sent"] - report["frames_answered"] > 0
    assert report["held"] == 1
    assert "frames dropped" in failed(result)


@pytest.mark.slow
@pytest.mark.parametrize("packet_ms", ["20", "80"])
async def test_several_processes_call_together(serve: Serve, packet_ms: str) -> None:
    running = await serve(EchoEngine(slots=3))
    result = await bench(running, "--callers", "3", "--processes", "2", "--packet-ms", packet_ms, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["callers"], report["held"], report["processes"]) == (3, 3, 2)
    assert report["message_ms"] == int(packet_ms)
    assert report["own_cpu"] > 0
    ends = await running.record.ended(3)
    assert report["frames_sent"] == report["frames_answered"] == sum(end.frames_in for end in ends) > 30


def test_the_number_of_processes_is_checked_and_follows_the_callers() -> None:
    assert "auto or a number" in run("bench", "localhost:1", "--processes", "many").output
    assert Load(1, 1).process_count() == 1
    assert Load(2, 1, processes=8).process_count() == 2
    assert 1 <= Load(1000, 1).process_count() <= max(1, (os.cpu_count() or 1) // 2)


@pytest.mark.slow
async def test_climbing_stops_at_the_slots(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller who waits for a slot to the end is not served, so three slots carry three callers at most."""
    monkeypatch.setattr("core.cli.bench.CLIMB_STEP_S", 1.0)
    monkeypatch.setattr("core.client.climb.MOST_P99_MS", 10_000)
    monkeypatch.setattr("core.client.frame_times.PLAYER_BUFFER_S", 10.0)  # a busy machine makes gaps
    running = await serve(EchoEngine(slots=3), server={"queue": 9})
    result = await bench(running, "--callers", "8", "--climb", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["callers"] == 3
    assert "4 callers, 1 s" in result.stderr
    assert "too many" in result.stderr


async def test_climbing_finds_the_border_with_few_runs() -> None:
    for border in (0, 1, 2, 7, 24, 100):
        runs: list[tuple[int, float]] = []

        async def run(callers: int, seconds: float, runs: list[tuple[int, float]] = runs) -> int:
            runs.append((callers, seconds))
            return callers

        found = await climb(run, border.__ge__, 512, 5, 60)
        assert (found or 0) <= border
        assert (found or 0) >= border - max(1, border // 8)
        assert len(runs) <= 16
        assert not found or runs[-1] == (found, 60)


def test_nobody_there_is_named() -> None:
    assert "localhost:1" in failed(run("bench", "ftp://localhost:1"))
    assert "Cannot connect" in failed(run("bench", "localhost:1", "--seconds", "1"))


@pytest.mark.parametrize("message_ms", [20, 40, 80])
@pytest.mark.parametrize("audio", ["opus", "pcm"])
def test_prepared_speech_is_the_recording_over_and_over(audio: Any, message_ms: int) -> None:
    recording = speech(0.4)
    reader = open_reader(audio)
    messages = encode_messages(recording, 12, audio, message_ms)
    assert all(message[0] == Kind.AUDIO for message in messages)
    heard = [reader.read(message[1:]) for message in messages]
    assert [len(piece) for piece in heard] == [24 * message_ms] * (12 * 80 // message_ms)


def test_synthetic_speech_has_pauses_and_is_never_too_loud() -> None:
    frames = synthetic_speech(10).reshape(-1, FRAME_SAMPLES)
    level = np.sqrt(np.mean(np.square(frames), axis=1))
    assert 0.05 < np.percentile(level, 90) < 0.5
    assert np.percentile(level, 10) < 0.01
    assert np.abs(frames).max() <= 1


@given(lengths=st.lists(st.integers(1, 4000), min_size=1, max_size=8), chunk=st.integers(1, 5000))
def test_a_meter_counts_what_a_decoder_decodes(lengths: list[int], chunk: int) -> None:
    writer, reader, meter = OpusWriter(), OpusReader(), OpusSampleCounter()
    stream = b"".join(writer.write(speech(length / 24_000 + 0.08)) for length in lengths)
    pieces = [stream[at : at + chunk] for at in range(0, len(stream), chunk)]
    assert sum(meter.count(piece) for piece in pieces) == sum(len(reader.read(piece)) for piece in pieces)
    assert open_sample_counter("pcm").count(bytes(3840)) == FRAME_SAMPLES


@pytest.mark.parametrize(
    ("packet", "samples"),
    [
        (b"\x08", 480),  # SILK, 20 ms
        (b"\x1b\x03", 3 * 1440),  # SILK, three of 60 ms
        (b"\x78", 480),  # both, 20 ms
        (b"\x81", 2 * 60),  # CELT, two of 2.5 ms
        (b"\xfe", 2 * 480),  # CELT, two of 20 ms
        (b"", 0),
    ],
)
def test_a_meter_knows_every_kind_of_packet(packet: bytes, samples: int) -> None:
    assert OpusSampleCounter().count(opening() + page([packet])) == samples


def test_a_meter_refuses_what_is_no_opus() -> None:
    with pytest.raises(AudioError, match="ends too early"):
        OpusSampleCounter().count(opening() + page([b"\x03"]))
    with pytest.raises(AudioError, match="Ogg"):
        OpusSampleCounter().count(b"nonsense")
