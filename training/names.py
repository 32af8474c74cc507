"""Names of people, companies and streets, real and invented; some are for evaluation only.

A checkpoint is to copy a name from its prompt, not to know it: there are many, and one in twenty is never trained on.
"""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from training.texts import table, words

_SIMPLE_ONSETS = tuple("bdfgklmnprstvz")
_ONSETS = (
    *_SIMPLE_ONSETS,
    *("h", "j", "w", "y", "br", "ch", "cl", "dr", "fl", "gr", "kr", "pr", "sh", "st", "th", "tr"),
)
_LABELS = ("Name", "Agent", "Persona", "Company", "Character")
"""What stands before names in prompts, and is nobody's."""
_VOWELS = "aaaeeiioou"
_ENDS = ("", "", "", "n", "r", "s", "l")


@dataclass(frozen=True)
class Person:
    """`name` as the prompt has it, and `first`, by which one introduces oneself."""

    name: str
    first: str


def is_held_out(name: str) -> bool:
    """Whether a first name, a surname or a company's own part (`Harlow`, `Blue Lantern`) is for evaluation only."""
    return zlib.crc32(name.encode()) % 20 == 0


def person(rng: random.Random, held_out: bool = False, title: str = "") -> Person:
    """Somebody, with a surname or without."""
    first = first_name(rng, held_out)
    if title:
        return Person(f"{title} {first}", f"{title} {first}")
    return Person(f"{first} {surname(rng, held_out)}" if rng.random() < 0.5 else first, first)


def first_name(rng: random.Random, held_out: bool = False) -> str:
    """A first name, two in five of them invented."""
    return _drawn(held_out, lambda: _invented(rng) if rng.random() < 0.4 else rng.choice(words("first_names")))


def surname(rng: random.Random, held_out: bool = False) -> str:
    """A surname, a quarter of them invented."""
    return _drawn(held_out, lambda: _invented(rng) if rng.random() < 0.25 else rng.choice(words("surnames")))


def coined(rng: random.Random, held_out: bool = False) -> str:
    """A name that is hardly anybody's: invented, or out of halves of two real ones."""
    return _drawn(held_out, lambda: _invented(rng) if rng.random() < 0.5 else _blended(rng))


def pair(rng: random.Random, held_out: bool = False) -> str:
    """What a company may be called: `Blue Lantern`."""
    return _drawn(held_out, lambda: f"{_place_word(rng, 'adjectives')} {_place_word(rng, 'nouns')}")


def possessive(owner: str) -> str:
    """`Harlow's`, but `Rivers`."""
    return owner if owner.endswith("s") else f"{owner}'s"


def company(rng: random.Random, trade: str, held_out: bool = False) -> str:
    """A company's name, such as `Harlow's Bakery`; `trade` is the word for what it does, `Bakery`."""
    kind = rng.randrange(10)
    if kind < 3:
        owner = surname(rng, held_out)
        return f"{possessive(owner) if kind else owner} {trade}"
    if kind == 3:
        return f"{surname(rng, held_out)} and {surname(rng, held_out)}"
    if kind < 6:
        made_up = _drawn(held_out, lambda: _invented(rng))
        return f"{made_up} {trade}" if rng.random() < 0.7 else made_up
    own = pair(rng, held_out)
    return f"The {own}" if rng.random() < 0.3 else f"{own} {trade}"


def road(rng: random.Random) -> str:
    """A street's name."""
    own = rng.choice((*table("places")["nouns"].split(), *words("surnames")[:100]))
    return f"{own} {_place_word(rng, 'roads')}"


def town(rng: random.Random) -> str:
    """A town's name."""
    return _place_word(rng, "towns")


def _drawn(held_out: bool, draw: Callable[[], str]) -> str:
    while is_held_out(name := draw()) != held_out or name in _LABELS:
        pass
    return name


def _place_word(rng: random.Random, kind: str) -> str:
    return rng.choice(_place_words(kind))


@cache
def _place_words(kind: str) -> tuple[str, ...]:
    return tuple(table("places")[kind].split())


def _invented(rng: random.Random) -> str:
    syllables = [rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.choice((1, 1, 1, 2)))]
    last = rng.choice(_SIMPLE_ONSETS) + rng.choice((*(vowel + rng.choice(_ENDS) for vowel in _VOWELS), "ia", "io"))
    return "".join((*syllables, last)).capitalize()


def _blended(rng: random.Random) -> str:
    begins, ends = _halves()
    return rng.choice(begins) + rng.choice(ends)


@cache
def _halves() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Begins and ends of real names, cut between a vowel and a consonant."""
    cuts = [
        (name[:place], name[place:])
        for name in (*words("first_names"), *words("surnames"))
        for place in range(2, len(name) - 1)
        if not is_held_out(name) and name[place - 1] in "aeiouy" and name[place] not in "aeiouy"
    ]
    return tuple(begin for begin, _ in cuts), tuple(end for _, end in cuts)
