"""The codec's encoder in training: what callers say comes into its codes, and what agents say keeps those it has."""

import json
import random
from pathlib import Path

import click
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from moshi.models.compression import MimiModel
from safetensors.torch import save_file

from benchmarks.untrained import untrained_mimi
from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE
from core.engine.mimi.weights import codebooks
from core.engine.weights import load_mimi
from core.evaluation.speech import Samples
from tests.engines import CPU
from training.encoder import EncoderOptions, EncoderTraining, SpokenLines, ctc, labels_of, projected, quantized
from training.pool import PHONES
from training.schedule import Schedule
from training.shape import codec_shape
from training.shards import Line, LineRecord, Said, write_shard
from training.stages import grown_mimi, train_encoder
from training.teachers import Spoken

pytestmark = pytest.mark.training
GROUP = "the training group is not installed: uv sync --group training"
SHAPE = codec_shape(32, 4, 1, codebook_size=64)
TONES = {"oh": 300.0, "see": 3000.0}
"""What two words sound like here."""


def tone(text: str, seconds: float = 0.4) -> Samples:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.3 * np.sin(2 * np.pi * TONES[text] * time)).astype(np.float32)


def line(text: str, seconds: float = 0.4) -> Line:
    pcm = (32767 * tone(text, seconds)).astype(np.int16)
    return Line(LineRecord("", "", text, 0, len(pcm), (0.0,), ()), pcm)


def babble(seconds: float) -> Line:
    """An agent's line: noise in syllables."""
    rng = np.random.default_rng(0)
    pcm = 3000 * rng.standard_normal(round(seconds * SAMPLE_RATE))
    pcm *= np.arange(len(pcm)) // 4800 % 2 == 0
    return Line(LineRecord("", "", "", 0, len(pcm), (), ()), pcm.clip(-32767, 32767).astype(np.int16))


def fresh_mimi() -> MimiModel:
    return untrained_mimi(torch.Generator().manual_seed(0), SHAPE).eval()


def write_mimi(folder: Path, mimi: MimiModel) -> None:
    (folder / "mimi.json").write_text(json.dumps(SHAPE))
    save_file({name: tensor.contiguous() for name, tensor in mimi.state_dict().items()}, folder / "mimi.safetensors")


@pytest.fixture(scope="module")
def speech() -> SpokenLines:
    pytest.importorskip("espeakng_loader", reason=GROUP)
    return SpokenLines({"espeak": [line(text) for text in TONES for _ in range(40)]}, [babble(20.0)], CPU, workers=1)


def test_a_text_is_read_as_the_phonemes_that_espeak_says() -> None:
    pytest.importorskip("espeakng_loader", reason=GROUP)
    assert [PHONES[label - 1] for label in labels_of("See, a bee.")] == list("siɐbi")


def test_features_are_quantized_to_the_codes_of_the_codec() -> None:
    mimi, sound = fresh_mimi(), 0.1 * torch.randn(2, 6 * FRAME_SAMPLES)
    with torch.no_grad():
        codes, vectors = quantized(projected(mimi, sound), codebooks(mimi.quantizer))
        assert torch.equal(codes, mimi.encode(sound[:, None]).transpose(1, 2))
    first = codebooks(mimi.quantizer).vectors[0]
    torch.testing.assert_close(vectors[..., : first.shape[1]], first[codes[..., 0]])


def test_lines_of_about_one_length_come_with_silence_before_them() -> None:
    pytest.importorskip("espeakng_loader", reason=GROUP)
    lengths = np.linspace(0.3, 7.0, 60)
    callers = {teacher: [line("oh", seconds) for seconds in lengths] for teacher in ("espeak", "flite")}
    spoken = SpokenLines(callers, [babble(9.0)], CPU, workers=1)
    rng, longest = random.Random(0), []
    for _ in range(40):
        sound, phones = spoken.callers(rng, 5)
        assert len(sound) == 5
        assert phones == [labels_of("oh")] * 5
        assert sound.shape[1] % FRAME_SAMPLES == 0
        assert not sound[:, : 3 * FRAME_SAMPLES].any(), "the encoder has heard silence by then"
        said = (sound != 0).sum(dim=1) / SAMPLE_RATE
        assert float(said.max() - said.min()) < 1.6, "of 60 lines of up to 7 s a quarter may stand beside each other"
        longest.append(float(said.max()))
    assert min(longest) < 2 < 6.5 < max(longest), "short and long ones come"
    own = spoken.agents(3, 8)
    assert own.shape == (3, 8 * FRAME_SAMPLES)
    sine = torch.fft.rfft(own[-1]).abs().argmax() * SAMPLE_RATE / own.shape[1]
    assert float(sine) == pytest.approx(440, abs=2)


