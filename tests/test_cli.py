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
from core.engine.call import FRAME_SAMPLES, Frame
from core.errors import AudioError
from core.events import CallerText
from core.media.sound_files import check_writable, read_sound, to_stereo, write_wav
from core.plugin.acting import Line, SessionControl
from core.plugin.discovery import find_plugins, object_candidate
from core.plugin.hookspecs import hookimpl
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


WRONG: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "voice": ({"voices": {"allow": ["*"]}}, {"voices/anna.wav": "RIFF no sound"}, "anna.wav: not a sound file"),
    "voices in capitals": ({}, {"voices/ANNA.MP3": ""}, "ANNA.MP3: a voice is a .wav or .safetensors file"),
    "async hook": ({}, {"plugins/p.py": "{import}@hookimpl\nasync def notices(): return []"}, "cannot be async"),
    "broken plugin": ({}, {"plugins/p.py": "import there_is_no_such_module"}, "there_is_no_such_module"),
    "routes": ({}, {"plugins/p.py": "{import}@hookimpl\ndef register_routes(): return ['/x']"}, "register_routes"),
    "startup": ({}, {"plugins/p.py": "{import}@hookimpl\ndef startup(): 1/0"}, "startup failed: ZeroDivisionError"),
    "listing": ({}, {"plugins/p.py": "{import}@hookimpl\ndef list_personas(): 1/0"}, "list_personas failed: Zero"),
    "persona": (
        {},
        {"plugins/p.py": "{import}@hookimpl\ndef list_personas(): return [7]"},
        "plugin p: list_personas returned int, not a Persona.",
    ),
    "nobody": ({"personas": {"folder": "page"}}, {}, "page: there is no persona (NAME.yaml) to talk with"),
    "device": ({"engine": {"device": "tpu"}}, {}, "engine.device: expected auto, cpu, cuda, got 'tpu'"),
    "checkpoint": ({"engine": {"name": "personaplex", "checkpoint": "./model"}}, {}, "is neither a folder nor a"),
    "empty checkpoint": ({"engine": {"name": "personaplex", "checkpoint": "page"}}, {}, "page"),
    "address": (
        {"server": {"host": "no.such.host.invalid", "insecure": True}},
        {},
        "no.such.host.invalid is no address",
    ),
    "recordings": (
        {"plugins": {"options": {"recording": {"enabled": True, "folder": "page/index.html/x"}}}},
        {},
        "index.html is no folder",
    ),
}


def test_check_says_what_clients_of_others_will_not_get(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"engine": {"name": "nano"}, "personas": {"custom": False}})
    result = run("check", "--config", config)
    assert result.exit_code == 0
    fine, custom, voices = result.output.splitlines()
    assert "is fine" in fine
    assert custom.startswith("personas.custom: ")
    assert voices.startswith("voices.allow: not offered are NATF0, NATF1, NATF3, ")
    config = write_config(tmp_path, {"engine": {"name": "nano"}, "voices": {"allow": ["*"]}})
    assert len(run("check", "--config", config).output.splitlines()) == 1


@pytest.mark.parametrize("kind", WRONG)
def test_check_names_what_serve_or_a_first_call_would_refuse(tmp_path: Path, kind: str) -> None:
    settings, files, says = WRONG[kind]
    config = write_config(tmp_path, {"engine": {"name": "nano"}, **settings})
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.replace("{import}", "from core import hookimpl\n"))
    output = failed(run("check", "--config", config))
    assert says in output
    assert output.startswith("Error: ")
    assert len(output.splitlines()) == len(set(output.splitlines()))


