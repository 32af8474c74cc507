"""The stage `choose`: questions about portraits, and the answers that a language model takes for the likeliest."""

from itertools import islice
from pathlib import Path

import click
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.untrained import untrained_mimi
from core.engine.prompt import GAP_FRAMES
from tests.engines import CPU
from training.choosing import Asked, Layout, Options, choose, costs_of, figures_of, questions
from training.dialogues import END_OF_PADDING, PADDING
from training.network import Logits, Network
from training.portraits import Portrait, portraits
from training.shape import SMALL
from training.speech import make_shard
from training.stages import encode_all_lines, tokenizer_file
from training.tokenizer import read_tokenizer
from training.voices import ESPEAK

pytestmark = pytest.mark.training
pytest.importorskip("espeakng_loader", reason="the training group is not installed: uv sync --group training")
OPTIONS = Options(questions=3, shape=SMALL)


class Believer(nn.Module):
    """A language model that is sure of what it has been shown, and surprised by all else."""

    def __init__(self, text: Tensor) -> None:
        super().__init__()
        self._text = text

    def forward(self, tokens: Tensor, target: Tensor, chosen: Tensor) -> Logits:
        sure = nn.functional.one_hot(self._text, SMALL.architecture.text_vocab_size).float() * 9
        return Logits(sure.expand(len(tokens), -1, -1), torch.empty(0), ())


class Watcher(nn.Module):
    """A language model that keeps what it is shown."""

    def forward(self, tokens: Tensor, target: Tensor, chosen: Tensor) -> Logits:
        self.tokens, self.text = tokens, target[:, :, 0]
        return Logits(torch.zeros(*self.text.shape, SMALL.architecture.text_vocab_size), torch.empty(0), ())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training folder whose only speech is a robot's, in codes of a codec that nobody has trained."""
    folder = tmp_path_factory.mktemp("choosing")
    make_shard(ESPEAK, folder / "speech", 0, count=1)
    save_file(untrained_mimi(torch.Generator().manual_seed(0), SMALL.mimi).state_dict(), folder / "mimi.safetensors")
    encode_all_lines(folder, CPU, lambda _: None, SMALL)
    return folder


@pytest.fixture(scope="module")
def layout(folder: Path) -> Layout:
    return Layout(folder, CPU, OPTIONS)


@pytest.fixture(scope="module")
def asked() -> Asked:
    return next(questions(OPTIONS))


def shown(layout: Layout, asked: Asked) -> Watcher:
    watcher = Watcher()
    layout.choice(watcher, asked)
    return watcher


def test_each_answer_follows_the_same_question(folder: Path, layout: Layout, asked: Asked) -> None:
    watcher = shown(layout, asked)
    tokenizer = read_tokenizer(tokenizer_file(folder, SMALL))
    greeting = asked.episode.greeting.split()
    pieces = {word: tokenizer.encode(word) for word in (*greeting, *" ".join(asked.answers).split())}
    for row, answer in enumerate(asked.answers):
        text = [piece for piece in watcher.text[row].tolist() if piece not in (PADDING, END_OF_PADDING)]
        conversation = [piece for word in (*greeting, *answer.split()) for piece in pieces[word]]
        assert text[-len(conversation) :] == conversation
    callers = watcher.tokens[:, :, 9:]
    assert (callers == callers[:1]).all()
    assert len({tuple(frame) for frame in callers[0].tolist()}) > 2 * GAP_FRAMES, "something is heard"


def test_the_right_answer_is_that_which_is_likeliest(layout: Layout, asked: Asked) -> None:
    text = shown(layout, asked).text
    for row in range(len(asked.answers)):
        choice = layout.choice(Believer(text[row]), asked)
        assert choice.is_right == (row == asked.right)
        assert choice.costs[row] == min(choice.costs) < 0.2 * choice.pieces


def test_words_cost_what_the_network_says_from_where_they_begin() -> None:
    network = Network(SMALL.architecture).eval()
    tokens = torch.randint(4, 300, (2, 20, 17), generator=torch.Generator().manual_seed(2))
    tokens[0, 15, 0], tokens[0, 16, 0] = PADDING, END_OF_PADDING
    costs, pieces = costs_of(network, tokens, 12)
    with torch.inference_mode():
        said = network(tokens[:, :-1], tokens[:, 1:, :9]).text.log_softmax(dim=-1)
    for row, places in enumerate(([12, 13, 14, 17, 18, 19], range(12, 20))):
        assert pieces[row] == len(places)
        expected = -sum(float(said[row, place - 1, tokens[row, place, 0]]) for place in places)
        assert float(costs[row]) == pytest.approx(expected, rel=1e-4)


def test_held_out_questions_are_about_held_out_portraits() -> None:
    unseen = Options(questions=12, unseen=True)
    known, held_out = (
        {wording for one in portraits(part) for wording in wordings(one, part)} for part in (False, True)
    )
    assert {one.wording for one in questions(OPTIONS)} <= known
    assert {one.wording for one in questions(unseen)} <= held_out
    assert [one.wording for one in questions(unseen)] == [one.wording for one in questions(unseen)]
    for one in islice(questions(unseen), 4):
        assert len(one.answers) == len(set(one.answers)) > 2


def wordings(one: Portrait, held_out: bool) -> set[str]:
    return {wording for statement in one.statements for fact in statement.facts for wording in fact.wordings(held_out)}


def test_figures_tell_how_often_and_what_chance_would(layout: Layout, asked: Asked) -> None:
    text = shown(layout, asked).text
    right, wrong = (layout.choice(Believer(text[row]), asked) for row in (asked.right, (asked.right + 1) % len(text)))
    share, chance, cost = figures_of([right, wrong])
    assert (share.value, share.cases) == (0.5, 2)
    assert chance.value == pytest.approx(1 / len(asked.answers))
    assert cost.cases == right.pieces + wrong.pieces
    assert [figure.value for figure in figures_of([])] == [None, None, None]


def test_without_an_agent_who_has_spoken_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="run `speech` and `encode --lines` first"):
        choose(tmp_path, Path("core/nano"), CPU, OPTIONS, print)
