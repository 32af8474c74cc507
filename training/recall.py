"""Stage `recall`: whether unseen personas still know who they are after minutes of talk, pinned and not.

Callers talk about other things and, at certain minutes, ask for the persona's name, its company and a price. Each call
is held twice, with its prompt pinned and without, in the same voice, with the same seed and caller. Calls go on as fast
as the engine steps.
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import numpy as np

from core.boot.local_engine import open_engine
from core.engine.call import FRAME_S, SAMPLE_RATE
from core.engine.prompt import Prompt
from core.engine.sampling import Sampling
from core.engine.scheduler import SlotEngine
from core.engine.spoken_numbers import number_in_words
from core.evaluation.callers import Line
from core.evaluation.calls import PlannedCall, hold_together
from core.evaluation.evaluate import spoken
from core.evaluation.figures import Figure, share
from core.evaluation.speech import activity, is_talked_over
from core.evaluation.whisper import Whisper
from core.evaluation.words import WordErrors, mentions, words_of
from core.settings.sections import Device, EngineConfig
from training.calls import CallRecord, ScriptedCaller, record_of
from training.judge import judge as make_judge
from training.phrases import phrases, unrelated
from training.scripts import Episode, episode
from training.teachers import Espeak, Spoken
from training.voices import Speaker, caller

SILENT_S = 4.0
"""How long callers are silent before they ask, so that it is heard whether the agent is too."""
AROUND_S = 30.0
"""So long before it is asked, turns count as those of that minute."""
SMALL_TALK = ("how_are_you", "thanks", "joke", "weather")
ABOUT_PROMPT = ("name", "company", "what", "price", "prices", "special", "goodbye", "yes", "no")
"""What callers do not ask in between."""
NUMBERS = frozenset(word for number in range(1000) for word in number_in_words(str(number)).split()) - {"and"}

Report = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How many `personas` are called, each in every one of `voices` (none: all that the checkpoint has).

    `minutes` is when they are asked, of which the middle ones (see `asked_at`) are shared among the calls; `slots` how
    many calls are held at once. With `listen`, Whisper writes down what they answer.
    """

    checkpoint: Path
    personas: int = 40
    voices: tuple[str, ...] = ()
    minutes: tuple[float, ...] = (0.5, 3.0, 5.0, 10.0, 15.0)
    slots: int = 16
    device: Device = "auto"
    listen: bool = True


class Answer(msgspec.Struct, frozen=True):
    """What an agent said when asked, and whether it is right. `heard` is what Whisper makes of it."""

    kind: str
    asked: str
    expected: str
    said: str
    right: bool
    heard: str | None = None


class Check(msgspec.Struct, frozen=True):
    """How a call was at a minute: answers, whether each turn of the caller was talked over, and silent seconds."""

    voice: str
    pinned: bool
    minute: float
    answers: tuple[Answer, ...]
    talked_over: tuple[bool, ...]
    silent: float
    """The share of the silent stretch in which the agent is silent."""


class Recall(msgspec.Struct, frozen=True):
    """The JSON file."""

    figures: tuple[Figure, ...]
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Question:
    """What an agent is asked in several wordings, and what its answer holds."""

    kind: str
    asks: tuple[str, ...]
    expected: str

    def right(self, said: str) -> bool:
        """Whether an answer holds it, word for word; of a price, its numbers."""
        if self.kind != "price":
            return mentions(said, self.expected)
        return mentions(" ".join(numbers_in(said)), self.expected)


@dataclass(frozen=True)
class Planned:
    """A call that is to be held."""

    number: int
    episode: Episode
    questions: tuple[Question, ...]
    voice: str
    pinned: bool


def recall(options: Options, report: Report) -> Recall:
    """Hold all calls and measure them."""
    config = EngineConfig(
        name="personaplex", checkpoint=str(options.checkpoint), device=options.device, slots=options.slots
    )
    engine, judge = open_engine(config, report), make_judge() if options.listen else None
    checks: list[Check] = []
    try:
        planned = list(plan(options, engine.voices()))
        for first in range(0, len(planned), options.slots):
            group = planned[first : first + options.slots]
            records = asyncio.run(hold(engine, group, options.minutes, report))
            for each, record in zip(group, records, strict=True):
                checks += checks_of(each, record, options.minutes, judge)
            report("\n".join(figure.row() for figure in figures_of(checks)))
    finally:
        engine.close()
    return Recall(tuple(figures_of(checks)), tuple(checks))


def plan(options: Options, voices: Sequence[str]) -> Iterator[Planned]:
    """All calls, the two of a pair next to each other, and voice by voice."""
    for voice in options.voices or voices:
        for number in range(options.personas):
            persona, questions = unseen(random.Random(f"recall {number}"))
            for pinned in (True, False):
                yield Planned(number, persona, questions, voice, pinned)


def unseen(rng: random.Random) -> tuple[Episode, tuple[Question, ...]]:
    """A persona with a name, a company and a price, and the questions for them."""
    while True:
        persona = episode(rng, "service", held_out=True)
        prices = [exchange for exchange in persona.exchanges if exchange.kind == "price"]
        amount = " ".join(numbers_in(prices[0].answer)) if prices else ""
        asks = tuple(ask for ask in prices[0].asks if "Do you have" not in ask) if prices else ()
        if persona.name and persona.company and amount and asks:
            return persona, (
                Question("name", phrases("name"), persona.first),
                Question("company", phrases("company"), persona.company.removeprefix("The ")),
                Question("price", asks, amount),
            )


