"""Mixed banks: conversations out of lines that have codes, made without a codec."""

import fcntl
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.untrained import untrained_mimi
from core.engine.architecture import AGENT_CODEBOOKS, DELAYS, STREAMS
from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE
from core.engine.prompt import GAP_FRAMES, SpecialCodes
from tests.engines import CPU
from training.acoustics import WORLDS
from training.ambience import make_ambience, read_ambience, stretch
from training.bank import Bank, BankSizes
from training.bank_folder import BankFolder
from training.callers import Callers, Utterance, by_world
from training.dialogues import HEARD_AFTER, PADDING, VOICE_FRAMES, Dialogue
from training.encoded import CallerLine, Lines, encode_batch, frames_of, place, split, world_of
from training.mixing import delete_oldest, mix_conversations, read_special
from training.shape import SMALL
from training.shards import Line, LineRecord, codes_of, read_index, read_shard, shard_paths
from training.speech import make_shard
from training.stages import encode_all_lines, tokenizer_file, trained_mimi
from training.teachers import MARGIN
from training.tokenizer import read_tokenizer
from training.voices import ESPEAK

pytestmark = pytest.mark.training
GROUP = "the training group is not installed: uv sync --group training"
pytest.importorskip("espeakng_loader", reason=GROUP)

POSITIONS, CONVERSATIONS = 448, 24
Frame = tuple[int, ...]


