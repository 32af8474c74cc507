"""Portraits: whole prompts of `texts/portraits/`, as people write them, with all that callers may ask because of each.

Other prompts are put together of single facts in many forms. Those that people write have things in common that no
such prompt has: several facts in a sentence, asides, what is clear without being said. Here they are written whole, and
drawn anew each time are the names, numbers and words in them, which statements stand there, and in which order.
"""

import random
import re
from calendar import month_name
from functools import cache
from itertools import cycle

import msgspec

from core.engine.spoken_numbers import spell_numbers
from training import names
from training.episodes import Episode, Exchange
from training.facts import DAYS, on_a_road
from training.goods import capital, with_articles
from training.numbers import price
from training.phrases import Groups, is_held_out, part, phrases, pick
from training.prompts import Style, Told, opening, role, written
from training.services import company_exchanges, company_greeting
from training.talks import person_episode
from training.texts import FOLDER, choices, table

_PROSE = 0.75
"""The share of portraits that stay prose; the others are lists."""
_LISTINGS = ("dashes", "stars", "dots", "numbers", "lines", "semicolons")
_OPENED = 0.35
"""Of portraits whose opening draws only names, the share that opens as any prompt may."""
_SHUFFLED = 0.3
"""How often statements come in another order than their author's."""
_WORDS = (30, 72)
"""Words of a prompt, numbers spelled: at least and at most, about."""
_OVER = 6
"""How many more it may have because of its last statement."""
_FACT, _UNTOLD = 2.8, 0.35
"""Weights of what is asked because of a statement, and of what is asked though its statement has been left out."""
_MOST_UNTOLD = 3
_LONGEST = 22
"""The most words of an answer: what takes longer to say, as both halves of a day with their hours do, is not asked."""
_SLOT = re.compile(r"\{(\w+)\}")
_CENTS = (25, 50, 50, 75, 80, 95, 99)


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that a statement tells: what the agent answers, and how callers ask, with ` / ` between wordings."""

    answer: str
    asks: str

    def wordings(self, held_out: bool = False) -> tuple[str, ...]:
        """How callers ask, as it can be spoken, in wordings of either part."""
        return _wordings(self.asks, held_out)


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sentence or two of a prompt, and what is asked because of it: nothing of an instruction."""

    text: str
    facts: tuple[Asked, ...] = ()