def numbers_in(text: str) -> list[str]:
    """The words of a text that are numbers."""
    return [word for word in words_of(text) if word in NUMBERS]


def asked_at(number: int, minutes: Sequence[float]) -> tuple[float, ...]:
    """The minutes at which a call is asked: the second or the third one by turns, and all others.

    They are so near each other that the answers of one would be remembered at the next.
    """
    return tuple(minute for place, minute in enumerate(minutes) if place != 1 + number % 2 or len(minutes) < 3)


async def hold(
    engine: SlotEngine, planned: Sequence[Planned], minutes: Sequence[float], report: Report
) -> list[CallRecord]:
    """Hold all these calls at once."""
    # A synthesizer's noise goes on from line to line: both calls of a pair are to hear the same.
    say = cache(Espeak().say)
    talkers = [long_caller(each, minutes, say) for each in planned]
    calls = [
        PlannedCall(
            Prompt(each.episode.prompt, engine.voice(each.voice), each.pinned),
            talker.frames(),
            Sampling(seed=each.number),
        )
        for each, talker in zip(planned, talkers, strict=True)
    ]
    records: dict[int, CallRecord] = {}
    async for place, recording in hold_together(engine, calls, len(calls)):
        each = planned[place]
        records[place] = record_of(each.episode, each.voice, talkers[place], recording)
        report(f"{len(records)} of {len(calls)} calls")
    return [records[place] for place in range(len(calls))]


def long_caller(each: Planned, minutes: Sequence[float], say: Callable[[str, Speaker], Spoken]) -> ScriptedCaller:
    """Somebody who talks about this and that and, when it is time, is silent for a while and asks."""
    rng = random.Random(f"recall caller {each.number}")
    speaker, talk = caller(rng, "espeak"), small_talk(each)

    def line(kind: str, text: str) -> Line:
        return Line(kind, text, say(text, speaker).pcm)

    def lines() -> Iterator[Line]:
        for minute in asked_at(each.number, minutes):
            while scripted.count * FRAME_S < minute * 60:
                yield line("talk", rng.choice(talk))
            yield Line("silence", "", np.zeros(round(SILENT_S * SAMPLE_RATE), np.float32))
            for question in each.questions:
                yield line(question.kind, rng.choice(question.asks))

    scripted = ScriptedCaller(lines(), rng)
    return scripted


def small_talk(each: Planned) -> list[str]:
    """What a caller says without asking for what is to be remembered."""
    about = [
        exchange.asks
        for exchange in each.episode.exchanges
        if exchange.kind not in ABOUT_PROMPT and not any(question.right(exchange.answer) for question in each.questions)
    ]
    anything = [phrases(kind) for kind in SMALL_TALK]
    anything += [unrelated(feeling) for feeling in ("neutral", "glad", "sad", "question")]
    return [ask for asks in (*about, *anything) for ask in asks]


def checks_of(each: Planned, record: CallRecord, minutes: Sequence[float], judge: Whisper | None) -> list[Check]:
    """What a call was like at the minutes when it was asked."""
    active, turns, parts = activity(record.agent), record.turns, record.parts()[1:]
    silences = [place for place, turn in enumerate(turns) if turn.line.kind == "silence"]
    checks = []
    for place, minute in zip(silences, asked_at(each.number, minutes), strict=True):
        silence, asks = turns[place], range(place + 1, place + 1 + len(each.questions))
        answers = []
        for question, ask in zip(each.questions, asks, strict=True):
            said = record.said(parts[ask]).strip()
            heard = None if judge is None or not len(sound := spoken(record.agent, *parts[ask])) else judge.hear(sound)
            asked = turns[ask].line.text
            answers.append(Answer(question.kind, asked, question.expected, said, question.right(said), heard))
        since = silence.begin - round(AROUND_S / FRAME_S)
        near = [turn for turn in turns[: asks.stop] if turn.begin >= since and turn is not silence]
        talked_over = tuple(is_talked_over(active, turn.begin, turn.end) for turn in near)
        silent = 1 - float(active[silence.begin : silence.end].mean())
        checks.append(Check(each.voice, each.pinned, minute, tuple(answers), talked_over, silent))
    return checks


def figures_of(checks: Sequence[Check]) -> list[Figure]:
    """All figures, minute by minute, pinned and not."""
    figures = []
    for minute in sorted({check.minute for check in checks}):
        for pinned in (True, False):
            chosen = [check for check in checks if (check.minute, check.pinned) == (minute, pinned)]
            when = f"after {minute:g} min, {'pinned' if pinned else 'not pinned'}"
            answers = [answer for check in chosen for answer in check.answers]
            for kind in ("name", "company", "price"):
                figures.append(share(f"{kind} right {when}", [each.right for each in answers if each.kind == kind]))
            errors = WordErrors()
            for answer in answers:
                if answer.heard is not None:
                    errors.add(answer.said, answer.heard)
            figures.append(Figure(f"word error rate {when}", errors.rate, errors.words))
            over = [each for check in chosen for each in check.talked_over]
            figures.append(share(f"turns talked over {when}", over))
            silent = float(np.mean([check.silent for check in chosen])) if chosen else None
            figures.append(Figure(f"silence kept {when}", silent, len(chosen)))
    return figures
