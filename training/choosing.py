"""Stage `choose`: whether nano finds in a prompt what it is asked for, apart from how well it speaks and takes turns.

A caller asks a portrait one thing. All answers that this prompt has are laid out after the question, each in turn, and
the one whose words the language model takes for the likeliest should be the right one. A question takes a second or two
on a core, where `judge` takes minutes to tell one model from another.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec
import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F
from moshi.models.compression import MimiModel
from torch import Tensor

from core.engine.call import FRAME_SAMPLES
from core.engine.prompt import SpecialCodes, Tokens
from core.evaluation.figures import Figure, share
from training.acoustics import WORLDS
from training.callers import utterance
from training.composer import prompt_tokens
from training.dialogues import END_OF_PADDING, PADDING, Dialogue, positions_of
from training.encoded import CallerLine, Lines, encode_batch, frames_of
from training.episodes import Episode
from training.growing import grown
from training.network import Logits
from training.portraits import portrait
from training.shape import NANO, Shape
from training.shards import Line, LineRecord, codes_of, is_of_callers, read_shard, shard_paths
from training.splicing import Splicer
from training.stages import special_codes, tokenizer_file, trained_mimi
from training.teachers import Espeak
from training.tokenizer import read_tokenizer
from training.voices import AGENTS, caller

GREETING, QUESTION, ANSWER = 5, 12, 8
"""Frames before the greeting, between it and the question, and between the question and the answer."""
BEFORE = 4
"""Frames before an answer's sound from which on its words count."""
SOME = 3
"""So many answers a prompt must have, for a choice to be one."""


@dataclass(frozen=True)
class Options:
    """What is asked: so many `questions` about portraits that are trained on or, if they are `unseen`, held out.

    Callers speak by espeak-ng, in voices that training has or, if they are `strange`, held out, in any of WORLDS.
    """

    questions: int = 100
    unseen: bool = False
    strange: bool = False
    shape: Shape = NANO


class Choice(msgspec.Struct, frozen=True):
    """A question, and what each answer of the prompt would cost in nats: `right` is the place of the right one."""

    asked: str
    voice: str
    answers: tuple[str, ...]
    costs: tuple[float, ...]
    right: int
    pieces: int
    """Pieces of text in the right answer."""

    @property
    def is_right(self) -> bool:
        """Whether no other answer is likelier than the right one."""
        return min(range(len(self.costs)), key=self.costs.__getitem__) == self.right


class Choices(msgspec.Struct, frozen=True):
    """The JSON file."""

    figures: tuple[Figure, ...]
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Asked:
    """A question of a caller, and the answers that this persona has, of which number `right` is the one to it."""

    episode: Episode
    wording: str
    answers: tuple[str, ...]
    right: int


def choose(
    folder: Path, checkpoint: Path, device: torch.device, options: Options, report: Callable[[str], None]
) -> Choices:
    """Ask everything of the checkpoint in a folder. Raises ClickException where no agent's lines have codes."""
    layout = Layout(folder, device, options)
    network = grown(checkpoint, options.shape.architecture).to(device).eval()
    made = list[Choice]()
    for asked in questions(options):
        made.append(layout.choice(network, asked))
        if len(made) % 20 == 0:
            report(f"{len(made)} of {options.questions} questions: {sum(one.is_right for one in made)} right")
    return Choices(tuple(figures_of(made)), tuple(made))


def figures_of(made: Sequence[Choice]) -> list[Figure]:
    """How often it chooses right, how often chance would, and what the right answers cost."""
    pieces = sum(one.pieces for one in made)
    cost = sum(one.costs[one.right] for one in made)
    chance = sum(1 / len(one.answers) for one in made) / len(made) if made else None
    return [
        share("right answer the likeliest", [one.is_right for one in made]),
        Figure("the same by chance", chance, len(made)),
        Figure("nats for each piece of right answers", cost / pieces if pieces else None, pieces, unit=""),
    ]


def questions(options: Options) -> Iterator[Asked]:
    """The same ones each time: a fact of each portrait that is drawn, in a wording that is trained on or, of portraits
    that are held out, in one that is, too."""
    rng = random.Random(f"choose {options.unseen}")
    asked = 0
    while asked < options.questions:
        episode = portrait(rng, options.unseen)
        facts = [exchange for exchange in episode.exchanges if exchange.kind == "fact" and exchange.asks]
        answers = tuple(dict.fromkeys(fact.answer for fact in facts))
        if len(answers) < SOME:
            continue
        fact = rng.choice(facts)
        yield Asked(episode, rng.choice(fact.asks), answers, answers.index(fact.answer))
        asked += 1


