"""What callers say, and what the agent answers whatever its role."""

import random
from typing import Any

from training.episodes import Exchange
from training.texts import choices, table

ASKS_PER_EXCHANGE = 3
"""Each wording is a recording to make, so an episode has only a few of all."""
Groups = list[tuple[float, tuple[Exchange, ...]]]
"""Exchanges that belong together, each group with its weight when some are drawn."""
SMALL_TALK = ("hello", "how_are_you", "thanks", "yes", "no", "robot", "joke", "weather")
_BEGINNINGS = (
    "Hi.",
    "Hello.",
    "Okay.",
    "Ah, nice.",
    "All right.",
    "Hmm.",
    "I see.",
    "Great.",
    "Good to know.",
    "Well,",
)
_BEGINNING_SHARE = 0.15


def phrases(kind: str) -> tuple[str, ...]:
    """All wordings of what a caller wants."""
    return choices(table("phrases")[kind])


def some_phrases(rng: random.Random, kind: str) -> tuple[str, ...]:
    """A few wordings of what a caller wants."""
    return some(rng, phrases(kind))


def some(rng: random.Random, wordings: tuple[str, ...]) -> tuple[str, ...]:
    """A few of the wordings."""
    return tuple(rng.sample(wordings, min(ASKS_PER_EXCHANGE, len(wordings))))


def pick(rng: random.Random, value: str | list[str], /, **fields: str) -> str:
    """One wording of a table's value, its {fields} filled in. `help`, several offers to help, is drawn too."""
    text = rng.choice(choices(value))
    if "help" in fields:
        fields["help"] = rng.choice(choices(fields["help"]))
    return text.format(**fields)


def small_talk(rng: random.Random, manner: str, /, **fields: str) -> list[Exchange]:
    """What anybody may be asked. `fields` is what answers mention, with `help`; `manner` as in `unknown`."""
    kinds = [kind for kind in SMALL_TALK if manner != "crisis" or kind not in ("joke", "weather")]
    return [Exchange(kind, some_phrases(rng, kind), answer(rng, kind, manner, **fields)) for kind in kinds]


def answer(rng: random.Random, kind: str, manner: str, /, **fields: str) -> str:
    """What one says to `kind`, in a manner of one's own where the table has it."""
    answers = table("answers")
    return pick(rng, answers.get(f"{kind}_{manner}", answers.get(kind)), **fields)


def unknown(rng: random.Random, manner: str, /, **fields: str) -> Exchange:
    """Something that the prompt does not know about. `manner` is `service`, `talk` or `crisis`."""
    feeling = rng.choice(tuple(table("unrelated")))
    answers: Any = table("answers")[f"unknown_{manner}"]
    fitting = answers[feeling] if isinstance(answers, dict) else answers
    return Exchange("unknown", some(rng, unrelated(feeling)), pick(rng, fitting, **fields))


def unrelated(feeling: str) -> tuple[str, ...]:
    """Sentences of callers that no prompt knows about: `neutral`, `glad`, `sad` or a `question`."""
    return tuple(table("unrelated")[feeling])


def chosen(rng: random.Random, groups: Groups, words: int) -> tuple[Exchange, ...]:
    """Exchanges with about so many words of answers, those of greater weight more often.

    A group stays together. A wording that two exchanges share belongs to the first. Some callers begin with a word
    or two before their question.
    """
    order = sorted(groups, key=lambda group: -(rng.random() ** (1 / group[0])))
    taken: list[Exchange] = []
    heard: set[str] = set()
    for _, group in order:
        for exchange in group:
            asks = tuple(ask for ask in exchange.asks if ask not in heard)
            if asks and words > 0:
                taken.append(
                    Exchange(exchange.kind, tuple(_begun(rng, exchange.kind, ask) for ask in asks), exchange.answer)
                )
                heard.update(asks)
                words -= len(exchange.answer.split())
    return tuple(taken)


def _begun(rng: random.Random, kind: str, ask: str) -> str:
    if kind in SMALL_TALK or not ask.endswith("?") or rng.random() >= _BEGINNING_SHARE:
        return ask
    beginning = rng.choice(_BEGINNINGS)
    return f"{beginning} {ask[0].lower() + ask[1:] if beginning.endswith(',') and not ask.startswith('I') else ask}"
