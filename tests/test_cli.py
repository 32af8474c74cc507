"""The `personaplex` command, as a person uses it."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from click.testing import CliRunner, Result

from core.cli.main import main
from core.cli.offline import converse
from core.errors import AudioError
from core.media.sound_files import read_sound, to_stereo, write_wav
from core.plugin.host import PluginHost
from core.settings.config import load_config
from core.testing import EchoEngine
from tests.conftest import Serve, speech, write_config


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def read_wav(path: Path) -> npt.NDArray[np.int16]:
    """int16[n, channels]"""
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getsampwidth()) == (24_000, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A second of speech as a WAV file."""
    write_wav(tmp_path / "in.wav", speech(1.0)[np.newaxis])
    return tmp_path / "in.wav"


def failed(result: Result) -> str:
    """What the command said when it failed: one message and no traceback."""
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert result.output.startswith("Error: ") or "\nError: " in result.output
    return result.output


def test_lists(tmp_path: Path) -> None:
    config = write_config(tmp_path, {})
    assert run("personas", "--config", config).output.splitlines() == [
        "assistant\tAssistant\tNATF2\tHelps.",
        "teacher\tTeacher\tNATM2\t",
    ]
    assert run("voices", "--config", config).output.split() == ["NATF2", "NATM2"]
    plugins = run("plugins", "--config", config).output
    assert "session_log" in plugins
    assert "yaml_personas" in plugins


def test_check_says_what_is_fine(tmp_path: Path) -> None:
    result = run("check", "--config", write_config(tmp_path, {}))
    assert result.exit_code == 0, result.output
    assert "2 personas, 2 voices" in result.output


def test_check_names_everything_that_is_wrong(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"session": {"max_s": -1}, "nonsense": {}})
    (tmp_path / "page" / "index.html").unlink()
    (tmp_path / "personas" / "broken.yaml").write_text("name: [")
    output = failed(run("check", "--config", config))
    for what in ("session.max_s", "nonsense", "index.html", "broken.yaml"):
        assert what in output


@pytest.mark.parametrize("command", ["personas", "voices", "plugins", "check", "serve"])
def test_a_missing_config_is_named(tmp_path: Path, command: str) -> None:
    assert "nowhere.yaml" in failed(run(command, "--config", tmp_path / "nowhere.yaml"))


def test_a_port_in_use_is_named_before_anything_slow(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        output = failed(run("serve", "--config", write_config(tmp_path, {}), "--port", str(port)))
    assert str(port) in output
    assert "--port" in output


@pytest.mark.parametrize("content", [None, b"", b"RIFF nonsense"])
def test_a_recording_that_is_none_is_named(tmp_path: Path, content: bytes | None) -> None:
    source = tmp_path / "in.wav"
    if content is not None:
        source.write_bytes(content)
    assert "in.wav" in failed(run("call", "localhost:1", source, tmp_path / "out.wav"))
    assert "in.wav" in failed(run("talk", source, tmp_path / "out.wav"))


@pytest.mark.parametrize("url", ["localhost:1", "ftp://localhost", "http://", "ws://localhost:1/ws/chat"])
def test_an_address_where_nobody_answers_is_named(tmp_path: Path, recording: Path, url: str) -> None:
    assert url in failed(run("call", url, recording, tmp_path / "out.wav"))


@pytest.mark.parametrize("path", ["", "/ws/chat", "/api/chat"])
@pytest.mark.parametrize("audio", ["opus", "pcm"])
async def test_call_measures_a_conversation(
    serve: Serve, tmp_path: Path, recording: Path, path: str, audio: str
) -> None:
    running = await serve()
    target = tmp_path / "out.wav"
    arguments = ("call", running.url(path, "http"), recording, target, "--audio", audio, "--json", "--stereo")
    result = await asyncio.to_thread(run, *arguments, "--persona", "teacher", "--seed", "9")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["frames_sent"], report["frames_received"], report["close_code"]) == (13, 13, 1000)
    assert report["text"] == "word0 word1 word2"
    assert report["round_trip_ms"]["p50"] > 0
    assert report["connect_ms"] > 0
    assert report["seed"] == (None if path == "/api/chat" else 9)
    assert read_wav(target).shape == (13 * 1920, 2)
    [end] = await running.record.ended()
    assert (end.reason, end.frames_in) == ("left", 13)


