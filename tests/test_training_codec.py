"""The codec's decoder in training: crops of codes and sound, a step, and what is kept of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from moshi.models.compression import MimiModel
from torch import Tensor

from benchmarks.untrained import untrained_mimi
from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE
from core.engine.mimi.spectral import SpectralNetwork, SpectralShape
from tests.engines import CPU
from training.codec import CodecOptions, CodecTraining
from training.coded import LEVEL_DB, CodedSpeech
from training.listener import listen
from training.pool import LABEL_SAMPLES, PHONES
from training.schedule import Schedule
from training.shape import codec_shape
from training.shards import Line, LineRecord

pytestmark = pytest.mark.training
SHAPE = SpectralShape(latent=32, dim=32, heads=2, feedforward=48, context=6, blocks=2, hidden=48)
OPTIONS = CodecOptions(batch=2, frames=12, heard=8, judged=5, shape=SHAPE)


def line(rng: np.random.Generator) -> Line:
    """Two seconds of noise, each half of it under a label of its own."""
    pcm = (3277 * rng.standard_normal(2 * SAMPLE_RATE)).clip(-32767, 32767).astype(np.int16)
    return Line(LineRecord("", "", "", 0, len(pcm), (), ((0.0, "a"), (1.0, "s"))), pcm)


@pytest.fixture(scope="module")
def mimi() -> MimiModel:
    return untrained_mimi(torch.Generator().manual_seed(0), codec_shape(32, 4, 1, codebook_size=64)).eval()


@pytest.fixture(scope="module")
def speech(mimi: MimiModel) -> CodedSpeech:
    rng = np.random.default_rng(0)
    return CodedSpeech(mimi, [line(rng) for _ in range(12)], CPU)


def make_training(mimi: MimiModel, speech: CodedSpeech) -> CodecTraining:
    torch.manual_seed(0)
    return CodecTraining(mimi, speech, OPTIONS, CPU)


def weights_of(module: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_a_crop_is_sound_with_its_labels_and_codes(
    mimi: MimiModel, speech: CodedSpeech, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes are those of the sound, but for what the encoder has heard before it; labels stand where they are said."""
    torch.manual_seed(3)
    monkeypatch.setattr("training.coded.WRONGED", 0.0)
    crops = speech.crops(8, 30)
    assert crops.codes.shape == (8, 30, 8)
    assert crops.sound.shape == (8, 30 * FRAME_SAMPLES)
    loud = crops.sound.abs().reshape(8, -1, LABEL_SAMPLES).mean(2)
    assert set(crops.labels.flatten().tolist()) == {0, *(1 + PHONES.index(phone) for phone in "as")}
    assert (loud[crops.labels == 0] == 0).all()
    levels = loud[crops.labels > 0]
    assert (10 ** (LEVEL_DB[0] / 20) * 0.07 < levels).all()
    assert (levels < 10 ** (LEVEL_DB[1] / 20) * 0.09).all()
    with torch.no_grad():
        again = mimi.encode(crops.sound[:, None]).transpose(1, 2)
    assert (again == crops.codes)[:, 20:].float().mean() > 0.8


def test_some_codes_of_the_last_codebooks_are_wrong(speech: CodedSpeech, monkeypatch: pytest.MonkeyPatch) -> None:
    def codes() -> Tensor:
        torch.manual_seed(5)
        return speech.crops(64, 30).codes

    wrong = codes()
    monkeypatch.setattr("training.coded.WRONGED", 0.0)
    shares = (codes() != wrong).float().mean(dim=(0, 1))
    assert (shares[:3] == 0).all()
    assert (shares[3:] > 0).all()
    assert shares[7] < 0.05