def test_the_loss_of_a_line_is_divided_by_its_phonemes() -> None:
    even = torch.zeros(2, 40, 1 + len(PHONES)).log_softmax(dim=-1)
    phones = [[1, 2], [1, 2, 3, 4, 5, 6]]
    lengths = torch.tensor([2, 6])
    whole = F.ctc_loss(
        even.transpose(0, 1), torch.tensor([1, 2, *range(1, 7)]), torch.tensor([40, 40]), lengths, reduction="none"
    )
    torch.testing.assert_close(ctc(even, phones), whole / lengths)
    sure = torch.full((1, 3, 1 + len(PHONES)), -50.0)
    sure[0, [0, 1, 2], [1, 0, 2]] = 0.0
    assert float(ctc(sure.log_softmax(dim=-1), [[1, 2]])[0]) == pytest.approx(0, abs=1e-3)


def test_callers_words_come_into_the_codes_and_agents_codes_stay(speech: SpokenLines) -> None:
    torch.manual_seed(0)
    training = EncoderTraining(fresh_mimi(), speech, EncoderOptions(callers=12, agents=4))
    shown = [training.step(1.0) for _ in range(110)]
    lost = [float(one["phonemes"]) for one in shown]
    assert np.mean(lost[-10:]) < 0.3 * np.mean(lost[10:20])
    sound = torch.from_numpy(np.stack([np.pad(tone(text), (FRAME_SAMPLES, 0)) for text in TONES]))
    words = sound[:, : sound.shape[1] // FRAME_SAMPLES * FRAME_SAMPLES]
    with torch.no_grad():
        before, after = projected(fresh_mimi(), words), projected(training.mimi, words)
        codes, _ = quantized(projected(training.mean, words), codebooks(training.mean.quantizer))
    moved = float((after - before).square().sum(dim=-1).mean())
    kept = float(np.mean([float(one["kept"]) for one in shown[-10:]]))
    assert moved > 4 * kept, "callers' features go where their words are told apart, and agents' stay"
    stays = [float(one["first code stays"]) for one in shown[-30:]]  # From one step to the next it goes up and down.
    assert np.mean(stays) > 0.7
    assert (codes[0, 2:] != codes[1, 2:]).any(dim=-1).all(), "the mean of the weights is what is left, and it hears"


def test_an_encoder_of_fewer_layers_is_grown_and_says_the_same(tmp_path: Path) -> None:
    mimi = fresh_mimi()
    write_mimi(tmp_path, mimi)
    grown = grown_mimi(tmp_path, CPU, codec_shape(32, 4, 3, codebook_size=64))
    sound = torch.from_numpy(babble(2.0).pcm)[None, : 20 * FRAME_SAMPLES]
    with torch.no_grad():
        before, after = projected(mimi, sound), projected(grown, sound)
    assert float((before - after).norm() / before.norm()) < 0.05
    same = grown_mimi(tmp_path, CPU, SHAPE)
    with torch.no_grad():
        assert torch.equal(projected(same, sound), before)
    for strange in (codec_shape(32, 8, 1, codebook_size=64), codec_shape(64, 4, 3, codebook_size=64)):
        with pytest.raises(click.ClickException, match="is not a smaller one of the shape that is trained"):
            grown_mimi(tmp_path, CPU, strange)


def test_the_stage_leaves_a_codec_that_later_stages_open(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason=GROUP)
    mimi = fresh_mimi()
    save_file(mimi.state_dict(), tmp_path / "mimi.safetensors")
    arguments = (tmp_path, CPU, Schedule(0.5), print, 1, EncoderOptions(callers=4, agents=2), SHAPE)
    with pytest.raises(click.ClickException, match="holds no callers: run the stage `speech` first"):
        train_encoder(*arguments)
    said = [Said("callers-espeak-0.0/caller", "x", text, Spoken(tone(text), (0.0,), ()), text) for text in TONES]
    write_shard(tmp_path / "speech" / "callers-espeak-00000", {}, said)
    agents = [Said("kokoro-0.0/agent", "NATF2", "Well.", Spoken(babble(12.0).pcm, (0.0,), ()))]
    write_shard(tmp_path / "speech" / "kokoro-00000", {}, agents)
    train_encoder(*arguments)
    described = json.loads((tmp_path / "mimi.json").read_text())
    learned = load_mimi(tmp_path / "mimi.safetensors", described, CPU)
    assert torch.equal(codebooks(learned.quantizer).vectors, codebooks(mimi.quantizer).vectors)
    assert torch.equal(codebooks(learned.quantizer).decoded, codebooks(mimi.quantizer).decoded)
    assert not torch.equal(codebooks(learned.quantizer).project, codebooks(mimi.quantizer).project)
    with pytest.raises(click.ClickException, match="holds a codec that has learned"):
        train_encoder(*arguments)