class Portrait(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A prompt: how it opens, and its statements. `{slots}` in both are filled as `draws` says.

    `role` is what kind of company it is, `a climbing gym`, or who the person is, `a retired pilot`; `companies`, last
    words of companies' names, separated by commas, is empty for a person who works for nobody.
    """

    role: str
    opening: str
    statements: tuple[Statement, ...]
    draws: dict[str, str] = {}
    companies: str = ""


@cache
def portraits(held_out: bool = False) -> tuple[Portrait, ...]:
    """All of them that are trained on, or the one in ten that is for evaluation only."""
    tables = [table(f"portraits/{path.stem}") for path in sorted((FOLDER / "portraits").glob("*.yaml"))]
    found = msgspec.convert([entry for entries in tables for entry in entries], tuple[Portrait, ...])
    return tuple(portrait for portrait in found if is_held_out(portrait.opening) == held_out)


@cache
def portrait_asks() -> tuple[tuple[str, ...], ...]:
    """The wordings of each fact that is trained on."""
    return tuple(
        fact.wordings() for portrait in portraits() for statement in portrait.statements for fact in statement.facts
    )


def portrait(rng: random.Random, held_out: bool = False) -> Episode:
    """Somebody out of a portrait, at work or not."""
    one = rng.choice(portraits(held_out))
    person = names.person(rng, held_out)
    company = names.company(rng, rng.choice(one.companies.split(", ")), held_out) if one.companies else ""
    own = {"name": person.name, "first": person.first, "company": company}
    fields = _drawn(rng, one, held_out) | own
    begin, late = _opening(rng, one, own, fields, held_out)
    texts = {statement: _filled(statement.text, fields) for statement in one.statements}
    told = _told(rng, texts, rng.randint(*_WORDS) - len(f"{begin} {late}".split()))
    left = [statement for statement in one.statements if statement not in told]
    if person.name not in " ".join((begin, late, *(texts[statement] for statement in told))):
        person = names.Person(person.first, person.first)
        own["name"] = fields["name"] = person.first
    listing = "prose" if rng.random() < _PROSE else rng.choice(_LISTINGS)
    entries = [Told(texts[statement]) for statement in told]
    prompt = written(rng, Style(listing, labelled=False, digits=True), begin, late, entries, [])
    groups = _asked(rng, told, left, fields, held_out)
    if not company:
        talks = table("talks")
        greeting = pick(rng, talks["greetings"], **own)
        return person_episode(rng, "portrait", prompt, person, greeting, groups, held_out, talks["help"])
    groups += [
        on_a_road(rng, fields[slot], held_out)
        for slot, kind in one.draws.items()
        if kind == "road" and f"{{{slot}}}" in one.opening
    ]
    kind, trade = _speakable(one.role), _speakable(one.role.partition(" ")[2])
    exchanges = company_exchanges(rng, groups, {**own, "kind": kind, "trade": trade}, held_out)
    if trade not in _speakable(prompt):
        exchanges = tuple(exchange for exchange in exchanges if trade not in exchange.answer)
    greeting = company_greeting(rng, own)
    return Episode(
        "portrait", prompt, person.name, person.first, company, greeting, exchanges, phrases("sorry", held_out)
    )


def _opening(
    rng: random.Random, one: Portrait, own: dict[str, str], fields: dict[str, str], held_out: bool
) -> tuple[str, str]:
    """How a prompt begins, as its author has it or as others may, and what it tells later, if anything."""
    if set(_SLOT.findall(one.opening)) - own.keys() or rng.random() >= _OPENED:
        return _filled(one.opening, fields), ""
    if not one.companies:
        return opening(rng, "person_openings", held_out, **own, role=one.role, Role=capital(one.role))
    roles = {"kind": one.role, "trade": one.role.partition(" ")[2], **role(rng, one.role)}
    return opening(rng, "openings", held_out, **own, **roles)


def _asked(
    rng: random.Random, told: list[Statement], left: list[Statement], fields: dict[str, str], held_out: bool
) -> Groups:
    """What is asked because of what is told, and a little of what has been left out, in vain."""
    groups: Groups = [
        (_FACT, (Exchange("fact", fact.wordings(held_out), answer),))
        for statement in told
        for fact in statement.facts
        if len((answer := capital(_speakable(_filled(fact.answer, fields)))).split()) <= _LONGEST
    ]
    untold = [fact for statement in left for fact in statement.facts]
    refusals = table("answers")["no_answer"] if fields["company"] else table("talks")["no_fact"]
    return groups + [
        (_UNTOLD, (Exchange("no_fact", fact.wordings(held_out), pick(rng, refusals)),))
        for fact in rng.sample(untold, min(_MOST_UNTOLD, len(untold)))
    ]


def _told(rng: random.Random, texts: dict[Statement, str], words: int) -> list[Statement]:
    """Statements of about so many words, of which one at least answers something."""
    order = sorted(texts, key=lambda statement: (not statement.facts) * 0.3 + rng.random())
    told: list[Statement] = []
    for statement in order:
        size = len(texts[statement].split())
        if size <= words + _OVER or (statement.facts and not any(one.facts for one in told)):
            told.append(statement)
            words -= size
    return told if rng.random() < _SHUFFLED else [statement for statement in texts if statement in told]


def _filled(text: str, fields: dict[str, str]) -> str:
    """The text with its slots filled, numbers in words, and the articles that go with them: `an eleven course menu`."""
    return with_articles(spell_numbers(text.format(**fields)))


@cache
def _wordings(asks: str, held_out: bool) -> tuple[str, ...]:
    return part(tuple(dict.fromkeys(_speakable(ask) for ask in choices(asks))), held_out)


def _speakable(text: str) -> str:
    """A line without what nobody pronounces: hyphens, and marks that only a reader sees."""
    for mark, spoken in (("-", " "), ("!", "."), (";", ","), (":", ","), ('"', ""), ("...", ",")):
        text = text.replace(mark, spoken)
    return " ".join(text.split())


def _drawn(rng: random.Random, portrait: Portrait, held_out: bool) -> dict[str, str]:
    """What slots are filled with, days and months all different. Raises ValueError for an unknown kind of draw."""
    days, months = (cycle(rng.sample(those, len(those))) for those in (DAYS, month_name[1:]))
    found = {}
    for slot, kind in portrait.draws.items():
        match kind:
            case "day":
                found[slot] = next(days)
            case "month":
                found[slot] = next(months)
            case _:
                found[slot] = rng.choice(choices(kind)) if " / " in kind else _one(rng, kind, held_out)
    return found


def _one(rng: random.Random, kind: str, held_out: bool) -> str:
    """Something of a kind of `texts/portraits/README.md`."""
    name, _, span = kind.partition(" ")
    low, high = (int(bound) for bound in span.split("-")) if span else (1, 199)
    if name in ("am", "pm") and high < low:
        high += 12
    number = rng.randint(low, high)
    match name:
        case "money":
            return price(number)
        case "cents":
            return price(number, rng.choice(_CENTS))
        case "number" | "house":
            return str(number)
        case "am" | "pm":
            return f"{(number - 1) % 12 + 1}{rng.choice(('', '', '', ':30'))} {name}"
        case "first":
            return names.first_name(rng, held_out)
        case "surname":
            return names.surname(rng, held_out)
        case "person":
            return f"{names.first_name(rng, held_out)} {names.surname(rng, held_out)}"
        case "road":
            return names.road(rng)
        case "town":
            return names.town(rng)
        case "phone":
            return f"555-{rng.randint(0, 9999):04d}"
        case _:
            raise ValueError(f"{kind!r} is no kind of draw")