@dataclass(frozen=True)
class Folder:
    """A training folder whose lines have codes, and what was told of it."""

    path: Path
    told: list[str]

    def mix(self, numbers: range) -> None:
        """Mix some banks."""
        tokenizer = tokenizer_file(self.path, SMALL)
        mix_conversations(self.path, tokenizer, numbers, BankSizes(CONVERSATIONS, POSITIONS), self.told.append, SMALL)

    def bank(self, number: int) -> Bank:
        return Bank.load(self.path / "banks" / f"mixed-{POSITIONS}-{number:04d}.pt", CPU)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A codec that nobody has trained gives codes, and is gone when these are mixed."""
    folder = Folder(tmp_path_factory.mktemp("mixing"), [])
    path = folder.path
    make_shard(ESPEAK, path / "speech", 0, count=3)
    make_shard("callers-espeak", path / "speech", 0, count=480)
    with pytest.raises(click.ClickException, match="run the stage `encode --lines` first"):
        folder.mix(range(1))
    save_file(untrained_mimi(torch.Generator().manual_seed(0), SMALL.mimi).state_dict(), path / "mimi.safetensors")
    encode_all_lines(path, CPU, folder.told.append, SMALL)
    (path / "mimi.safetensors").rename(path / "gone")
    folder.mix(range(2))
    (path / "gone").rename(path / "mimi.safetensors")
    return folder


def steps_of(tokens: torch.Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    """A conversation by step: step t gives the token of stream k at position t + DELAYS[k]."""
    row = tokens.numpy()
    return np.stack([row[delay : POSITIONS - 1 + delay, k] for k, delay in enumerate(DELAYS)], axis=1)


def test_every_line_has_codes(folder: Folder) -> None:
    callers, agents = shard_paths(folder.path / "speech")
    for shard in (callers, agents):
        lines, codes = read_shard(shard), np.load(codes_of(shard))
        assert codes.shape == (1 if shard == callers else 4, sum(map(frames_of, lines)), AGENT_CODEBOOKS)
    lines, generator = read_shard(callers)[:8], torch.Generator()
    frames, mimi = max(map(frames_of, lines)), trained_mimi(folder.path, CPU, SMALL.mimi)
    studio, telephone = (encode_batch(mimi, lines, frames, generator.manual_seed(0), world) for world in (0, 1))
    differ = [not np.array_equal(one, other) for one, other in zip(studio, telephone, strict=True)]
    assert np.mean(differ) > 0.9, "a telephone is heard otherwise than a studio"
    before = codes_of(callers).stat().st_mtime_ns
    again: list[str] = []
    encode_all_lines(folder.path, CPU, again.append, SMALL)
    assert (again, codes_of(callers).stat().st_mtime_ns) == ([], before), "what has codes is left alone"


def test_a_mixed_bank_has_the_layout_of_a_bank(folder: Folder) -> None:
    bank, special = folder.bank(0), read_special(folder.path)
    tokenizer = read_tokenizer(folder.path / "tokenizer.model")
    callers, agents = shard_paths(folder.path / "speech")
    prompts = {" ".join(one.prompt.split()) for one in read_index(agents).episodes.values()}
    said: set[Frame] = {tuple(code) for code in np.load(codes_of(agents)).reshape(-1, 8).tolist()}
    lines: dict[Frame, list[list[Frame]]] = {}
    spoken_lines = read_shard(callers)
    for line, coded in zip(spoken_lines, split(spoken_lines, np.load(codes_of(callers))), strict=True):
        frames = -(-(place(line) + len(line.recorded)) // FRAME_SAMPLES)
        for world in coded[:, :frames].tolist():
            lines.setdefault(tuple(world[0]), []).append([tuple(code) for code in world])
    assert bank.tokens.shape == (CONVERSATIONS, POSITIONS, STREAMS)
    ambient: set[Frame] = {tuple(code) for code in read_ambience(folder.path).reshape(-1, AGENT_CODEBOOKS).tolist()}
    found = 0
    for row in range(CONVERSATIONS):
        begin, steps = int(bank.begins[row]), steps_of(bank.tokens[row])
        told = tokenizer.decode(steps[VOICE_FRAMES + GAP_FRAMES : begin - GAP_FRAMES, 0].tolist())
        assert (told.removeprefix("<system>").removesuffix("<system>").strip() in prompts) == bank.sounds[row]
        speaking = bank.speaking[row, begin:-1].tolist()
        agent = [tuple(code) for code in steps[begin:, 1:9].tolist()]
        assert all(
            code in said if talks else code == special.silence for code, talks in zip(agent, speaking, strict=True)
        )
        found += spoken([tuple(code) for code in steps[begin:, 9:].tolist()], lines, ambient | {special.silence})
        heard = np.flatnonzero(bank.heard[row] != PADDING)
        assert (heard >= begin + HEARD_AFTER).all()
    assert found > 2 * CONVERSATIONS, "callers speak"
    assert (bank.heard != PADDING).sum() > 10 * CONVERSATIONS, "what callers say is written down"


def spoken(user: list[Frame], lines: dict[Frame, list[list[Frame]]], between: set[Frame]) -> int:
    """How many lines a caller says at least, where all are whole (but at the end), with what may be between them."""
    fewest = {0: 0}
    for at, frame in enumerate(user):
        if at not in fewest:
            continue
        ways = [(1, 0)] if frame in between else []
        for line in lines.get(frame, ()):
            rest = user[at : at + len(line)]
            if rest == line[: len(rest)]:
                ways.append((len(rest), 1))
        for length, more in ways:
            count = fewest[at] + more
            fewest[at + length] = min(count, fewest.get(at + length, count))
    assert len(user) in fewest
    return fewest[len(user)]


def test_a_line_in_codes_is_written_down_after_its_words(folder: Folder) -> None:
    callers, _ = shard_paths(folder.path / "speech")
    lines = Lines()
    lines.add_callers(read_shard(callers)[3:4], np.load(codes_of(callers))[:, :200])
    (wish,) = lines.callers
    (line,) = lines.callers[wish]
    rng = random.Random(0)
    said = Callers(lines.callers).say(rng, [wish], line.voice)
    assert said is not None
    assert said.codes is not None
    special = SpecialCodes(silence=tuple(range(8)))
    dialogue = Dialogue.silent(np.zeros((5, 17), dtype=np.int64), 200, special, sounds=True)
    end = dialogue.say(said, 10 * FRAME_SAMPLES + 1000, lambda _: [7])
    assert end == 10 * FRAME_SAMPLES + line.place + len(line.pcm)
    last = -(-end // FRAME_SAMPLES)
    assert np.array_equal(dialogue.user[10:last], said.codes[: last - 10])
    assert (dialogue.user[:10] == range(8)).all()
    assert (dialogue.user[last:] == range(8)).all()
    written = np.flatnonzero(dialogue.heard == 7)
    assert len(written) == len(line.text.split())
    assert written[-1] >= (end - MARGIN * SAMPLE_RATE) // FRAME_SAMPLES + HEARD_AFTER
    assert Callers(lines.callers).garble(rng, said) is None, "what has codes is not spoilt any more"
    assert Callers(lines.callers).garble(rng, Utterance(said.sound, said.words, said.ends)) is not None


def test_between_lines_one_hears_the_callers_world(folder: Folder) -> None:
    ambience = read_ambience(folder.path)
    assert ambience.shape[::3] == (len(WORLDS), AGENT_CODEBOOKS)
    whole = stretch(ambience, random.Random(0), 2, ambience.shape[2])
    assert any(np.array_equal(whole, row) for row in ambience[2])
    longer = stretch(ambience, random.Random(0), 1, 2 * ambience.shape[2])
    assert np.array_equal(longer[: len(longer) // 2], longer[len(longer) // 2 :])
    heard = {tuple(frame) for frame in ambience.reshape(-1, AGENT_CODEBOOKS).tolist()}
    bank, special = folder.bank(0), read_special(folder.path)
    loud = 0
    for row in range(CONVERSATIONS):
        steps = steps_of(bank.tokens[row])[int(bank.begins[row]) :, 9:].tolist()
        loud += sum(tuple(frame) in heard for frame in steps if tuple(frame) != special.silence) > 20
    assert 0.2 * CONVERSATIONS < loud < CONVERSATIONS, "some are silent"
    before = (folder.path / "ambience.npy").stat().st_mtime_ns
    make_ambience(folder.path, trained_mimi(folder.path, CPU, SMALL.mimi), CPU, 1, 8)
    assert (folder.path / "ambience.npy").stat().st_mtime_ns == before, "it is made once"


def test_ambience_is_made_by_one_process_while_others_go_on(folder: Folder, tmp_path: Path) -> None:
    mimi = trained_mimi(folder.path, CPU, SMALL.mimi)
    with (tmp_path / "ambience.npy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        make_ambience(tmp_path, mimi, CPU, 1, 8)
        assert not (tmp_path / "ambience.npy").exists()
    make_ambience(tmp_path, mimi, CPU, 1, 8)
    assert read_ambience(tmp_path).shape == (len(WORLDS), 1, 8, AGENT_CODEBOOKS)


def test_a_caller_stays_in_one_world() -> None:
    sound = np.zeros(4000, dtype=np.int16)

    def line(wish: str, world: int | None) -> CallerLine:
        return CallerLine(sound, wish, (0.0,), "ann", np.zeros((3, 8), dtype=np.int16), world)

    worlds = by_world({"one": [line("one", 0), line("one", 2)], "two": [line("two", 2)]})
    assert sorted(map(len, worlds)) == [1, 2]
    assert [(callers.has("one"), callers.has("two")) for callers in worlds] == [(True, False), (True, True)]
    assert len(by_world({"one": [line("one", None)]})) == 1
    assert len(by_world({})[0]) == 0


def test_shards_are_heard_in_all_worlds_by_their_shares() -> None:
    heard = Counter(
        world_of([Line(LineRecord(f"callers-{shard}/caller", "", "", 0, 0, (), ()), np.zeros(0, dtype=np.int16))])
        for shard in range(400)
    )
    for world, share in enumerate(WORLDS.values()):
        assert heard[world] == pytest.approx(400 * share, abs=30)


def test_each_bank_is_its_own_and_the_same_for_the_same_number(folder: Folder) -> None:
    one, other = folder.bank(0), folder.bank(1)
    assert not torch.equal(one.tokens, other.tokens)
    (folder.path / "banks" / f"mixed-{POSITIONS}-0000.pt").unlink()
    before = len(folder.told)
    folder.mix(range(2))
    assert len(folder.told) == before + 1, "one that is there is not made again"
    again = folder.bank(0)
    assert all(
        torch.equal(first, second) for first, second in zip(vars(one).values(), vars(again).values(), strict=True)
    )


def test_the_newest_are_kept_and_the_others_left_alone(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"mixed-512-000{number}.pt").touch()
        (tmp_path / f"512-000{number}.pt").touch()
    delete_oldest(tmp_path, kept=2)
    assert sorted(path.name for path in tmp_path.glob("mixed-*")) == ["mixed-512-0003.pt", "mixed-512-0004.pt"]
    assert len(list(tmp_path.glob("512-*"))) == 5


def test_half_of_the_steps_are_on_mixed_banks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random.seed(0)

    def bank(count: int) -> Bank:
        nowhere = torch.zeros(count, 10, dtype=torch.bool)
        tokens = torch.zeros(count, 10, STREAMS, dtype=torch.int16)
        begins, text = torch.zeros(count, dtype=torch.int64), tokens[:, :, 0]
        return Bank(tokens, begins, nowhere, torch.ones(count, dtype=torch.bool), text, nowhere)

    bank(5).save(tmp_path / "10-0000.pt")
    banks = BankFolder(tmp_path, CPU, rows=lambda _: 2)
    assert len(banks.draw().tokens) == 5, "where there is one kind it is drawn alone"
    for number in range(20):
        bank(40).save(tmp_path / f"mixed-10-{number:04d}.pt")
    banks._due = 0.0  # What is new is looked for every few seconds.
    sizes = Counter(len(banks.draw().tokens) for _ in range(400))
    assert sizes[40] == pytest.approx(200, abs=40)
    assert "; 8 mixed banks, seen " in banks.seen(), "not all are read at once"
    load = Bank.load

    def deleted(path: Path, device: torch.device) -> Bank:
        path.unlink()
        return load(path, device)

    monkeypatch.setattr("training.bank_folder.Bank.load", deleted)
    banks._due = 0.0
    assert banks.draw()
    assert "; 8 mixed banks, seen " in banks.seen(), "one that is deleted while it is looked for is none"
    for path in tmp_path.glob("mixed-*"):
        path.unlink()
    banks._due = 0.0
    assert len(banks.draw().tokens) == 5
    assert "mixed" not in banks.seen()