def test_check_names_all_of_them_at_once(tmp_path: Path) -> None:
    settings: dict[str, Any] = {}
    for kind, (sections, _, _) in WRONG.items():
        if kind not in ("nobody", "checkpoint", "empty checkpoint"):  # which leave no room for others
            settings |= sections
    config = write_config(tmp_path, settings)
    for number, (_, files, _) in enumerate(WRONG.values()):
        for name, text in files.items():
            path = tmp_path / name.replace("p.py", f"p{number}.py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text.replace("{import}", "from core import hookimpl\n"))
    (tmp_path / "personas" / "broken.yaml").write_text("name: [")
    output = failed(run("check", "--config", config))
    for kind, (_, _, says) in WRONG.items():
        if kind not in ("nobody", "checkpoint", "empty checkpoint"):
            assert says.removeprefix("plugin p: ") in output, kind
    assert "broken.yaml: not valid YAML" in output


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


@pytest.mark.parametrize(
    ("path", "audio"), [("", "opus"), ("/ws/chat", "pcm"), ("/api/chat", "opus"), ("/api/chat", "pcm")]
)
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


class Understands:
    """Knows what the caller says, after five frames."""

    @hookimpl
    def open_session(self, control: SessionControl) -> "Understands":
        heard = Understands()
        heard.control, heard.frames = control, 0
        return heard

    control: SessionControl
    frames: int

    async def caller_frame(self, _frame: Frame) -> None:
        self.frames += 1
        if self.frames == 5:
            self.control.caller_said("What is that?", 0, 400)


async def test_a_call_prints_what_both_sides_said(serve: Serve, tmp_path: Path, recording: Path) -> None:
    running = await serve(extra=(Understands(),))
    write_wav(recording, speech(0.6)[np.newaxis])
    arguments = ("call", running.url(), recording, tmp_path / "out.wav")
    printed = (await asyncio.to_thread(run, *arguments)).output
    assert "0.0  caller: What is that?" in printed
    assert "0.0  agent: word0" in printed
    report = json.loads((await asyncio.to_thread(run, *arguments, "--json")).stdout)
    assert {"side": "caller", "text": "What is that?", "start_ms": 0.0, "end_ms": 400.0} in report["lines"]


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


class Acts:
    """Greets, understands one word, answers it, mutes, and hangs up."""

    def __init__(self, control: SessionControl) -> None:
        self.control = control
        self.frames = 0
        control.say("Good morning.")

    async def caller_frame(self, _frame: Frame) -> None:
        self.frames += 1
        if self.frames == 5:
            self.control.caller_said("Goodbye.", 0, 400)

    async def caller_text(self, said: CallerText) -> None:
        self.control.end("goodbye", "Goodbye to you.")


async def test_plugins_act_in_a_conversation_without_a_server(tmp_path: Path) -> None:
    class Plugin:
        @hookimpl
        def open_session(self, control: SessionControl) -> Acts:
            return Acts(control)

    config = load_config(write_config(tmp_path, {"plugins": {"disabled": ["loudness"]}}), {})
    host, engine = PluginHost.load(config, [*find_plugins(config), object_candidate("acts", Plugin())]), EchoEngine()
    await host.startup(engine)
    heard = await converse(engine, host, speech(10.0), persona="", voice=None, seed=None)
    assert heard.ended == "Goodbye to you."
    assert 1 <= len(heard.agent) // FRAME_SAMPLES < 100
    assert len(heard.agent) == len(heard.caller)
    assert "".join(word.text for word in heard.words).startswith(" Good morning.")
    assert Line("caller", "Goodbye.", 0.0, 400.0) in heard.transcript
    assert any(line.text.startswith("Good morning.") for line in heard.transcript)
    assert not heard.failures
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


@pytest.mark.slow
def test_serve_and_talk_for_real(tmp_path: Path, recording: Path) -> None:
    """The shipped engine behind the real command, from the start to Ctrl-C."""
    offered = {"allow": ["NATF2", "NATM2", "anna"]}
    config = write_config(tmp_path, {"engine": {"name": "nano", "device": "cpu"}, "voices": offered})
    (tmp_path / "voices").mkdir()
    (tmp_path / "voices" / "anna.wav").write_bytes(b"RIFF no sound")
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
        for what in (
            "nano",
            "calls would be refused",
            "anna.wav: not a sound file",
            "NATF2, NATM2",
            "assistant, teacher",
            "session_log",
        ):
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


@pytest.mark.parametrize("target", ["nowhere/out.wav", "folder"])
@pytest.mark.parametrize("command", ["talk", "call"])
def test_an_answer_that_cannot_be_written_is_known_before_the_conversation(
    tmp_path: Path, recording: Path, command: str, target: str
) -> None:
    (tmp_path / "folder").mkdir()
    where = ("localhost:1",) if command == "call" else ()
    output = run(command, *where, recording, tmp_path / target).output
    assert target in output
    assert "Cannot connect" not in output
    assert "slots" not in output


def test_looking_whether_a_file_can_be_written_changes_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "new.wav")
    assert not (tmp_path / "new.wav").exists()
    (tmp_path / "old.wav").write_bytes(b"precious")
    check_writable(tmp_path / "old.wav")
    assert (tmp_path / "old.wav").read_bytes() == b"precious"


def test_talk_with_nobody_says_whom_there_is_before_the_model_is_loaded(
    tmp_path: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.boot.local_engine.open_engine", lambda *_: pytest.fail("the model is loaded"))
    config = write_config(tmp_path, {})
    output = failed(run("talk", recording, tmp_path / "out.wav", "--config", config, "--persona", "hotle"))
    assert "no persona 'hotle'" in output
    assert "assistant, teacher" in output
    assert "GET" not in output
