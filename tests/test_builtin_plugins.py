"""The built-in plugins, as the host uses them."""

import asyncio
import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.engine.call import Frame
from core.engine.prompt import Voice
from core.errors import ConfigError, PersonaError
from core.events import (
    CallRefused,
    FirstAudio,
    FrameTimed,
    Identity,
    PluginFailed,
    SessionEnded,
    SessionEvent,
    SessionInfo,
    SessionQueued,
    SessionReady,
    SessionStarted,
    TextSaid,
    TransformFailed,
)
from core.media.sound_files import write_wav
from core.media.voices import write_voice
from core.plugin.host import PluginHost
from core.settings.config import load_config
from core.settings.log import configure_logging, get_logger
from core.settings.sections import LogConfig
from core.testing import EchoEngine
from plugins import loudness, session_log

CALLER = Identity("caller")
SESSION = SessionInfo("s-1", CALLER, "teacher", "NATF2", "/ws/chat", "127.0.0.1", "opus")
FRAME = 1920
Samples = npt.NDArray[np.floating[Any]]
Logged = Callable[[], list[dict[str, Any]]]
"""What was logged until now."""


@pytest.fixture
def logged() -> Iterator[Logged]:
    """Log lines as JSON, from everything that runs in the test."""
    root, own = logging.getLogger(), logging.getLogger("personaplex")
    before = (root.handlers[:], root.level, own.level)
    stream = io.StringIO()
    configure_logging(LogConfig(format="json", level="debug"), stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:], root.level = before[0], before[1]
    own.setLevel(before[2])


def settings_in(folder: Path, text: str = "") -> PluginHost:
    (folder / "config.yaml").write_text(text)
    return PluginHost.load(load_config(folder / "config.yaml", {}))


# yaml_personas


def persona(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(text)


async def test_edits_of_personas_count_from_the_next_call(tmp_path: Path, logged: Logged) -> None:
    folder = tmp_path / "personas"
    persona(folder, "ann", "name: Ann\nvoice: NATF2")
    host = settings_in(tmp_path)
    await host.startup(None)
    assert [found.name for found in await host.list_personas(CALLER)] == ["Ann"]

    persona(folder, "bob", "name: Bob\nvoice: NATM2")
    persona(folder, "ann", "name: Anna\nvoice: NATF2")
    assert [found.name for found in await host.list_personas(CALLER)] == ["Anna", "Bob"]
    assert (await host.resolve_persona("bob", CALLER)).voice == "NATM2"

    persona(folder, "ann", "name: Annabel\nvoice: NATF2\nprompt: [secret words")
    for _ in range(3):
        assert (await host.resolve_persona("ann", CALLER)).name == "Anna"
    (line,) = [line for line in logged() if line["event"] == "personas kept as they were"]
    assert "ann.yaml" in line["problems"][0]

    persona(folder, "ann", "name: Annabel\nvoice: NATF9")
    assert (await host.resolve_persona("ann", CALLER)).name == "Anna"
    (folder / "ann.yaml").unlink()
    with pytest.raises(PersonaError, match="There is no persona 'ann'"):
        await host.resolve_persona("ann", CALLER)
    assert "secret words" not in json.dumps(logged())


async def test_a_folder_that_vanishes_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "personas"
    persona(folder, "ann", "name: Ann\nvoice: NATF2")
    host = settings_in(tmp_path)
    await host.startup(None)
    folder.rename(tmp_path / "away")
    assert (await host.resolve_persona("ann", CALLER)).name == "Ann"


async def test_broken_personas_stop_the_boot(tmp_path: Path) -> None:
    persona(tmp_path / "personas", "ann", "name: Ann\nvoice: NATF9")
    persona(tmp_path / "personas", "bob", "nam: Bob")
    with pytest.raises(ConfigError) as caught:
        await settings_in(tmp_path, "voices: {allow: [NATF2, NATX*]}").startup(None)
    found = str(caught.value)
    for part in ("ann.yaml: voice: the voice 'NATF9' is not offered", "bob.yaml: nam", "voices.allow", "'NATX*'"):
        assert part in found


# voices


class Packaged:
    """An engine as far as voices go."""

    def voices(self) -> tuple[str, ...]:
        return ("NATF2", "own")

    def voice(self, name: str) -> Voice | None:
        return Voice(name, codes=np.ones((4, 8), np.int64)) if name in self.voices() else None


async def test_the_operators_voices_come_before_the_packaged_ones(tmp_path: Path) -> None:
    (tmp_path / "personas").mkdir()
    host = settings_in(tmp_path)
    await host.startup(Packaged())  # type: ignore[arg-type]
    assert await host.list_voices() == ["NATF2", "own"]
    write_voice(tmp_path / "voices" / "own.safetensors", Voice("own", codes=np.zeros((9, 8), np.int64)))
    write_voice(tmp_path / "voices" / "new.safetensors", Voice("new", codes=np.zeros((5, 8), np.int64)))
    assert await host.list_voices() == ["NATF2", "new", "own"]
    frames = [
        len(voice.codes) for name in ("NATF2", "new", "own") if (voice := await host.load_voice(name)).codes is not None
    ]
    assert frames == [4, 5, 9]


async def test_recordings_on_offer_are_prepared_and_again_after_an_edit(tmp_path: Path) -> None:
    for folder in ("personas", "voices"):
        (tmp_path / folder).mkdir()
    speech = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 72_000)).astype(np.float32)
    for name in ("own", "other"):
        write_wav(tmp_path / "voices" / f"{name}.wav", speech)
    (tmp_path / "voices" / "broken.wav").write_bytes(b"RIFF")
    write_voice(tmp_path / "voices" / "coded.safetensors", Voice("coded", codes=np.zeros((9, 8), np.int64)))
    host, engine = settings_in(tmp_path, "voices: {allow: [ow*, coded, broken]}"), EchoEngine()

    async def prepared(number: int) -> None:
        async with asyncio.timeout(30):
            while len({voice.fingerprint for voice in engine.prepared}) < number:  # noqa: ASYNC110 - by a thread
                await asyncio.sleep(0.02)

    await host.startup(engine)
    await prepared(1)
    write_wav(tmp_path / "voices" / "own.wav", -speech)
    await prepared(2)
    assert {voice.name for voice in engine.prepared} == {"own"}
    await host.shutdown()


