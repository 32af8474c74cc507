"""Renamed conversations: prompt and lines say the same other names, and codes that say the old ones are not learned."""

import random
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core.engine.architecture import AGENT_CODEBOOKS, STREAMS
from core.engine.prompt import SpecialCodes
from tests.agents_lines import add_agents_lines
from tests.test_training_scripts import FREE, facts
from training import names
from training.composer import Composer
from training.dialogues import PADDING, VOICE_FRAMES, Dialogue
from training.encoded import Lines
from training.episodes import Episode, Exchange
from training.lm import CODEBOOK_WEIGHTS, HEARD_WEIGHT, TEXT_WEIGHT, Losses, Shares, losses_of
from training.network import Logits
from training.renaming import Renaming, renaming
from training.scripts import episode, shipped_episodes
from training.shape import ARCHITECTURE
from training.texts import table
from training.tokenizer import make_tokenizer, read_tokenizer

pytestmark = pytest.mark.training
TITLES = {"Captain", "Professor", "Old"}
TRADES = {trade for row in table("trades") for trade in row.get("companies", "").split(", ")} - {""}
"""`Bakery`, `Wash House`."""


@pytest.fixture(scope="module")
def renamed() -> list[tuple[Episode, Renaming]]:
    """Episodes of all kinds, those that come with the service too, each with other names."""
    rng = random.Random(6)
    episodes = [episode(rng) for _ in range(1500)]
    episodes += [one for _ in range(20) for one in shipped_episodes(rng)]
    found = [(one, renaming(rng, one)) for one in episodes]
    assert not [one for one, chosen in found if chosen is None and (one.name or one.company)]
    return [(one, chosen) for one, chosen in found if chosen is not None]


def changed(one: Episode, chosen: Renaming) -> Episode:
    """The episode with its new names."""
    exchanges = tuple(replace(exchange, answer=chosen(exchange.answer)) for exchange in one.exchanges)
    return replace(one, prompt=chosen(one.prompt), greeting=chosen(one.greeting), exchanges=exchanges)


