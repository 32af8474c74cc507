"""Kinds of facts that may be told of any of many nouns, so that what is asked must be found by both.

Of goods they are in `texts/about.yaml`; in `texts/nouns.yaml` are those of what there is at a company's place
(`thing`), of people in somebody's life (`relation`) and of what somebody owns (`belonging`), each with its nouns.
"""

import random
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from training.goods import capital
from training.phrases import wordings
from training.texts import choices, table

_KINDS = 6
"""Kinds of facts that are told of one good: callers are spoken beforehand, and some should ask for each of them."""


@dataclass(frozen=True)
class Noun:
    """A noun that stands for `{field}` in what is told of it and how it is asked for."""

    field: str
    word: str

    @property
    def fields(self) -> dict[str, str]:
        """What texts are filled in with, also where the noun begins a sentence: `the pool`, `The pool`."""
        return {self.field: self.word, capital(self.field): capital(self.word)}

    def asks(self, told: dict[str, Any], held_out: bool = False) -> tuple[str, ...]:
        """What callers say to be told one kind of fact of it, in trained or held-out wordings."""
        return _asks(self, told["asks"], held_out)


@lru_cache(8192)
def _asks(noun: Noun, value: str, held_out: bool) -> tuple[str, ...]:
    return tuple(wording.format(**noun.fields) for wording in wordings(value, held_out))


@cache
def nouns(field: str) -> tuple[Noun, ...]:
    """All nouns of a field of `texts/nouns.yaml`."""
    return tuple(Noun(field, word) for word in choices(table("nouns")[field]["nouns"]))


def told_of_nouns(field: str) -> list[dict[str, Any]]:
    """The kinds of facts of such nouns, as in `texts/trades.yaml`."""
    facts: list[dict[str, Any]] = table("nouns")[field]["facts"]
    return facts


@cache
def told_of_good(word: str) -> tuple[dict[str, Any], ...]:
    """The kinds of facts that are told of one good, the same everywhere."""
    facts = table("about")
    return tuple(random.Random(f"about {word}").sample(facts, min(_KINDS, len(facts))))