@pytest.mark.parametrize("progress", [0.0, 0.9])
def test_a_step_moves_the_decoder_and_the_listener_learns_as_if_there_were_none(
    mimi: MimiModel, speech: CodedSpeech, monkeypatch: pytest.MonkeyPatch, progress: float
) -> None:
    def step(other: Callable[..., dict[str, Tensor]]) -> tuple[CodecTraining, Tensor]:
        monkeypatch.setattr("training.codec.listen", other)
        training = make_training(mimi, speech)
        before = weights_of(training.decoder)
        losses = training.step(progress)
        assert all(torch.isfinite(loss) for loss in losses.values())
        assert ("judges" in losses) == (progress > 0.5)
        return training, before

    heard, before = step(listen)
    alone, _ = step(lambda listener, real, _, labels: listen(listener, real, real, labels))
    assert torch.equal(weights_of(heard.listener), weights_of(alone.listener))
    assert not torch.equal(weights_of(heard.decoder), weights_of(alone.decoder))
    after = weights_of(heard.decoder)
    assert not torch.equal(after, before)
    torch.testing.assert_close(weights_of(heard.mean), torch.lerp(before, after, 0.001))


def test_it_goes_on_where_it_was(mimi: MimiModel, speech: CodedSpeech, tmp_path: Path) -> None:
    training = make_training(mimi, speech)
    training.step(0.9)
    training.save(tmp_path / "codec.pt")
    again = CodecTraining(mimi, speech, OPTIONS, CPU)
    again.resume(tmp_path / "codec.pt")
    assert again.step_count == 1
    for part in ("decoder", "mean", "judges", "listener"):
        assert torch.equal(weights_of(getattr(again, part)), weights_of(getattr(training, part))), part


def test_a_run_that_breaks_off_has_saved_what_it_had(
    mimi: MimiModel, speech: CodedSpeech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.codec.SAVED_S", 0.0)
    monkeypatch.setattr("training.codec.REPORTED", 2)
    told: list[str] = []

    def report(line: str) -> None:
        told.append(line)
        if len(told) == 2:
            raise KeyboardInterrupt

    training = make_training(mimi, speech)
    with pytest.raises(KeyboardInterrupt):
        training.run(Schedule(600), tmp_path / "codec.pt", report)
    assert torch.load(tmp_path / "codec.pt", weights_only=True)["steps"] == training.step_count - 1 == 2


def test_it_begins_with_a_decoder_of_the_same_shape(mimi: MimiModel, speech: CodedSpeech) -> None:
    network, training = SpectralNetwork(OPTIONS.shape), make_training(mimi, speech)
    training.begin(network)
    assert torch.equal(weights_of(training.decoder), weights_of(network))
    assert torch.equal(weights_of(training.mean), weights_of(network))


def test_it_learns_to_sound_like_what_was_encoded(mimi: MimiModel, speech: CodedSpeech) -> None:
    training = make_training(mimi, speech)
    distances = [float(training.step(0.0)["mel"]) for _ in range(40)]
    assert sum(distances[-10:]) < 0.8 * sum(distances[:10])


def test_what_comes_later_changes_nothing_before() -> None:
    torch.manual_seed(0)
    network = SpectralNetwork(SHAPE)
    latent = torch.randn(1, 8, SHAPE.latent)
    changed = latent.clone()
    changed[:, 5:] = 0
    with torch.inference_mode():
        one, other = network(latent), network(changed)
    assert one.shape == (1, 8 * FRAME_SAMPLES)
    begin = 5 * FRAME_SAMPLES
    torch.testing.assert_close(one[:, :begin], other[:, :begin])
    assert not torch.equal(one[:, begin : begin + SHAPE.hop], other[:, begin : begin + SHAPE.hop])


def test_tones_of_a_codec_are_counted() -> None:
    pytest.importorskip("distillmos", reason="the training group is not installed: uv sync --group training")
    from training.codec_quality import tones_of

    noise = 0.02 * np.random.default_rng(0).standard_normal(3 * SAMPLE_RATE)
    time = np.arange(len(noise)) / SAMPLE_RATE
    tones = sum(0.01 * np.sin(2 * np.pi * tone * time) for tone in (400, 2600, 8000, 8100))
    assert tones_of(noise.astype(np.float32)) == 0
    assert tones_of((noise + tones).astype(np.float32)) == 3