def told(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z']+", text))


def test_lines_say_what_the_renamed_prompt_says(renamed: list[tuple[Episode, Renaming]]) -> None:
    for one, chosen in renamed:
        other = changed(one, chosen)
        prompt, before = told(other.prompt), told(one.prompt)
        lines = [Exchange("greeting", (), other.greeting), *other.exchanges]
        originals = [Exchange("greeting", (), one.greeting), *one.exchanges]
        for line, original in zip(lines, originals, strict=True):
            if line.kind not in FREE and one.kind != "teacher":
                said = facts(original)
                assert facts(line) - (said - before) <= prompt, (line, other.prompt)
        assert chosen.new.get(one.first, "") in other.greeting
        assert chosen.new.get(one.name, "") in other.prompt
        assert chosen.new.get(one.company.removeprefix("The "), "") in other.prompt


def test_the_old_names_are_gone(renamed: list[tuple[Episode, Renaming]]) -> None:
    for one, chosen in renamed:
        for old in (one.name, one.first, one.company.removeprefix("The ")):
            if old and chosen.new[old] != old:
                left = [text for text in map(chosen, (one.prompt, *one.lines())) if re.search(rf"\b{old}\b", text)]
                assert not left, (old, left)


def test_words_keep_their_places_and_about_their_lengths(renamed: list[tuple[Episode, Renaming]]) -> None:
    far, count = 0, 0
    for one, chosen in renamed:
        for text in (one.prompt, *one.lines()):
            before, after = text.split(), chosen(text).split()
            assert len(before) == len(after), (text, after)
            punctuation = [re.sub(r"[\w']+", "", word) for word in before]
            assert punctuation == [re.sub(r"[\w']+", "", word) for word in after]
            differences = [abs(len(old) - len(new)) for old, new in zip(before, after, strict=True) if old != new]
            far += sum(difference > 3 for difference in differences)
            count += len(differences)
    assert count > 5000
    assert far < 0.03 * count


def test_no_new_name_is_held_out(renamed: list[tuple[Episode, Renaming]]) -> None:
    for one, chosen in renamed:
        if one.name:
            parts = [part for part in chosen.new[one.name].split() if part not in TITLES]
            assert not any(names.is_held_out(part) for part in parts)
        if one.company:
            ends = [f" {trade}" for trade in TRADES if one.company.endswith(f" {trade}")]
            own = chosen.new[one.company.removeprefix("The ")].removesuffix(max(ends, key=len, default=""))
            assert own
            assert not any(names.is_held_out(part.removesuffix("'s")) for part in own.split(" and ")), own


def test_there_is_no_end_of_new_names(renamed: list[tuple[Episode, Renaming]]) -> None:
    firsts = [chosen.new[one.first] for one, chosen in renamed if one.first]
    assert len(set(firsts)) > 0.8 * len(firsts)


def test_titles_trades_and_little_words_stay(renamed: list[tuple[Episode, Renaming]]) -> None:
    for one, chosen in renamed:
        if one.name:
            assert (one.name.split()[0] in TITLES) == (chosen.new[one.name].split()[0] in TITLES)
        if one.company and not one.company.startswith("The "):
            before, after = one.company.split(), chosen.new[one.company].split()
            trades = {trade.split()[-1] for trade in TRADES}
            assert before[-1] not in trades or "and" in before or before[-1] == after[-1], (before, after)
            assert ("and" in before) == ("and" in after)
            assert not before[0].endswith("'s") or after[0].endswith("s")


def test_a_name_is_not_a_word_that_looks_like_it() -> None:
    one = Episode(
        kind="service",
        prompt="You work for Sure which is a bank and your name is Will May. Doctor Nine has time on Monday at two.",
        name="Will May",
        first="Will",
        company="Sure",
        greeting="Sure, Will speaking. Will that be all?",
        exchanges=(
            Exchange(
                "fact", ("Is it open on Sunday?",), "Sure, the doctor has time on Monday at two. Call nine one one."
            ),
            Exchange("joke", (), "Why did it fall over? It was two tired."),
        ),
        repeats=(),
    )
    for seed in range(20):
        chosen = renaming(random.Random(seed), one)
        assert chosen is not None
        new = chosen.new
        assert chosen(one.greeting) == f"{new['Sure']}, {new['Will']} speaking. Will that be all?"
        fact, joke = (chosen(exchange.answer) for exchange in one.exchanges)
        assert fact == f"Sure, the doctor has time on {new['Monday']} at {new['two']}. Call nine one one."
        assert joke == one.exchanges[1].answer
        assert f"name is {new['Will May']}. Doctor {new['Nine']} has" in chosen(one.prompt)
        assert new["Will May"].startswith(new["Will"] + " ")


def test_what_callers_say_aloud_stays() -> None:
    one = next(iter(shipped_episodes(random.Random(0))))
    one = replace(
        one, prompt="The show on Friday in Rome costs two dollars.", exchanges=(Exchange("fact", (), "Rome."),)
    )
    chosen = renaming(random.Random(0), replace(one, repeats=("Is it two on Friday?",)))
    assert chosen is not None
    assert set(chosen.new) == {"Rome"}


def test_numbers_in_digits_stay() -> None:
    one = next(iter(shipped_episodes(random.Random(0))))
    answer = Exchange("hours", (), "At four in the afternoon in Rome.")
    one = replace(one, prompt="Ask for the last four digits. Open until 4 pm in Rome.", exchanges=(answer,))
    chosen = renaming(random.Random(0), one)
    assert chosen is not None
    assert set(chosen.new) == {"Rome"}


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Episode, int], tuple[Dialogue, str, str]]:
    """Makes a dialogue of one episode, with the prompt and the text that are read out of it."""
    path = tmp_path_factory.mktemp("renaming") / "tokenizer.model"
    make_tokenizer(path, 400, count=150)
    tokenizer = read_tokenizer(path)
    special = SpecialCodes(silence=tuple(range(8)), sine=tuple(range(8, 16)))

    def compose(one: Episode, seed: int) -> tuple[Dialogue, str, str]:
        lines = Lines()
        add_agents_lines(lines, "service-0", one.lines(), frames=8, seconds=0.6)
        composer = Composer(lines, {"service-0": one}, tokenizer, special, ARCHITECTURE, {})
        dialogue = composer.compose(random.Random(seed), 600)
        prompt = tokenizer.decode([piece for piece in dialogue.prompt[VOICE_FRAMES:, 0].tolist() if piece < 400])
        text = tokenizer.decode([piece for piece in dialogue.text.tolist() if piece not in (0, PADDING)])
        return dialogue, prompt, text

    return compose


