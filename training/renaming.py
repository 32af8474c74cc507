"""Conversations about somebody else: other names, numbers, days and towns in the texts of lines that are spoken.

The spoken personas are few, and come so often that a model would know their names instead of reading its prompt. To
rename a conversation costs nothing. Each word gives way to one word, for a name to one about as long, so that the
seconds at which words begin still hold. What is heard then differs from the text, and is not to be learned.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from random import Random

from training import names
from training.episodes import Episode
from training.texts import table

RENAMED = 0.5
"""The share of conversations that are renamed; in the others every persona is heard as itself."""
COINED = 0.67
"""How many of the new names are nobody's, but made up; of the others too, some are."""
CANDIDATES = 4
"""So many names are drawn for one; the nearest in length is taken."""

_KEPT = frozenset(("and", "Captain", "Professor", "Old", "Mr", "Mrs", "Ms", "Dr", "Doctor"))
_NUMBERS = (
    "two three four five six seven eight nine",
    "ten eleven twelve",
    "thirteen fourteen fifteen sixteen seventeen eighteen nineteen",
    "twenty thirty forty fifty",
    "sixty seventy eighty ninety",
)
"""Numbers that may stand for each other, as hours, as minutes and as prices. One has a singular of its own."""
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
_OTHERS = re.compile(r"\b(?:Doctor|Dr\.|manager is) ([A-Z]\w+)")
"""People who are told about by surname."""
_LABELS = ("name", "Name", "Agent", "Persona", "Company", "Character", "are")
_WITHIN = rf"(?:(?<=[\w,] )|(?<=Dr\. )|{'|'.join(f'(?<={label}: )' for label in _LABELS)})"
"""Where a word with a capital is a name: not where a sentence begins."""
_BEGINNING = r"(?= from | is | out\.|, (?:[A-Z]\w* )+speaking)"
"""What follows a name with which a sentence begins, and hardly a word that looks like one (`Will`, `May`, `Sure`)."""
_WORD_END = r"(?! one one| tired)(?=s?\b)"
"""Not the nine of an emergency call, nor the two of a joke; but the day of `Mondays`."""


@dataclass(frozen=True)
class Renaming:
    """What stands for what in one conversation."""

    pattern: re.Pattern[str]
    new: dict[str, str]

    def __call__(self, text: str) -> str:
        """The text with the new names, word for word."""
        return self.pattern.sub(lambda found: self.new[found[0]], text)


@dataclass(frozen=True)
class _Replaceable:
    """What can be replaced in an episode: surnames of others, and words together with all that may stand for them."""

    pattern: re.Pattern[str]
    surnames: tuple[str, ...]
    words: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]


def renaming(rng: Random, episode: Episode) -> Renaming | None:
    """Other names for an episode, none of them held out, with other numbers; None where it has nothing to replace."""
    replaceable = _replaceable(episode)
    new: dict[str, str] = {}
    for found, alike in replaceable.words:
        new |= zip(found, rng.sample(alike, len(found)), strict=True)
    for surname in replaceable.surnames:
        new[surname] = _other(rng, surname, names.surname)
    if episode.company:
        company = episode.company.removeprefix("The ")
        new[company] = _other_company(rng, company)
    if episode.name:
        person = _other_person(rng, episode.name)
        new[episode.name] = " ".join(person)
        new[episode.first] = " ".join(person[: len(episode.first.split())])
    return Renaming(replaceable.pattern, new) if new else None


@cache
def _replaceable(episode: Episode) -> _Replaceable:
    """Numbers, days and towns are the prompt's own, and none that a caller says aloud, whose sound would not change."""
    told = _words_of(episode.prompt) - _heard(episode.repeats)
    for exchange in episode.exchanges:
        told -= _heard(exchange.asks)
    # With digits in the prompt its numbers are not spelt as they are spoken.
    numbers = () if re.search(r"\d", episode.prompt) else _NUMBERS
    kinds = [tuple(kind.split()) for kind in (*numbers, _DAYS, table("places")["towns"])]
    words = tuple((found, kind) for kind in kinds if (found := tuple(word for word in kind if word in told)))
    surnames = tuple(dict.fromkeys(_OTHERS.findall(episode.prompt)))
    phrases = {episode.name, episode.first, episode.company.removeprefix("The ")} - {""}
    long = sorted((phrase for phrase in phrases if " " in phrase), key=len, reverse=True)
    short = "|".join((*phrases.difference(long), *surnames))
    parts = (
        rf"\b(?:{'|'.join(map(re.escape, long))})(?!\w)" if long else "",
        rf"{_WITHIN}(?:{short})\b|\b(?:{short}){_BEGINNING}" if short else "",
        rf"\b(?:{'|'.join(chain.from_iterable(found for found, _ in words))}){_WORD_END}" if words else "",
    )
    return _Replaceable(re.compile("|".join(filter(None, parts))), surnames, words)


@cache
def _heard(asks: tuple[str, ...]) -> frozenset[str]:
    """The words of many wordings, which episodes share."""
    return frozenset(_words_of(" ".join(asks)))


def _words_of(text: str) -> set[str]:
    words = re.findall(r"\w+", text)
    return {*words, *(word.removesuffix("s") for word in words)}


def _other(rng: Random, old: str, real: Callable[[Random], str]) -> str:
    """A name about as long as the old one: made up, or a `real` one."""
    return _nearest(old, lambda: names.coined(rng) if rng.random() < COINED else real(rng))


def _nearest(old: str, draw: Callable[[], str]) -> str:
    lengths = [len(word) for word in old.split()]

    def distance(name: str) -> int:
        return sum(abs(len(word) - length) for word, length in zip(name.split(), lengths, strict=True))

    return min((draw() for _ in range(CANDIDATES)), key=distance)


def _other_person(rng: Random, name: str) -> list[str]:
    """The words of another name, with the same title."""
    person: list[str] = []
    real = names.first_name
    for word in name.split():
        if word.rstrip(".") in _KEPT:
            person.append(word)
        else:
            person.append(_other(rng, word, real))
            real = names.surname
    return person


def _other_company(rng: Random, company: str) -> str:
    """Another company of the same trade; `company` is without its `The`."""
    parts = _own_part_and_trade().fullmatch(company)
    assert parts is not None  # noqa: S101  # The own part may be anything.
    own, trade = parts[1].split(), parts[2] or ""
    if len(own) == 2:
        return _nearest(parts[1], lambda: names.pair(rng)) + trade
    return " ".join(word if word in _KEPT else _other_owner(rng, word) for word in own) + trade


def _other_owner(rng: Random, word: str) -> str:
    owner = _other(rng, word.removesuffix("'s"), names.surname)
    return names.possessive(owner) if word.endswith("'s") else owner


@cache
def _own_part_and_trade() -> re.Pattern[str]:
    """Parts a company's name (`Harlow's`, ` Wash House`), the trade as long as it can be."""
    trades = {word for trade in table("trades") for word in trade.get("companies", "").split(", ") if word}
    return re.compile(rf"(.+?)( (?:{'|'.join(map(re.escape, sorted(trades)))}))?")
