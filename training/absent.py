"""What callers ask for that the prompt does not tell: the same wordings as if it did, so that the prompt is read."""

import random
from collections.abc import Collection
from functools import cache
from typing import Any

from training.catalogue import other_good
from training.episodes import Exchange
from training.goods import Good, goods_of, words_of
from training.phrases import Groups, phrases, pick, wordings
from training.pricing import offered, price_asks
from training.texts import choices, table

_KINDS = {"hours": 0.5, "where": 0.5, "phone": 0.35, "special": 0.25, "goods": 0.4, "prices": 0.5}
"""Kinds of exchanges that a prompt may lack, with their weights when some are drawn."""
_OTHER_GOODS = 3
"""Of so many goods that the prompt does not name, callers may ask."""


def absent(
    rng: random.Random,
    trade: dict[str, Any],
    goods: tuple[Good, ...],
    verb: str,
    known: Groups,
    topics: Collection[str],
    held_out: bool,
) -> Groups:
    """What this prompt lacks. `known` is all that is asked because of it, `topics` what it tells of (`our hours`).

    `verb` is what the company does with its goods: `have`.
    """
    exchanges = [exchange for _, group in known for exchange in group]
    kinds = {exchange.kind for exchange in exchanges}
    groups: Groups = [
        (weight, (Exchange(f"no_{kind}", phrases(kind, held_out), _answer(rng, kind, topics)),))
        for kind, weight in _KINDS.items()
        if kind not in kinds and not (kind == "prices" and goods)
    ]
    if goods:
        words = {word for exchange in exchanges for word in words_of(exchange.answer)}
        wanted = [other_good(rng, goods, words) for _ in range(_OTHER_GOODS)]
    else:
        wanted = rng.sample(own := goods_of(trade), min(_OTHER_GOODS, len(own)))
    asks = tuple(dict.fromkeys(ask for good in wanted for ask in price_asks(good, held_out)))
    if goods:
        what = _answer(rng, "good", topics, verb=verb, offered=offered(goods))
        groups.append((0.6, (Exchange("no_good", asks, what),)))
    else:
        groups.append((0.75, (Exchange("no_price", asks, _answer(rng, "price", topics)),)))
    groups += [(0.35, (exchange,)) for exchange in _facts(rng, exchanges, topics, held_out)]
    return groups


def _facts(rng: random.Random, known: list[Exchange], topics: Collection[str], held_out: bool) -> list[Exchange]:
    """Two things that any company might tell, and this one does not."""
    told = " ".join(exchange.answer.lower() for exchange in known)
    asked = {ask for exchange in known if exchange.kind == "fact" for ask in exchange.asks}
    rules = table("trades")[-1]["facts"]
    found: list[Exchange] = []
    for rule in rng.sample(rules, len(rules)):
        subject = _subject(rule["asks"])
        asks = wordings(rule["asks"], held_out)
        if subject and asks and asked.isdisjoint(asks) and not _told(subject, told):
            found.append(Exchange("no_fact", asks, _answer(rng, "fact", topics, subject=subject)))
            if len(found) == 2:
                break
    return found


@cache
def _subject(asks: str) -> str:
    """What a question is about, by its first wording; "" where nobody has said."""
    first = choices(asks)[0]
    return next((subject for key, subject in table("answers")["subjects"].items() if key in first), "")


def _told(subject: str, told: str) -> bool:
    """Whether what is told may well be about the subject: some word of it begins like one of the subject's."""
    return any(word[:5] in told for word in subject.split() if len(word) > 3)


def _answer(rng: random.Random, kind: str, topics: Collection[str], **fields: str) -> str:
    answers = table("answers")[f"no_{kind}"]
    if not topics:
        answers = [answer for answer in answers if "{topic}" not in answer]
    return pick(rng, answers, topic=rng.choice(sorted(topics)) if topics else "", **fields)
