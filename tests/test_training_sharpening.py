"""Stage `sharpen`: the decoder's spectra stand out of their surroundings, and are as loud as the teacher's."""

import os
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.untrained import untrained_mimi
from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE
from core.engine.mimi.spectral import SpectralMimi, SpectralNetwork
from core.evaluation.speech import Samples
from tests.engines import CPU
from training.export import is_sharp
from training.shape import SMALL, SMALL_DECODER
from training.shards import Said, write_shard
from training.sharpening import missing_gain, neighbourhood, sharpen, sharpen_codec
from training.stages import SHARP, TRAINED, read_decoder
from training.teachers import Spoken

pytestmark = pytest.mark.training
BINS = SMALL_DECODER.bins
HERTZ = SAMPLE_RATE / SMALL_DECODER.window


def noise(rng: np.random.Generator) -> Samples:
    """Two seconds of noise whose treble is weak, and a second of silence, in whole frames."""
    dull = np.convolve(rng.standard_normal(2 * SAMPLE_RATE), np.hanning(6), mode="same")
    whole = np.concatenate([0.1 * dull, np.zeros(SAMPLE_RATE)])
    return np.asarray(whole[: len(whole) // FRAME_SAMPLES * FRAME_SAMPLES], dtype=np.float32)


def decoder() -> SpectralNetwork:
    """One that nobody has trained, whose spectra are not all alike."""
    torch.manual_seed(0)
    network = SpectralNetwork(SMALL_DECODER)
    with torch.no_grad():
        network.spectrum.bias.uniform_(-4, 0)
    return network.eval()


@pytest.fixture
def mimi() -> SpectralMimi:
    return SpectralMimi(untrained_mimi(torch.Generator().manual_seed(0), SMALL.mimi), decoder()).eval()


def magnitudes(mimi: SpectralMimi, line: Samples) -> Tensor:
    """Log magnitudes that the decoder makes of a line, float32[time, bins]."""
    found: list[Tensor] = []
    hook = mimi.spectral.spectrum.register_forward_hook(lambda module, given, made: found.append(made))
    with torch.inference_mode():
        mimi.decode(mimi.encode(torch.from_numpy(line)[None, None]))
    hook.remove()
    return found[0][0, :, :BINS]


def test_what_is_narrow_grows_and_what_is_wide_stays() -> None:
    places = HERTZ * torch.arange(BINS)
    inner = slice(round(3000 / HERTZ), BINS - round(3000 / HERTZ))
    for hertz, least, most in ((200, 1.45, 1.55), (400, 1.45, 1.55), (40_000, 0.98, 1.02)):
        ripple = torch.sin(2 * torch.pi * places / hertz)
        sharper = ripple + 0.5 * (ripple - neighbourhood(SMALL_DECODER.window) @ ripple)
        grown = sharper[inner].abs().max() / ripple[inner].abs().max()
        assert least < grown < most, hertz


def test_spectra_are_sharper_in_all_moments_and_as_loud_as_the_teachers(mimi: SpectralMimi) -> None:
    rng = np.random.default_rng(0)
    lines = [noise(rng) for _ in range(4)]
    before = magnitudes(mimi, lines[0])
    differences = sharpen(mimi, lines, share=0.5)
    after = magnitudes(mimi, lines[0])
    assert differences[-1] < 0.2 * differences[0], "its power comes near the teacher's"
    moved = after - (before + 0.5 * (before - before @ neighbourhood(SMALL_DECODER.window).T))
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), atol=1e-3, rtol=0)


def test_sound_is_compared_with_what_is_made_of_it(mimi: SpectralMimi, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a decoder makes is late by its `delay`."""
    rng = np.random.default_rng(0)
    line = noise(rng)
    line *= np.repeat(rng.random(len(line) // 480) < 0.3, 480)
    late = torch.from_numpy(np.concatenate([np.zeros(SMALL_DECODER.delay), line])[: len(line)].astype(np.float32))
    monkeypatch.setattr(mimi, "decode", lambda codes: codes * late[None, None])
    gain = missing_gain(mimi, [line], [torch.tensor(0.5)])
    torch.testing.assert_close(gain, torch.full((BINS,), 2.0).log(), atol=1e-3, rtol=0)


def test_a_folders_decoder_is_sharpened_beside_the_trained_one(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(click.ClickException, match=message):
            sharpen_codec(tmp_path, print, SMALL.mimi)

    refused("run the stage `codec` first")
    weights = decoder().state_dict()
    torch.save({"decoder": weights, "mean": weights, "shape": asdict(SMALL_DECODER), "steps": 7}, tmp_path / TRAINED)
    refused("holds no line of nano's voices")
    save_file(untrained_mimi(torch.Generator().manual_seed(0), SMALL.mimi).state_dict(), tmp_path / "mimi.safetensors")
    spoken = Spoken(noise(np.random.default_rng(0)), (0.0,), ())
    lines = [Said("a/agent", "espeak-a", "Hum.", spoken), Said("b/agent", "NATF2", "Hum.", spoken)]
    write_shard(tmp_path / "speech" / "kokoro-00000", {}, lines)
    told: list[str] = []
    assert not is_sharp(tmp_path)
    sharpen_codec(tmp_path, told.append, SMALL.mimi)
    assert is_sharp(tmp_path)
    assert told[0].startswith("1 lines"), "others' voices do not count"
    trained, sharp = (read_decoder(tmp_path / name, CPU).state_dict() for name in (TRAINED, SHARP))
    assert {name for name in trained if not torch.equal(trained[name], sharp[name])} == {
        "spectrum.weight",
        "spectrum.bias",
    }
    os.utime(tmp_path / TRAINED, (2e9, 2e9))
    with pytest.raises(click.ClickException, match="run the stage `sharpen` again"):
        is_sharp(tmp_path)
