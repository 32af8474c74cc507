"""Things that a company sells or does, with their prices, and the right grammar."""

import random
import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from training import numbers
from training.texts import table

_PREPOSITIONS = (" of ", " to ", " with ", " in ", " for ", " at ")
_SPOKEN_AS_VOWELS = ("hour", "honest", "x ray", "8", "English", "Italian", "Arabic")
_SPOKEN_AS_CONSONANTS = ("use", "usual", "uti", "eu", "once", "uni", "ukulele", "urine", "one")
_CENTS = (50, 50, 50, 25, 75, 20, 80)


@dataclass(frozen=True)
class Good:
    """`word` as counted: `one` (plum cake), `many` (cinnamon rolls) or `some` (rye bread). `price` has digits.

    `unit` is what the price is for, `a night`, where that is not the thing itself.
    """

    word: str
    count: str
    price: str
    unit: str = ""

    @property
    def subject(self) -> str:
        """With its article, if it has one: `a plum cake`."""
        return f"{article(self.word)} {self.word}" if self.count == "one" else self.word

    @property
    def plural(self) -> str:
        """As something that one has in stock: `plum cakes`."""
        if self.count != "one":
            return self.word
        mark = next((word for word in _PREPOSITIONS if word in self.word), "\0")
        head, mark, rest = self.word.partition(mark)
        return f"{_plural(head)}{mark}{rest}"

    @property
    def tell(self) -> str:
        """The prompt's statement, without the full stop: `a plum cake costs 12 dollars`."""
        return f"{self.subject} {self.costs} {self.price}{self.each}"

    @property
    def costs(self) -> str:
        """The verb, for a price."""
        return "cost" if self.count == "many" else "costs"

    @property
    def be(self) -> str:
        """`is` or `are`."""
        return "are" if self.count == "many" else "is"

    @property
    def each(self) -> str:
        """What follows the price: of a thing of many, or of what is not sold as a whole."""
        return f" {self.unit}" if self.unit else " each" if self.count == "many" else ""


@dataclass(frozen=True)
class Offer:
    """A good without a price, and between what its price is."""

    good: Good
    lowest: int
    highest: int

    def priced(self, rng: random.Random, currency: str) -> Good:
        """It with a price drawn anew, in a currency (in the plural)."""
        return replace(self.good, price=_price(rng, self.lowest, self.highest, currency))


def some_goods(rng: random.Random, trade: dict[str, Any], count: int, currency: str) -> tuple[Good, ...]:
    """Goods of a trade with prices drawn anew, in a currency (in the plural); at most `count` of them."""
    there = offers(trade)
    return tuple(offer.priced(rng, currency) for offer in rng.sample(there, min(count, len(there))))


def offers(trade: dict[str, Any]) -> tuple[Offer, ...]:
    """Every good of a trade."""
    return tuple(
        Offer(Good(word, kind, ""), *prices)
        for kind in ("one", "many", "some")
        for word, prices in trade.get(kind, {}).items()
    )


def words_of(text: str) -> set[str]:
    """The words in a text, plain, as of one thing: those of `Plum cakes.` are `plum` and `cake`."""
    return {word.removesuffix("s") for word in re.findall(r"[a-z']+", text.lower())}


def resemble(one: Good, other: Good) -> bool:
    """Whether one name may mean the other too, as `pizza` means a large one: its words are all in the other's."""
    words, others = words_of(one.word), words_of(other.word)
    return words <= others or others <= words


@cache
def all_goods() -> tuple[Good, ...]:
    """Every good of every trade, without a price."""
    return tuple(good for trade in table("trades") for good in goods_of(trade))


def goods_of(trade: dict[str, Any]) -> tuple[Good, ...]:
    """Every good of a trade, without a price."""
    return tuple(offer.good for offer in offers(trade))


def article(word: str) -> str:
    """`a` or `an`, as the word sounds."""
    vowel = word[0] in "aeiou" or word.startswith(_SPOKEN_AS_VOWELS)
    return "an" if vowel and not word.startswith(_SPOKEN_AS_CONSONANTS) else "a"


def with_articles(text: str) -> str:
    """The text with each `a` as the word after it sounds: `an orange hat`."""
    return re.sub(r"\b([Aa])(?= (\w+))", lambda found: f"{found[1]}{article(found[2])[1:]}", text)


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[0].upper() + text[1:]


def money(rng: random.Random, currency: str) -> str:
    """Some price."""
    return _price(rng, 2, 60, currency)


def _price(rng: random.Random, lowest: int, highest: int, currency: str) -> str:
    amount = rng.randint(lowest, highest)
    if amount > 60:
        amount -= amount % 5
    cents = rng.choice(_CENTS) if amount < 20 and currency in ("dollars", "euros") and rng.random() < 0.35 else 0
    return numbers.price(amount, cents, currency)


def _plural(word: str) -> str:
    if word.endswith(("s", "x", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    if word.endswith(("lf", "rf", "oaf")):
        return f"{word[:-1]}ves"
    if word.endswith("knife"):
        return f"{word[:-2]}ves"
    if word.endswith("man"):
        return f"{word[:-2]}en"
    return f"{word}s"