async def test_call_for_people_with_a_password(
    serve: Serve, tmp_path: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await serve(plugins={"options": {"password": {"password": "sesame"}}})
    arguments = ("call", running.url(), recording, tmp_path / "out.wav")
    assert "HTTP 401" in failed(await asyncio.to_thread(run, *arguments))
    assert "HTTP 401" in failed(await asyncio.to_thread(run, *arguments, "--password", "wrong"))
    monkeypatch.setenv("PERSONAPLEX_PASSWORD", "sesame\n")  # as a variable made from a file has it
    result = await asyncio.to_thread(run, *arguments, "--silence", "0.4")
    assert result.exit_code == 0, result.output
    assert "p50" in result.output
    assert "18 sent, 18 answered" in result.output


async def test_call_says_why_the_server_ended_it(serve: Serve, tmp_path: Path, recording: Path) -> None:
    running = await serve(EchoEngine(slots=0), server={"queue": 0})
    arguments = ("call", running.url(), recording, tmp_path / "out.wav")
    assert "1013" in failed(await asyncio.to_thread(run, *arguments))
    arguments = ("call", running.url("/ws/chat?persona=nobody"), recording, tmp_path / "out.wav")
    assert "HTTP 404" in failed(await asyncio.to_thread(run, *arguments))


async def test_a_call_that_ends_early_keeps_what_was_said(serve: Serve, tmp_path: Path, recording: Path) -> None:
    running = await serve(session={"max_s": 0.5, "warn_s": 0.1})
    target = tmp_path / "out.wav"
    result = await asyncio.to_thread(run, "call", running.url(), recording, target)
    assert "4000" in failed(result)
    assert 0 < len(read_wav(target)) < 24_000


async def test_converse_uses_the_persona_and_the_transforms(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path, {"plugins": {"disabled": ["loudness"]}}), {})
    host, engine = PluginHost.load(config), EchoEngine()
    await host.startup(engine)
    samples = speech(1.0)
    steps: list[Any] = []
    heard = await converse(
        engine, host, samples, persona="teacher", voice="NATF2", seed=3, progress=lambda *step: steps.append(step)
    )
    assert heard.seed == 3
    assert [word.text for word in heard.words] == [" word0", " word1", " word2"]
    assert [word.time for word in heard.words] == [0.0, 0.4, 0.8]
    np.testing.assert_allclose(heard.agent[: len(samples)], samples, atol=1e-6)
    assert steps[-1] == (13, 13)
    assert engine.calls == []
    await host.shutdown()


def test_sound_files_are_mixed_resampled_and_kept(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48_000)
        tone = np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000) * 8000
        file.writeframes(np.stack([tone, np.zeros(48_000)], axis=1).astype("<i2").tobytes())
    sound = read_sound(tmp_path / "a.wav")
    assert abs(len(sound) - 24_000) < 300
    assert np.abs(sound).max() == pytest.approx(4000 / 32768, rel=0.05)
    write_wav(tmp_path / "b.wav", to_stereo(sound, sound[:100]))
    assert read_wav(tmp_path / "b.wav").shape == (len(sound), 2)
    with pytest.raises(AudioError, match="cannot be written"):
        write_wav(tmp_path / "no" / "b.wav", sound[np.newaxis])


def test_serve_and_talk_for_real(tmp_path: Path, recording: Path) -> None:
    """The shipped engine behind the real command, from the start to Ctrl-C."""
    config = write_config(tmp_path, {"engine": {"name": "nano", "device": "cpu"}})
    command = [sys.executable, "-c", "from core.cli.main import main; main()"]
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [*command, "serve", "--config", str(config)], cwd=root, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        lines = []
        for line in server.stderr:
            lines.append(line)
            if "serves at" in line:
                break
        shown = "".join(lines)
        for what in ("nano", "NATF2, NATM2", "assistant, teacher", "session_log"):
            assert what in shown
        address = shown.rpartition("serves at ")[2].split()[0]
        result = run("call", address, recording, tmp_path / "out.wav", "--json")
        server.send_signal(signal.SIGINT)
        rest = server.stderr.read()
        assert server.wait(20) == 0
    assert "Stopped." in rest
    assert "Traceback" not in rest
    assert json.loads(result.stdout)["frames_received"] > 0

    transcript = tmp_path / "said.json"
    result = run("talk", recording, tmp_path / "out.wav", "--config", config, "--seed", "1", "--transcript", transcript)
    assert result.exit_code == 0, result.output
    assert len(read_wav(tmp_path / "out.wav")) == 13 * 1920
    assert yaml.safe_load(transcript.read_text())["seed"] == 1
