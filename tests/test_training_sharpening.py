"""Stage `sharpen`: the decoder's spectra stand out of their surroundings, and are as loud as the teacher's."""

from pathlib import Path

import click
import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.untrained import untrained_mimi
from core.engine.call import SAMPLE_RATE
from core.engine.mimi.spectral import SpectralMimi, SpectralNetwork
from core.evaluation.speech import Samples
from tests.engines import CPU
from training.packing import DECODER, pack_decoder
from training.shape import SMALL, SMALL_DECODER
from training.shards import Said, write_shard
from training.sharpening import encoded, sharpen, sharpen_codec, surroundings
from training.stages import trained_decoder
from training.teachers import Spoken

pytestmark = pytest.mark.training


def noise(rng: np.random.Generator, seconds: float = 2.0) -> Samples:
    """Noise whose treble is weak, with silence behind it."""
    white = rng.standard_normal(round(seconds * SAMPLE_RATE)).astype(np.float32)
    dull = np.convolve(white, np.hanning(6).astype(np.float32), mode="same")
    return np.asarray(np.concatenate([0.1 * dull, np.zeros(SAMPLE_RATE)]), dtype=np.float32)


@pytest.fixture
def mimi() -> SpectralMimi:
    torch.manual_seed(0)
    network = SpectralNetwork(SMALL_DECODER)
    with torch.no_grad():
        network.spectrum.bias.uniform_(-4, 0)
    return SpectralMimi(untrained_mimi(torch.Generator().manual_seed(0), SMALL.mimi), network).eval()


def magnitudes(mimi: SpectralMimi, line: Samples) -> Tensor:
    """Log magnitudes that the decoder makes of a line."""
    found: list[Tensor] = []
    hook = mimi.spectral.spectrum.register_forward_hook(lambda module, given, made: found.append(made))
    with torch.inference_mode():
        mimi.decode(encoded(mimi, line))
    hook.remove()
    return found[0][0, :, : mimi.spectral.shape.bins]


def whole_frames(line: Samples) -> Samples:
    return line[: len(line) // 1920 * 1920]


def test_peaks_rise_valleys_fall_and_speech_is_as_loud_as_the_teachers(mimi: SpectralMimi) -> None:
    rng = np.random.default_rng(0)
    lines = [whole_frames(noise(rng)) for _ in range(4)]
    before = magnitudes(mimi, lines[0])
    differences = sharpen(mimi, lines, share=0.5)
    after = magnitudes(mimi, lines[0])
    assert differences[-1] < 0.2 * differences[0], "its power comes near the teacher's"
    near = surroundings(SMALL_DECODER.window)
    torch.testing.assert_close(near.sum(dim=1), torch.ones(SMALL_DECODER.bins))
    sharper = before + 0.5 * (before - before @ near.T)
    moved = after - sharper
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), atol=1e-3, rtol=0)  # The same in all moments.
    flat = torch.full((1, SMALL_DECODER.bins), -2.0)
    torch.testing.assert_close(flat @ near.T, flat)


def test_the_mean_decoder_of_a_folder_is_sharpened_once(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(click.ClickException, match=message):
            sharpen_codec(tmp_path, print, SMALL.mimi)

    refused("run the stage `codec` first")
    torch.manual_seed(0)
    network = SpectralNetwork(SMALL_DECODER)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.save(
        {"decoder": weights, "mean": dict(weights), "shape": vars(SMALL_DECODER), "steps": 7}, tmp_path / "codec.pt"
    )
    (tmp_path / "mimi.safetensors").touch()
    refused("holds no line of nano's voices")
    untrained_codec(tmp_path)
    rng = np.random.default_rng(0)
    spoken = Spoken(noise(rng), (0.0,), ())
    lines = [Said("a/agent", "espeak-a", "Hum.", spoken), Said("b/agent", "NATF2", "Hum.", spoken)]
    write_shard(tmp_path / "speech" / "kokoro-00000", {}, lines)
    told: list[str] = []
    sharpen_codec(tmp_path, told.append, SMALL.mimi)
    assert told[0].startswith("1 lines"), "others' voices do not count"
    state = torch.load(tmp_path / "codec.pt", weights_only=True)
    changed = {name for name in weights if not torch.equal(state["mean"][name], weights[name])}
    assert changed == {"spectrum.weight", "spectrum.bias"}
    assert all(torch.equal(state["decoder"][name], weights[name]) for name in weights), "training goes on from its own"
    exported = trained_decoder(tmp_path, CPU)
    torch.testing.assert_close(exported.spectrum.bias, state["mean"]["spectrum.bias"])
    refused("is sharp already")
    packed = tmp_path / "packed"
    packed.mkdir()
    pack_decoder(tmp_path / "codec.pt", packed)
    (packed / DECODER).replace(tmp_path / "codec.pt")
    refused("is sharp already")


def untrained_codec(folder: Path) -> None:
    """The codec of a folder, with an encoder that nobody has trained."""
    from safetensors.torch import save_file

    mimi = untrained_mimi(torch.Generator().manual_seed(0), SMALL.mimi)
    save_file(dict(mimi.state_dict()), folder / "mimi.safetensors")