# session_log


def test_a_conversation_leaves_two_lines_with_its_id(logged: Logged) -> None:
    plugin = session_log.Plugin()
    events: tuple[SessionEvent, ...] = (
        SessionQueued(2),
        SessionStarted(1500, 7),
        SessionReady(120),
        FirstAudio(95),
        *(FrameTimed(1, 2, 3, 4, 5, total) for total in (10, 20, 30)),
        TextSaid("do not log me", 3),
        TransformFailed("gain", "too slow"),
        SessionEnded("left", 1000, 12.34, 100, 99, 1),
    )
    for event in events:
        plugin.session_event(SESSION, event)
    lines = [line for line in logged() if line["level"] != "debug"]
    assert [line["event"] for line in lines] == ["session started", "transform left out", "session ended"]
    assert {line["session"] for line in logged()} == {"s-1"}
    start, failed, end = lines
    assert (start["persona"], start["voice"], start["identity"], start["seed"]) == ("teacher", "NATF2", "caller", 7)
    assert (failed["level"], failed["plugin"]) == ("warning", "gain")
    assert end["level"] == "info"
    wanted = {"reason": "left", "code": 1000, "seconds": 12.3, "frames_in": 100, "frames_out": 99, "dropped": 1}
    wanted |= {"waited_ms": 1500, "prompt_ms": 120, "first_audio_ms": 95, "frame_ms_p50": 20, "frame_ms_p99": 30}
    assert wanted.items() <= end.items()
    assert "do not log me" not in json.dumps(logged())


def test_a_refused_call_leaves_one_line(logged: Logged) -> None:
    plugin = session_log.Plugin()
    plugin.service_event(CallRefused("unauthorized", 401, "/ws/chat", "192.0.2.1"))
    plugin.service_event(PluginFailed("gain", "startup", "ValueError"))
    [line] = logged()
    assert (line["event"], line["level"]) == ("call refused", "info")
    wanted = {"reason": "unauthorized", "status": 401, "route": "/ws/chat", "address": "192.0.2.1"}
    assert wanted.items() <= line.items()
    assert "setting" not in line


def test_a_refused_call_names_the_setting_that_refuses_it(logged: Logged) -> None:
    session_log.Plugin().service_event(CallRefused("not_found", 404, "/api/chat", "192.0.2.1", "voices.allow"))
    [line] = logged()
    assert line["setting"] == "voices.allow"


def test_a_fault_is_an_error_and_no_session_is_remembered(logged: Logged) -> None:
    plugin = session_log.Plugin()
    for number in range(50):
        session = SessionInfo(f"s-{number}", CALLER, "custom", "NATF2", "/api/chat", "::1", "pcm")
        plugin.session_event(session, SessionStarted(0, 1))
        plugin.session_event(session, SessionEnded("engine", 1011, 0, 0, 0, 0, error="out of memory"))
        plugin.session_event(session, FirstAudio(1))
    assert plugin._running == {}
    assert [line["level"] for line in logged()] == ["info", "error"] * 50
    assert logged()[-1]["error"] == "out of memory"


