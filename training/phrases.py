"""What callers say, and what the agent answers whatever its role."""

import random
import zlib
from collections.abc import Iterable
from dataclasses import replace
from functools import cache, lru_cache

from training.episodes import Exchange
from training.goods import Good, article, capital
from training.texts import choices, expanded, table

Groups = list[tuple[float, tuple[Exchange, ...]]]
"""Exchanges that belong together, each group with its weight when some are drawn."""
SMALL_TALK = ("hello", "how_are_you", "thanks", "yes", "no", "robot", "joke", "weather")
FEELINGS = {
    "sad": 1.2,
    "rude": 1.1,
    "question": 1.3,
    "neutral": 0.9,
    "glad": 0.7,
    "request": 0.6,
    "compliment": 0.4,
    "jest": 0.3,
}
"""What callers say that no prompt knows about, by feeling or what it is, with weights when some are drawn."""
LEAST_WORDS = 5
"""An answer counts as so many words at least: a short one takes a turn of the conversation, too."""
HELD_OUT = 10
"""One wording of so many is for evaluation only."""


def is_held_out(wording: str) -> bool:
    """Whether a wording is for evaluation only. It is as the tables have it, `How much is {a} {item}?`."""
    return zlib.crc32(wording.encode()) % HELD_OUT == 0


def part(wordings: tuple[str, ...], held_out: bool) -> tuple[str, ...]:
    """The wordings that are trained on, or those that are held out: none, where a table has few."""
    return tuple(wording for wording in wordings if is_held_out(wording) == held_out)


@cache
def phrases(kind: str, held_out: bool = False) -> tuple[str, ...]:
    """All wordings of what a caller wants, of either part."""
    return part(choices(table("phrases")[kind]), held_out)


def good_phrases(kind: str, word: str, count: str, held_out: bool = False) -> tuple[str, ...]:
    """All wordings of what a caller wants to know about one of the goods, a `Good` of this `word` and `count`."""
    return good_wordings(table("phrases")[kind], word, count, held_out)


@lru_cache(4096)
def good_wordings(value: str, word: str, count: str, held_out: bool = False) -> tuple[str, ...]:
    """The same, of a table's text with ` / ` between wordings."""
    good = Good(word, count, "")
    fields = {"item": word, "a": article(word), "plural": good.plural, "Plural": capital(good.plural)}
    return tuple(wording.format(**fields) for wording in wordings(value, held_out))


@cache
def wordings(value: str, held_out: bool = False) -> tuple[str, ...]:
    """All wordings in a table's text with ` / ` between them, of either part."""
    return part(choices(value), held_out)


def pick(rng: random.Random, value: str | list[str], /, **fields: str) -> str:
    """One wording of a table's value, its {fields} filled in. `help`, several offers to help, is drawn too."""
    text = rng.choice(choices(value))
    if "help" in fields:
        fields["help"] = rng.choice(choices(fields["help"]))
    return text.format(**fields)


def small_talk(rng: random.Random, manner: str, held_out: bool, /, **fields: str) -> list[Exchange]:
    """What anybody may be asked. `fields` is what answers mention, with `help`; `manner` as in `feelings`."""
    kinds = [kind for kind in SMALL_TALK if manner != "crisis" or kind not in ("joke", "weather")]
    return [Exchange(kind, phrases(kind, held_out), answer(rng, kind, manner, **fields)) for kind in kinds]


def answer(rng: random.Random, kind: str, manner: str, /, **fields: str) -> str:
    """What one says to `kind`, in a manner of one's own where the table has it."""
    answers = table("answers")
    return pick(rng, answers.get(f"{kind}_{manner}", answers.get(kind)), **fields)


def feelings(rng: random.Random, manner: str, held_out: bool, /, **fields: str) -> Groups:
    """What no prompt knows about, an exchange for each feeling. `manner` is `service`, `talk` or `crisis`."""
    answers = table("answers")[f"unknown_{manner}"]
    return [
        (weight, (Exchange(feeling, unrelated(feeling, held_out), pick(rng, answers[feeling], **fields)),))
        for feeling, weight in FEELINGS.items()
    ]


def garbled(rng: random.Random, held_out: bool) -> Exchange:
    """What cannot be understood: a caller says it, and the sound is spoilt. The answer is right whatever was said."""
    return Exchange("garbled", loose("garbled", held_out), pick(rng, table("answers")["garbled"]))


@cache
def unrelated(feeling: str, held_out: bool = False) -> tuple[str, ...]:
    """Sentences of callers that no prompt knows about, by one of FEELINGS."""
    return _sentences(table("unrelated")[feeling], held_out)


@cache
def loose(kind: str, held_out: bool = False) -> tuple[str, ...]:
    """What callers say that belongs to no exchange of an episode: a kind of `texts/loose.yaml`."""
    return _sentences(choices(table("loose")[kind]), held_out)


def _sentences(lines: Iterable[str], held_out: bool) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for line in part(tuple(lines), held_out) for text in expanded(line)))


def chosen(rng: random.Random, groups: Groups, words: int) -> tuple[Exchange, ...]:
    """Exchanges with about so many words of answers (LEAST_WORDS each at least), those of greater weight more often.

    A group stays together. A wording that two exchanges share belongs to the first, and what nobody asks is left out.
    """
    order = sorted(groups, key=lambda group: -(rng.random() ** (1 / group[0])))
    taken: list[Exchange] = []
    heard: set[str] = set()
    for _, group in order:
        for exchange in group:
            asks = exchange.asks
            if not heard.isdisjoint(asks):
                asks = tuple(ask for ask in asks if ask not in heard)
            if asks and words > 0:
                taken.append(replace(exchange, asks=asks))
                heard.update(asks)
                words -= max(LEAST_WORDS, len(exchange.answer.split()))
    return tuple(taken)
