"""From config to a running engine, on nano's checkpoint."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import sphn
import torch
from click.testing import CliRunner, Result

from core.boot.capacity import CPU_SLOTS, frames_per_call, slots_in_time, slots_that_fit
from core.boot.checkpoint_source import NANO
from core.boot.local_engine import open_engine
from core.cli.main import main
from core.engine.architecture import Architecture
from core.engine.call import SlotLimits
from core.engine.checkpoint import Checkpoint
from core.engine.lm import LanguageModel
from core.engine.mimi.voice_encoder import VoiceEncoder, drain
from core.engine.prompt import Prompt, Voice
from core.engine.sampling import Sampling
from core.engine.weights import load_mimi
from core.errors import CheckpointError, EngineError, PromptError
from core.media.voices import VoiceFolder
from core.settings.sections import Device, EngineConfig
from tests.engines import CPU


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def hum(seconds: float) -> npt.NDArray[np.float32]:
    """Something like a voice: a falling tone with overtones that comes and goes, float32 at 24 kHz."""
    time = np.arange(int(seconds * 24_000)) / 24_000
    tone = sum(np.sin(2 * np.pi * 140 * k * time * (1 - 0.02 * time)) / k for k in range(1, 9))
    return (0.1 * tone * (np.sin(2 * np.pi * 3 * time) > -0.5)).astype(np.float32)


async def test_nano_answers_a_voice_with_sound_and_words(cache: Path) -> None:
    told: list[str] = []
    engine = open_engine(EngineConfig(name="nano", cache=str(cache)), told.append)
    try:
        assert (engine.info.name, engine.info.device, engine.info.slots) == ("nano", "CPU", CPU_SLOTS)
        assert "nano" in told[-1]
        assert engine.voices() == ("NATF2", "NATM2", "VARF0", "VARM0")
        assert engine.voice("nobody") is None
        assert engine.voice("../NATF2") is None
        said: dict[str, list[npt.NDArray[Any]]] = {}
        for name, voice in (("NATF2", engine.voice("NATF2")), ("own", Voice("own", pcm=hum(2.0)))):
            call = engine.open(Prompt("You enjoy having a good conversation.", voice), Sampling(seed=3))
            await call.ready()
            answers, words = call.frames(), ""
            said[name] = []
            for frame in hum(4.0).reshape(-1, 1920):
                call.push(frame)
                answer = await anext(answers)
                words += answer.text
                said[name].append(answer.pcm)
            await call.close()
            sound = np.concatenate(said[name])
            assert 0.01 < np.sqrt(np.mean(sound**2)) < 0.5
            assert words.strip()
            assert words.isprintable()
        assert not np.array_equal(said["NATF2"], said["own"])
    finally:
        engine.close()


async def test_a_recording_and_its_codes_are_the_same_voice(cache: Path) -> None:
    checkpoint = Checkpoint.read(NANO)
    encode = VoiceEncoder(load_mimi(checkpoint.mimi, checkpoint.mimi_config, CPU))
    recording = hum(1.5)
    engine = open_engine(EngineConfig(name="nano", cache=str(cache), slots=1), lambda _: None)
    said = []
    try:
        for voice in (Voice("a", pcm=recording), Voice("b", codes=drain(encode(recording)))):
            call = engine.open(Prompt("Hello.", voice), Sampling(seed=3))
            await call.ready()
            answers = call.frames()
            call.push(recording[:1920])
            said.append((await anext(answers)).tokens)
            await call.close()
    finally:
        engine.close()
    assert np.array_equal(said[0], said[1])


def test_a_folder_is_a_checkpoint(cache: Path) -> None:
    folder = NANO
    engine = open_engine(EngineConfig(name="personaplex", checkpoint=str(folder), slots=3, threads=1), lambda _: None)
    assert (engine.info.name, engine.info.slots) == ("nano", 3)
    engine.close()


@pytest.mark.parametrize("device", ["cuda:99", "potato", "meta"])
def test_a_device_that_is_not_there_is_named(cache: Path, device: str) -> None:
    with pytest.raises(EngineError, match=device):
        open_engine(EngineConfig(name="nano", cache=str(cache), device=cast(Device, device)), lambda _: None)


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        open_engine(EngineConfig(name="personaplex", checkpoint=str(tmp_path)), lambda _: None)


@pytest.mark.parametrize(
    ("times", "slots"),
    [
        ({1: 8.0, 2: 9.0, 4: 10.0}, 4),
        ({1: 8.0, 32: 20.0, 64: 60.0}, 56),
        ({1: 70.0, 2: 90.0}, 1),
        ({1: 8.0}, 1),
    ],
)
def test_as_many_slots_as_a_step_carries(times: dict[int, float], slots: int) -> None:
    assert slots_in_time(times) == slots


async def test_an_engine_says_how_long_a_call_its_memory_is_enough_for(cache: Path) -> None:
    engine = open_engine(EngineConfig(name="nano", cache=str(cache), slots=1), lambda _: None, longest_s=10)
    try:
        longest_s = engine.info.longest_s
        assert 10 <= longest_s < 30
        await engine.open(Prompt("Hello."), Sampling(), longest_s).close()
        with pytest.raises(PromptError, match="short calls only"):
            engine.open(Prompt("Hello."), Sampling(), longest_s + 60)
    finally:
        engine.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("int8_weights", "cache_dtype", "slots"),
    [
        (False, torch.bfloat16, 3),
        (False, torch.int8, 6),
        (True, torch.bfloat16, 7),
        (True, torch.int8, 15),
    ],
)
def test_an_a10g_holds_twice_as_many_calls_in_8_bits(int8_weights: bool, cache_dtype: torch.dtype, slots: int) -> None:
    """PersonaPlex in 22 GiB, of which CUDA and the codec take one."""
    lm = LanguageModel(Architecture(), torch.device("meta"), torch.bfloat16, int8_weights)
    gib, window = 2**30, lm.architecture.context
    free = 21 * gib - sum(weight.nbytes for weight in lm.parameters())
    assert slots_that_fit(free, 22 * gib, lm.architecture, lm.dtype, cache_dtype, window) == slots


def test_short_calls_are_reckoned_shorter() -> None:
    assert frames_per_call(Architecture(), None) == 3000
    assert frames_per_call(Architecture(), 900) == 3000
    assert frames_per_call(Architecture(), 36) == 750


def save_wav(path: Path, pcm: npt.NDArray[np.float32], rate: int = 24_000) -> Path:
    sphn.write_wav(str(path), pcm, rate)
    return path


def test_a_voice_is_made_of_a_recording(cache: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"engine: {{name: nano, cache: {cache}}}\nvoices: {{allow: [NATF2, mine]}}\npersonas: {{}}\n")
    recording = save_wav(tmp_path / "in.wav", hum(2.0))

    def make(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["voice", "make", *arguments, str(recording), "--config", str(config)])

    result = make("mine")
    assert result.exit_code == 0, result.output
    assert "the next call can use it" in result.output
    voice = VoiceFolder(tmp_path / "voices").load("mine")
    assert voice is not None
    assert voice.codes is not None
    assert voice.codes.shape == (25, 8)
    assert "--replace" in make("mine").output
    assert make("mine", "--replace").exit_code == 0
    assert "add other to voices.allow" in make("other").output
    assert "not a voice's name" in make("../evil").output


@pytest.mark.parametrize(
    ("pcm", "message"),
    [
        (np.zeros(48_000, np.float32), "silent"),
        (np.sign(hum(2.0)).astype(np.float32), "clipped"),
        (hum(0.4), "at least 1 s"),
    ],
)
def test_a_recording_that_makes_no_voice_is_refused(tmp_path: Path, pcm: npt.NDArray[np.float32], message: str) -> None:
    (tmp_path / "config.yaml").write_text("engine: {name: nano}\n")
    recording = save_wav(tmp_path / "in.wav", pcm)
    arguments = ["voice", "make", "x", str(recording), "--config", str(tmp_path / "config.yaml")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "voices").exists()


def test_auto_takes_the_least_of_what_each_part_carries(cache: Path) -> None:
    for carried, slots in ((1, 1), (40, CPU_SLOTS)):
        config = EngineConfig(name="nano", device="cpu", cache=str(cache))
        engine = open_engine(config, lambda _: None, 30.0, carried)
        try:
            assert engine.info.slots == slots
            assert engine.info.limits == SlotLimits(memory=None, step=CPU_SLOTS, service=carried)
        finally:
            engine.close()
    engine = open_engine(EngineConfig(name="nano", device="cpu", cache=str(cache), slots=3), lambda _: None, 30.0, 1)
    try:
        assert (engine.info.slots, engine.info.limits) == (3, SlotLimits())
    finally:
        engine.close()
