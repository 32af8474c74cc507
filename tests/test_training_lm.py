"""How nano's language model grows, hears, goes on and travels, at tiny sizes, on conversations made up of numbers."""

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import click
import pytest
import torch
from safetensors.torch import load_file, save_file

from core.boot.checkpoint_source import NANO
from core.engine.architecture import AGENT_CODEBOOKS, FIXED, STREAMS, Architecture
from core.engine.checkpoint import Checkpoint
from core.engine.kv_cache import BlockCache
from core.engine.lm import LanguageModel
from core.engine.stored_weights import in_few_bits, read_weights
from core.engine.weights import load_language_model
from tests.engines import CPU
from training.bank import Bank
from training.bank_folder import BankFolder
from training.export import in_4_bits, mean_of
from training.growing import grown, places_of
from training.lm import MISHEARD, PADDING, LmOptions, LmTraining, misheard, read_positions
from training.network import Logits, Network
from training.packing import pack, unpack
from training.schedule import Schedule
from training.shape import ARCHITECTURE
from training.shape import NANO as NANO_SHAPE
from training.stages import train_lm

pytestmark = pytest.mark.training

SMALL = Architecture(
    dim=32,
    num_heads=2,
    num_layers=2,
    context=100,
    text_vocab_size=40,
    audio_vocab_size=20,
    depformer_dim=16,
    depformer_num_heads=2,
    depformer_num_layers=1,
    depformer_dim_feedforward=60,
)
WIDE = replace(SMALL, dim=48, num_heads=3)
LARGE = replace(WIDE, num_layers=5, hidden_scale=6.0, context=200, depformer_num_layers=2, depformer_dim_feedforward=96)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder with the language model of a small checkpoint; its codec and tokenizer are not read."""
    torch.manual_seed(1)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    write_checkpoint(folder, Network(SMALL))
    return folder


def write_checkpoint(folder: Path, network: Network) -> None:
    save_file(network.checkpoint(), folder / "model.safetensors")
    config = dict(FIXED) | network.architecture.to_config() | {"moshi_name": "model.safetensors"}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer-e351c8d8-checkpoint125.safetensors", "tokenizer_spm_32k_3.model"):
        (folder / name).touch()


def conversations(count: int, positions: int = 40, begin: int = 5) -> Bank:
    """Callers who say piece 10 + n, and the answer 20 + n two positions later, whenever their first code is n < 8."""
    tokens = torch.randint(8, 20, (count, positions, STREAMS), dtype=torch.int16)
    text, user = tokens[:, :, 0], tokens[:, :, 1 + AGENT_CODEBOOKS]
    user[:, begin::5] = torch.randint(8, (count, len(range(begin, positions, 5))), dtype=torch.int16)
    said = torch.where(user < 8, 10 + user, PADDING).roll(1, dims=1)
    said[:, : begin + 1] = PADDING
    text[:] = torch.where(said == PADDING, PADDING, 10 + said).roll(2, dims=1)
    begins, nowhere = torch.full((count,), begin), torch.zeros(count, positions, dtype=torch.bool)
    return Bank(tokens, begins, nowhere, torch.ones(count, dtype=torch.bool), said, nowhere)


def logits(network: Network, vocabulary: int = 20) -> Logits:
    """What it makes of some random tokens."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocabulary, (2, 30, STREAMS), generator=generator)
    with torch.inference_mode():
        made: Logits = network.eval()(tokens, tokens[:, :, : 1 + AGENT_CODEBOOKS])
    return made


def test_a_grown_network_computes_what_the_small_one_did(checkpoint: Path) -> None:
    small = Network(SMALL)
    small.load_checkpoint(load_file(checkpoint / "model.safetensors"))
    for size in (SMALL, WIDE, LARGE):
        large = grown(checkpoint, size)
        for before, after in zip(logits(small)[:2], logits(large)[:2], strict=True):
            torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-5)
    assert len(large.layers) == 5
    assert sum(bool(layer.out_proj.any()) for layer in large.layers) == 2  # type: ignore[operator]


def test_no_layer_is_new_among_those_that_hear() -> None:
    assert places_of(12, 16, 9) == [*range(10), 12, 15]
    assert places_of(12, 12, 9) == list(range(12))
    assert places_of(2, 5, 9) == [0, 1]
    assert places_of(2, 5, 0) == [0, 4]


