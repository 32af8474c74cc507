"""Prompts as people write them: how they begin, how they list what one should know, and what else they say.

A prompt is written as people write, half of them with digits, and then spelled as the engine spells it for the model.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from core.engine.spoken_numbers import spell_numbers
from training import names
from training.phrases import is_held_out
from training.texts import choices, table

LISTINGS = {
    "prose": 0.4,
    "dashes": 0.09,
    "stars": 0.06,
    "dots": 0.04,
    "numbers": 0.05,
    "semicolons": 0.08,
    "headings": 0.07,
    "questions": 0.09,
    "labels": 0.12,
}
"""Ways of listing facts in one line, and their shares."""
_MARKS = {"dashes": "-", "stars": "*", "dots": "\u2022", "headings": "#"}
_LABELLED = {"labels": 1.0, "prose": 0.1, "questions": 0.0}
"""How often facts stand under labels (`Hours: 9-17`) instead of in sentences; in the other listings, half of them."""
_FILLERS = {0: 0.34, 1: 0.28, 2: 0.2, 3: 0.1, 5: 0.08}
"""How many sentences that no caller asks about stand between the facts: many in a chatty prompt."""


MOST_WORDS = 72
"""A prompt with as many words gets no sentences besides: it takes half of a short training conversation."""


@dataclass(frozen=True)
class Style:
    """How a prompt is written: a listing out of LISTINGS, facts under labels or in sentences, with digits or words."""

    listing: str
    labelled: bool
    digits: bool


@dataclass(frozen=True)
class Told:
    """What a prompt tells, with its full stop. `topic`, what it is about (`our hours`), is empty where nothing says."""

    text: str
    topic: str = ""


def style(rng: random.Random) -> Style:
    """One way of writing."""
    (listing,) = rng.choices(tuple(LISTINGS), tuple(LISTINGS.values()))
    return Style(listing, rng.random() < _LABELLED.get(listing, 0.5), rng.random() < 0.5)


def opening(rng: random.Random, kind: str, held_out: bool, /, **fields: str) -> tuple[str, str]:
    """How a prompt begins, and what it tells later, if anything; `kind` as in `texts/prompts.yaml`.

    One opening in ten is for evaluation only. A kind that has none of those begins like any other.
    """
    openings = table("prompts")[kind]
    fitting = [text for text in openings if is_held_out(text) == held_out] or openings
    begin, _, late = rng.choice(fitting).format(**fields).partition(" | ")
    return begin, late


def role(rng: random.Random, kind: str) -> str:
    """What somebody is called who answers the phone of a company of this kind."""
    roles = table("prompts")["roles"]
    return rng.choice(choices(roles.get(kind, roles["any"])))


def fillers(rng: random.Random, kind: str = "instructions", asides: str = "") -> list[Told]:
    """Sentences that answer no question: `kind` tells which instructions; `asides` of what kind, or "" for none."""
    (count,) = rng.choices(tuple(_FILLERS), tuple(_FILLERS.values()))
    texts = list(choices(table("prompts")[kind]))
    if asides:
        texts += choices(table("prompts")[asides])
    fields = {"year": str(rng.randint(1890, 2022)), "count": str(rng.randint(2, 40)), "town": names.town(rng)}
    return [Told(text.format(**fields)) for text in rng.sample(texts, count)]


def written(rng: random.Random, style: Style, begin: str, late: str, told: Sequence[Told], more: list[Told]) -> str:
    """The whole prompt, spelled: the beginning, what it tells with `more` in between, and what comes `late`."""
    entries = list(told)
    room = MOST_WORDS - sum(len(text.split()) for text in (begin, late, *(one.text for one in told)))
    room -= 3 * sum(len(re.findall(r"\d+", one.text)) for one in told)
    for filler in more:
        room -= len(filler.text.split()) + 1
        if room < 0:
            break
        entries.insert(rng.randint(0, len(entries)), filler)
    if late and style.listing in ("prose", "semicolons", "questions") and rng.random() < 0.5:
        entries.insert(rng.randint(0, len(entries)), Told(late))
        late = ""
    lead = ""
    if entries and not begin.endswith(("Information:", "Information", "know:")) and style.listing != "prose":
        lead = rng.choice(("", *choices(table("prompts")["leads"])))
    parts = (begin, lead, _listed(rng, style.listing, entries), late)
    return spell_numbers(" ".join(filter(None, parts)))


def _listed(rng: random.Random, listing: str, entries: list[Told]) -> str:
    texts = [entry.text for entry in entries]
    bare = [text.removesuffix(".") for text in texts]
    if listing in _MARKS:
        return " ".join(f"{_MARKS[listing]} {text}" for text in (bare if listing == "dashes" else texts))
    if listing == "numbers":
        mark = rng.choice((".", ")"))
        return " ".join(f"{number}{mark} {text}" for number, text in enumerate(texts, 1))
    if listing == "semicolons" and bare:
        return f"{'; '.join(bare)}."
    if listing == "questions":
        ask = rng.choice(("If asked about {}, say: {}", "When somebody asks about {}, tell them: {}", "About {}: {}"))
        return " ".join(ask.format(entry.topic, entry.text) if entry.topic else entry.text for entry in entries)
    return " ".join(texts)
