"""Strangers' prompts, questions and lines, out of `training/held_out`: written by hand, for evaluation alone."""

from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from core.engine.spoken_numbers import number_in_words
from core.evaluation.words import amounts_of, mentions

FOLDER = Path(__file__).parent.parent / "held_out"
WORDINGS = 3
"""Ways in which each fact is asked for."""

FactKind = Literal["name", "price", "hours", "other"]
Style = Literal["service", "free"]
Author = Literal["first", "second", "third", "fourth"]
T = TypeVar("T")


class Fact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that a prompt says, ways of saying it, any of which is right, and ways of asking for it.

    In `says`, `&` joins what must all be said; a price is its amount, such as `2.50`, however it is spoken.
    """

    kind: FactKind
    says: tuple[str, ...]
    asks: tuple[str, ...]

    def right(self, said: str) -> bool:
        """Whether an answer holds the fact."""
        if self.kind == "price":
            return any(amount(price) in amounts_of(said) for price in self.says)
        return any(all(mentions(said, part) for part in way.split("&")) for way in self.says)


class Stranger(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A persona; `greeting` is what its teacher says in its place, with its name."""

    name: str
    prompt: str
    greeting: str
    facts: tuple[Fact, ...]
    style: Style = "service"


class Sum(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something to be calculated, and what its answer holds."""

    ask: str
    says: tuple[str, ...]


class Lines(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What callers say to any persona.

    `glad` are words of gladness, `not_glad` phrases with such words that show none; `unknown_says` is how somebody says
    that they do not know, `openers` how a greeting or a farewell begins. In a monologue `/` is a pause.
    """

    name: tuple[str, ...]
    unpleasant: tuple[str, ...]
    unknown: tuple[str, ...]
    unknown_says: tuple[str, ...]
    openers: tuple[str, ...]
    arithmetic: tuple[Sum, ...]
    glad: tuple[str, ...]
    not_glad: tuple[str, ...]
    talk: tuple[str, ...]
    everything: tuple[str, ...]
    goodbye: tuple[str, ...]
    backchannels: tuple[str, ...]
    monologues: tuple[str, ...]

    def is_glad(self, said: str) -> bool:
        """Whether an answer shows gladness, at which nobody with bad news can be glad."""
        return _holds(_without(said, self.not_glad), self.glad)

    def begins_anew(self, said: str) -> bool:
        """Whether somebody greets or takes leave."""
        return _holds(said, self.openers)

    def does_not_know(self, said: str) -> bool:
        """Whether an answer says that it has none."""
        return _holds(said, self.unknown_says)


def amount(price: str) -> tuple[str, str]:
    """A price such as `2.50` as `amounts_of` gives it: whole units and hundredths in words."""
    whole, _, hundredths = price.partition(".")
    words = number_in_words(hundredths) if hundredths else ""
    return (number_in_words(whole) if int(whole) else "", words)


def _holds(text: str, phrases: tuple[str, ...]) -> bool:
    return any(mentions(text, phrase) for phrase in phrases)


def _without(text: str, phrases: tuple[str, ...]) -> str:
    small = text.lower()
    for phrase in phrases:
        small = small.replace(phrase, " ")
    return small


def _read(name: str, kind: type[T]) -> T:
    return msgspec.yaml.decode((FOLDER / f"{name}.yaml").read_bytes(), type=kind)


@cache
def lines() -> Lines:
    """What strangers say beside asking for facts."""
    return _read("lines", Lines)


@cache
def strangers(author: Author = "first") -> tuple[Stranger, ...]:
    """All personas of an author, those with service roles first; each is also asked for its name, in wordings of its
    own.

    None but the first had read the training's texts or the others' personas.
    """
    service = _read(f"{author}/service_roles", tuple[Stranger, ...])
    free = _read(f"{author}/free_styles", tuple[Stranger, ...])
    free = tuple(msgspec.structs.replace(each, style="free") for each in free)
    named, names = [], lines().name
    for number, each in enumerate((*service, *free)):
        asks = tuple(names[(number * WORDINGS + way) % len(names)] for way in range(WORDINGS))
        facts = (Fact("name", (each.name,), asks), *each.facts)
        named.append(msgspec.structs.replace(each, facts=facts))
    return tuple(named)