class Layout:
    """Lays out conversations of one question: who speaks, in which voice and world, frame by frame."""

    def __init__(self, folder: Path, device: torch.device, options: Options) -> None:
        self._options, self._device = options, device
        self._lines = _agents(folder)
        self._splicers = {name: Splicer(name, said) for name, said in self._lines.voices.items()}
        self._speakers = [name for name in AGENTS if name in self._splicers] or sorted(self._splicers)
        self._mimi: MimiModel = trained_mimi(folder, device, options.shape.mimi)
        self._special: SpecialCodes = special_codes(self._mimi)
        self._tokenizer: sentencepiece.SentencePieceProcessor = read_tokenizer(tokenizer_file(folder, options.shape))
        self._espeak = Espeak()

    def choice(self, network: Callable[..., Logits], asked: Asked) -> Choice:
        """What each of the answers costs the network. A question is asked in the same way each time."""
        rng = random.Random(f"choose {asked.wording}")
        voice, said = self._called(rng, asked.wording)
        tokens, begin = self._laid_out(rng, asked, said)
        batch = torch.from_numpy(tokens).to(self._device)
        costs, pieces = costs_of(network, batch, begin)
        return Choice(asked.wording, voice, asked.answers, tuple(costs.tolist()), asked.right, int(pieces[asked.right]))

    def _called(self, rng: random.Random, text: str) -> tuple[str, CallerLine]:
        """Somebody who asks it, and the question as it is heard."""
        strange = self._options.strange
        speaker = caller(rng, "espeak", strange)
        spoken = self._espeak.say(text, speaker)
        recorded = np.round(spoken.pcm * 32767).astype(np.int16)
        record = LineRecord("choose/caller", speaker.name, text, 0, len(recorded), spoken.words, (), text)
        line, world = Line(record, recorded), rng.randrange(len(WORLDS)) if strange else list(WORLDS).index("clean")
        generator = torch.Generator(self._device).manual_seed(rng.getrandbits(32))
        codes = encode_batch(self._mimi, [line], frames_of(line), generator, world)[0, 0]
        return speaker.name, CallerLine(recorded, text, spoken.words, speaker.name, codes, world)

    def _laid_out(self, rng: random.Random, asked: Asked, said: CallerLine) -> tuple[Tokens, int]:
        """The conversation with each of the answers, int64[answers, positions, 17], and where these begin."""
        speaker = rng.choice(self._speakers)
        splicer, pieces = self._splicers[speaker], self._tokenizer.encode
        prompt = prompt_tokens(
            rng,
            asked.episode.prompt,
            self._lines.voices[speaker],
            self._tokenizer,
            self._special,
            self._options.shape.architecture,
        )
        greeting = splicer.line(rng, asked.episode.greeting)
        answers = [splicer.line(rng, answer) for answer in asked.answers]
        spoken = sum(line.codes.shape[1] for line in (greeting, max(answers, key=lambda line: line.codes.shape[1])))
        frames = GREETING + QUESTION + -(-len(said.pcm) // FRAME_SAMPLES) + ANSWER + spoken
        rows, begin = [], 0
        for answer in answers:
            dialogue = Dialogue.silent(prompt, frames, self._special, sounds=False)
            end = dialogue.speak(greeting, GREETING, 0, pieces)
            begin = dialogue.say(utterance(said), (end + QUESTION) * FRAME_SAMPLES, pieces) // FRAME_SAMPLES + ANSWER
            dialogue.speak(answer, begin, 0, pieces)
            rows.append(positions_of(dialogue, self._special))
        return np.stack(rows), len(prompt) + begin - BEFORE


def _agents(folder: Path) -> Lines:
    """All that agents have said, and that has codes. Raises ClickException where there is nothing."""
    lines = Lines()
    for shard in shard_paths(folder / "speech"):
        if not is_of_callers(shard) and codes_of(shard).exists():
            lines.add_agents(read_shard(shard), np.load(codes_of(shard)))
    if not lines.voices:
        raise click.ClickException(f"No agents' lines in {folder} have codes: run `speech` and `encode --lines` first.")
    return lines


def costs_of(network: Callable[..., Logits], tokens: Tensor, begin: int) -> tuple[Tensor, Tensor]:
    """What the agent's words from position `begin` on cost in nats, and how many pieces of text they are.

    `tokens`: int64[batch, positions, 17]. Both are float32[batch].
    """
    nowhere = torch.zeros(len(tokens), 1, dtype=torch.int64, device=tokens.device)
    with torch.inference_mode():
        logits = network(tokens[:, :-1], tokens[:, 1:, :9], nowhere).text.float()
    text = tokens[:, 1:, 0].clamp(max=logits.shape[-1] - 1)
    costs = F.cross_entropy(logits.transpose(1, 2), text, reduction="none")
    words = (text != PADDING) & (text != END_OF_PADDING)
    words[:, : begin - 1] = False
    return (costs * words).sum(dim=1), words.sum(dim=1).float()