def test_nano_grows_to_the_shape_that_is_trained() -> None:
    now = Checkpoint.read(NANO)
    small = Network(now.architecture)
    small.load_checkpoint(read_weights(now.weights))
    for before, after in zip(logits(small, 400)[:2], logits(grown(NANO, ARCHITECTURE), 400)[:2], strict=True):
        torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-3)
    stored = in_few_bits(Network(ARCHITECTURE).checkpoint(), in_4_bits)
    assert sum(tensor.nbytes for tensor in stored.values()) < 35e6, "with its codec, it is to weigh 48 MB at most"
    assert Architecture.from_config(ARCHITECTURE.to_config(), "") == NANO_SHAPE.architecture


def test_what_cannot_grow_is_refused(checkpoint: Path) -> None:
    with pytest.raises(click.ClickException, match="has depformer_dim 16, which cannot become 32"):
        grown(checkpoint, replace(LARGE, depformer_dim=32))
    with pytest.raises(click.ClickException, match="has heads of 16 channels, not of 32"):
        grown(checkpoint, replace(LARGE, dim=64, num_heads=2))
    with pytest.raises(click.ClickException, match="has num_layers 2, which cannot become 1"):
        grown(checkpoint, replace(SMALL, num_layers=1))


def test_all_of_a_grown_network_learns_and_it_goes_on(checkpoint: Path, tmp_path: Path) -> None:
    """Nothing stays what it was, though half of what is new is zero and waits for the other half."""
    conversations(8).save(tmp_path / "banks" / "40-0000.pt")
    options = LmOptions(batch=1, architecture=LARGE, begin=checkpoint)
    reports: list[str] = []
    for _ in range(2):
        train_lm(tmp_path, CPU, Schedule(0.5, warm_up=1), reports.append, options)
    assert sum("begins with the weights" in line for line in reports) == 1
    assert re_steps(reports)[1] > 1
    before, after = grown(checkpoint, LARGE), torch.load(tmp_path / "lm.pt", weights_only=True)
    for name, parameter in before.named_parameters():
        assert not torch.equal(parameter, after["network"][name]), name
    with pytest.raises(click.ClickException, match="another shape"):
        train_lm(tmp_path, CPU, Schedule(0.5), reports.append, replace(options, architecture=SMALL))


def test_a_larger_model_goes_on_from_what_a_smaller_one_has_learned(tmp_path: Path) -> None:
    """Hearing, too, which no checkpoint contains."""
    small = LmTraining(LmOptions(batch=1, architecture=SMALL, begin=None), CPU)
    small.step_count = 7
    small.save(tmp_path / "lm.pt")
    large = LmTraining(LmOptions(batch=1, architecture=WIDE, begin=None), CPU)
    large.resume(tmp_path / "lm.pt")
    assert large.step_count == 7
    for before, after in zip(logits(small.network), logits(large.network), strict=True):
        torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-5)


def test_a_mean_may_take_in_what_a_smaller_model_had_learned(tmp_path: Path) -> None:
    """It has grown the same way each time, so that what it became in training is still near."""
    small, large = (LmTraining(LmOptions(batch=1, architecture=size, begin=None), CPU) for size in (SMALL, WIDE))
    small.save(tmp_path / "small.pt")
    large.resume(tmp_path / "small.pt")
    torch.rand(1)
    large.network.text_linear.data += 1
    large.save(tmp_path / "large.pt")
    mean = mean_of([tmp_path / "large.pt", tmp_path / "small.pt"], "network", WIDE)
    for name, parameter in large.network.state_dict().items():
        torch.testing.assert_close(mean[name], parameter - 0.5 * (name == "text_linear"))


@pytest.mark.parametrize("size", [replace(SMALL, dim=16, num_heads=1), replace(WIDE, dim=8, num_heads=1)])
def test_what_has_another_shape_is_refused(tmp_path: Path, size: Architecture) -> None:
    LmTraining(LmOptions(batch=1, architecture=size, begin=None), CPU).save(tmp_path / "lm.pt")
    large = LmTraining(LmOptions(batch=1, architecture=replace(SMALL, num_heads=1), begin=None), CPU)
    with pytest.raises(click.ClickException, match=r"lm\.pt has"):
        large.resume(tmp_path / "lm.pt")