def test_people_get_columns_and_machines_json() -> None:
    forms: dict[Literal["console", "json"], Callable[[str], bool]] = {
        "console": lambda text: "session=s-1" in text,
        "json": lambda text: bool(json.loads(text)["session"] == "s-1"),
    }
    for form, check in forms.items():
        root, own = logging.getLogger(), logging.getLogger("personaplex")
        before = (root.handlers[:], root.level, own.level)
        stream = io.StringIO()
        try:
            configure_logging(LogConfig(format=form), stream)
            get_logger("session").info("session started", session="s-1")
            get_logger("session").debug("not shown")
        finally:
            root.handlers[:], root.level = before[0], before[1]
            own.setLevel(before[2])
        assert check(stream.getvalue())
        assert "not shown" not in stream.getvalue()


# loudness


def leveller(target: float = -22, most: float = 12) -> loudness.Leveller:
    return loudness.Leveller(target, most)


def run(transform: loudness.Leveller, pcm: Samples) -> npt.NDArray[np.float32]:
    frames = pcm[: len(pcm) // FRAME * FRAME].astype(np.float32).reshape(-1, FRAME)
    return np.concatenate([transform.process(frame) for frame in frames])


def voice(seconds: float, level_db: float, seed: int = 0) -> Samples:
    """A buzz in syllables and sentences, whose syllables have this RMS level."""
    t = np.arange(int(seconds * 24_000)) / 24_000
    pitch = 2 * np.pi * np.cumsum(130 + 20 * np.sin(2 * np.pi * 0.5 * t)) / 24_000
    buzz = sum(np.sin(number * pitch + number) / number for number in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * 2.2 * t + seed), 0, 1) ** 0.5 * (np.sin(2 * np.pi * 0.2 * t) > -0.7)
    speech = buzz * syllables
    return np.asarray(speech * 10 ** (level_db / 20) / np.sqrt(np.mean(speech[syllables > 0.5] ** 2)))


def level(pcm: Samples) -> float:
    """RMS in dB of the loud half, so that pauses do not count."""
    power = np.mean(pcm[: len(pcm) // 480 * 480].reshape(-1, 480) ** 2, axis=1)
    return float(10 * np.log10(np.mean(np.sort(power)[len(power) // 2 :]) + 1e-12))


@pytest.mark.parametrize("given_db", [-32, -27, -22, -17, -12])
def test_speech_of_any_level_comes_out_at_about_the_same(given_db: float) -> None:
    out = run(leveller(), voice(20, given_db))
    assert level(out[10 * 24_000 :]) == pytest.approx(-22, abs=2.5)
    assert np.abs(out).max() <= loudness.CEILING


def test_two_voices_in_one_call_come_closer() -> None:
    out = run(leveller(), np.concatenate([voice(15, -14), voice(15, -30)]))
    loud, quiet = level(out[5 * 24_000 : 15 * 24_000]), level(out[-5 * 24_000 :])
    assert abs(loud - quiet) < 4


@pytest.mark.parametrize("noise_db", [-70, -50, -40, -25])
def test_silence_and_noise_are_never_made_louder(noise_db: float) -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(10 * 24_000) * 10 ** (noise_db / 20)
    out = run(leveller(), noise)
    assert level(out) <= level(noise) + 0.1
    assert not run(leveller(), np.zeros(24_000)).any()
    after_speech = run(leveller(), np.concatenate([voice(10, -32), noise]))[-5 * 24_000 :]
    assert level(after_speech) <= level(noise) + 0.1


def test_no_clicks_and_no_clipping() -> None:
    """Between neighbouring samples the output steps no more than the input does, times the gain."""
    t = np.arange(24_000 * 8) / 24_000
    tone = np.sin(2 * np.pi * 150 * t) * np.where((t % 2) < 1, 0.02, 1.4) * np.clip((t % 1) * 50, 0, 1)
    out = run(leveller(), tone)
    assert np.abs(out).max() <= loudness.CEILING
    speech = voice(10, -30)
    out = run(leveller(), speech)
    assert np.abs(np.diff(out)).max() <= np.abs(np.diff(speech)).max() * 10 ** (12.5 / 20)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.floats(20, 12_000)), min_size=1, max_size=12))
def test_whatever_comes_in_a_frame_goes_out(frames: list[Frame]) -> None:
    transform = leveller()
    t = np.arange(FRAME) / 24_000
    for amplitude, frequency in frames:
        out = transform.process((amplitude * np.sin(2 * np.pi * frequency * t)).astype(np.float32))
        assert out.dtype == np.float32
        assert out.shape == (FRAME,)
        assert np.abs(out).max() <= loudness.CEILING
        assert -12.5 <= transform.gain_db <= 12.5 or amplitude > 1