def test_a_dialogue_is_renamed_whole_and_says_so(
    composed: Callable[[Episode, int], tuple[Dialogue, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.composer.SHARES", {"service": 1.0})
    rng, renamed_ones = random.Random(8), 0
    for seed in range(60):
        one = episode(rng, "service")
        dialogue, prompt, text = composed(one, seed)
        greeting = one.greeting.split()
        said = text.split()[: len(greeting)]
        assert len(said) == len(greeting)
        assert dialogue.sounds == (one.prompt in prompt)
        assert dialogue.sounds == (said == greeting)
        new = {word.strip(",.?") for word, old in zip(said, greeting, strict=True) if word != old}
        assert new <= {word.strip(",.?") for word in prompt.split()}
        renamed_ones += not dialogue.sounds
    assert 10 < renamed_ones < 40


def losses(sounds: list[bool], codes: int = 7) -> tuple[Losses, Tensor, Tensor]:
    """Of two rows, whose codes are 1 and `codes`, and where the logits of text and codes are learned."""
    torch.manual_seed(0)
    positions, card = 41, 10
    tokens = torch.ones(2, positions, STREAMS, dtype=torch.int64)
    tokens[1, :, 1 : 1 + AGENT_CODEBOOKS] = codes
    text = torch.zeros(2, positions - 1, card, requires_grad=True)
    likely = torch.zeros(card)
    likely[1] = 3.0
    made: list[Tensor] = []

    def network(_read: Tensor, _target: Tensor, chosen: Tensor, _positions: Tensor) -> Logits:
        made.append(likely.expand(*chosen.shape, AGENT_CODEBOOKS, card).clone().requires_grad_())
        return Logits(text, made[0], torch.zeros(2, positions - 1, card))

    speaking = torch.arange(positions).expand(2, -1) % 3 > 0
    heard = torch.full((2, positions), PADDING)
    shares = Shares(torch.tensor(CODEBOOK_WEIGHTS))
    begins, given = torch.tensor([5, 5]), torch.zeros_like(speaking)
    found = losses_of(network, shares, tokens, begins, speaking, torch.tensor(sounds), heard, given)
    torch.autograd.backward(found.total)
    assert text.grad is not None
    assert made[0].grad is not None
    return found, text.grad.abs().sum(dim=(1, 2)), made[0].grad.abs().sum(dim=(1, 2, 3))


def test_only_codes_that_sound_as_their_text_are_learned() -> None:
    both, text, codes = losses([True, True])
    assert (text > 0).all()
    assert (codes > 0).all()
    one, text, codes = losses([True, False])
    assert (text > 0).all()
    assert codes[0] > 0
    assert codes[1] == 0
    other, *_ = losses([True, False], codes=3)
    assert one.total == other.total
    learned = torch.log(torch.exp(torch.tensor(3.0)) + 9) - 3
    torch.testing.assert_close(one.first, learned)
    torch.testing.assert_close(one.rest, learned)
    assert both.first > one.first
    texts = TEXT_WEIGHT * one.words + HEARD_WEIGHT * torch.log(torch.tensor(10.0))
    torch.testing.assert_close(one.total.detach(), texts + sum(CODEBOOK_WEIGHTS) * learned)


def test_a_batch_may_have_no_codes_to_learn() -> None:
    none, text, codes = losses([False, False])
    assert (text > 0).all()
    assert (codes == 0).all()
    texts = TEXT_WEIGHT * none.words + HEARD_WEIGHT * torch.log(torch.tensor(10.0))
    torch.testing.assert_close(none.total.detach(), texts)


def test_the_speech_of_the_shipped_personas_and_of_late_shards_go_together(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the training group is not installed: uv sync --group training")
    from training.shards import read_index, read_shard, shard_paths
    from training.speech import SHIPPED, episodes_of, make_shard
    from training.voices import ESPEAK, KOKORO

    first = {name for shard in range(SHIPPED) for name in episodes_of(KOKORO, shard)}
    late = {name for shard in (4000, 5999) for name in episodes_of(KOKORO, shard)}
    assert {name.partition("-")[0] for name in first} == {"shipped"}
    assert {name.partition("-")[0] for name in late} == {"kokoro"}
    assert len({agent.name for _, agent in episodes_of(KOKORO, 4000).values()}) == 4
    for shard in (0, 123456):
        make_shard(ESPEAK, tmp_path, shard, count=1)
    assert [*chain.from_iterable(read_index(path).episodes for path in shard_paths(tmp_path))] == [
        "espeak-0.0",
        "espeak-123456.0",
    ]
    assert all(read_shard(path) for path in shard_paths(tmp_path))