def re_steps(reports: list[str]) -> list[int]:
    """The step of each run's first report."""
    return [int(line.split("step ")[1].split()[0]) for line in reports if "step " in line]


def test_it_learns_to_hear() -> None:
    torch.manual_seed(2)
    training = LmTraining(LmOptions(batch=1, architecture=SMALL, dropout=0.0, begin=None), CPU)
    bank = conversations(200)
    first, *_, last = (training.step(bank, 4e-3) for _ in range(150))
    assert float(first.heard) > 3
    assert float(last.heard) < 1
    assert not any("heard" in name for name in training.network.checkpoint())


def test_some_codes_of_half_of_the_callers_are_misheard() -> None:
    torch.manual_seed(0)
    codes = torch.arange(40)[:, None, None] + 1000 * torch.arange(AGENT_CODEBOOKS)
    codes = codes.expand(40, 100, AGENT_CODEBOOKS)
    talking = torch.arange(100).expand(40, -1) >= 30
    heard = misheard(codes, talking)
    wrong = (heard != codes).float()
    assert (wrong[:, :30] == 0).all(), "a prompt is read as it is"
    rows = wrong[:, 30:].mean(dim=(1, 2))
    assert 10 < (rows == 0).sum() < 30
    assert rows[rows > 0].mean() == pytest.approx(MISHEARD, rel=0.15)
    assert torch.equal(heard // 1000, codes // 1000), "by codes of the same codebook"


def test_a_weight_of_nothing_teaches_no_hearing() -> None:
    torch.manual_seed(2)
    training = LmTraining(LmOptions(batch=1, architecture=SMALL, heard=0.0, begin=None), CPU)
    before = training.network.heard_linear.detach().clone()
    training.step(conversations(8), 0.0)
    assert torch.equal(before, training.network.heard_linear)
    gradient = training.network.heard_linear.grad
    assert gradient is not None
    assert not gradient.any()


def test_conversations_are_learned_at_all_distances_from_their_prompts() -> None:
    begins = torch.tensor([5, 7] * 500)
    positions = read_positions(begins, 30, 100)
    assert (positions.diff(dim=1) >= 1).all()
    gaps = positions[:, -1] - 29
    for begin, row, gap in zip(begins.tolist(), positions.tolist(), gaps.tolist(), strict=True):
        assert row == [*range(begin), *range(begin + gap, 30 + gap)]
    assert gaps.max() == 70
    assert 0.5 < (gaps == 0).float().mean() < 0.7
    assert torch.equal(read_positions(begins, 100, 100)[0], torch.arange(100))


def test_a_pinned_prompt_is_as_far_in_training_as_in_a_call(tmp_path: Path) -> None:
    """What a distant prompt gives in training is what the engine makes of a prompt that is pinned in a full window."""
    torch.manual_seed(3)
    network, prompt, window = Network(SMALL).eval(), 12, SMALL.context
    write_checkpoint(tmp_path, network)
    lm = LanguageModel(SMALL, CPU, torch.float32)
    load_language_model(lm, tmp_path / "model.safetensors")
    tokens = torch.randint(20, (1, 2 * window, STREAMS))
    cache = BlockCache(replace(SMALL, num_layers=1), 1, CPU, torch.float32)
    blocks = torch.tensor([cache.allocate(window)])
    first = lm.transformer.layers[0]
    with torch.inference_mode():
        for position in range(2 * window):
            attention = cache.attention(torch.tensor([position]), blocks, torch.tensor([prompt]))
            served = first(lm.embed(tokens[:, position : position + 1]), 0, attention)
        kept = torch.cat([tokens[:, :prompt], tokens[:, -(window - prompt) :]], dim=1)
        x = lm.embed(kept)[:, :, None]
        learned = network.layers[0](x, network._rotation(torch.arange(window)[None]))
    torch.testing.assert_close(served[0, 0], learned[0, -1, 0], rtol=1e-4, atol=1e-4)


def test_no_bank_is_seen_much_more_often_than_others(tmp_path: Path) -> None:
    random.seed(0)
    for number, count in enumerate((40, 40, 80)):
        conversations(count).save(tmp_path / f"40-000{number}.pt")
    late = tmp_path / "40-0003.pt"
    banks = BankFolder(tmp_path, CPU, rows=lambda _: 4)
    sizes = Counter(len(banks.draw().tokens) for _ in range(400))
    assert sizes[80] == pytest.approx(200, abs=30), "twice as many conversations, twice as many steps"
    conversations(60).save(late)
    (tmp_path / "40-0000.pt").unlink()
    banks._due = 0.0  # What is new is looked for every few seconds.
    sizes = Counter(len(banks.draw().tokens) for _ in range(100))
    assert 60 < sizes[60] < 100, "a new one comes most often, and not alone"
    assert banks.seen().startswith("3 banks, seen ")


def test_a_run_that_breaks_off_has_saved_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.lm.SAVED_S", 0.0)
    training, draws = LmTraining(LmOptions(batch=1, architecture=SMALL, begin=None), CPU), iter([conversations(4)] * 3)
    with pytest.raises(StopIteration):
        training.run(Schedule(60), lambda: next(draws), tmp_path / "lm.pt", list[str]().append)
    again = LmTraining(training.options, CPU)
    again.resume(tmp_path / "lm.pt")
    assert again.step_count == 3


def test_learning_goes_on_when_the_disk_is_full_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, told = LmTraining(LmOptions(batch=1, architecture=SMALL, begin=None), CPU), list[str]()
    training.save(tmp_path / "lm.pt")
    monkeypatch.setattr("training.lm.SAVED_S", 0.0)
    save = training.save

    def full_once(path: Path) -> None:
        if training.step_count == 1:
            raise RuntimeError("unexpected pos 32512 vs 32406")  # What PyTorch says then.
        save(path)

    monkeypatch.setattr(training, "save", full_once)
    draws = iter([conversations(4)] * 3)
    with pytest.raises(StopIteration):
        training.run(Schedule(60), lambda: next(draws), tmp_path / "lm.pt", told.append)
    assert sum("FAILED: saving (unexpected pos" in line for line in told) == 1
    assert torch.load(tmp_path / "lm.pt", weights_only=True)["steps"] == 3


def test_all_pieces_of_nano_can_be_brought_back_at_once(tmp_path: Path) -> None:
    LmTraining(LmOptions(batch=1, begin=None), CPU).save(tmp_path / "lm.pt")
    sizes = [path.stat().st_size for path in pack(tmp_path / "lm.pt", tmp_path / "sent")]
    assert len(sizes) <= 4
    assert max(sizes) <= 15_100_000
    assert sum(sizes) < 50_000_000


def test_what_is_packed_goes_on_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = LmTraining(LmOptions(batch=1, architecture=SMALL, begin=None), CPU)
    for _ in range(30):
        training.step(conversations(4), 1e-3)
    training.save(tmp_path / "lm.pt")
    monkeypatch.setattr("training.packing.PIECE_BYTES", 10_000)
    pieces = pack(tmp_path / "lm.pt", tmp_path / "sent")
    assert len(pieces) > 2
    assert all(path.stat().st_size < 20_000 for path in pieces)
    unpack(tmp_path / "sent", tmp_path / "other.pt")
    state = torch.load(tmp_path / "lm.pt", weights_only=True)
    mean = state["mean"]
    assert not torch.equal(mean["text_linear"], state["network"]["text_linear"])
    again = LmTraining(LmOptions(batch=1, architecture=SMALL, begin=None), CPU)
    again.resume(tmp_path / "other.pt")
    assert again.step_count == 30
    for name, tensor in again.network.state_dict().items():
        step = mean[name].abs().amax(dim=-1, keepdim=True) / 127 if tensor.dim() > 1 else torch.zeros(1)
        assert bool(((tensor - mean[name]).abs() <= 0.51 * step).all()), name
    pieces[0].unlink()
    with pytest.raises(click.ClickException, match=f"{len(pieces) - 1} of {len(pieces)} pieces"):
        unpack(tmp_path / "sent", tmp_path / "other.pt")
    assert len(pack(tmp_path / "lm.pt", tmp_path / "sent")) == len(pieces)
    with pytest.raises(click.ClickException, match="has no"):
        unpack(tmp_path, tmp_path / "other.pt")
