"""What was said and what was heard of it, word by word."""

import re
from collections.abc import Sequence

from core.engine.spoken_numbers import number_in_words, spell_numbers

SPELLINGS = {"ok": "okay", "mr": "mister", "mrs": "missis", "dr": "doctor", "til": "until", "goodbye": "good bye"}

_SMALL = "|".join(number_in_words(str(number)) for number in reversed(range(100)))
_HUNDREDS = rf"(?:(?:{_SMALL}) hundred(?: (?:and )?(?:{_SMALL}))?|{_SMALL})"
NUMBER = re.compile(rf"\b{_HUNDREDS}(?: thousand(?: (?:and )?{_HUNDREDS})?)?\b")
"""A number in words, such as `one hundred and twenty`."""
_TENS = "|".join(number_in_words(str(number)) for number in reversed(range(10, 100)))
AMOUNT = re.compile(
    rf"\b(?P<small>{_SMALL}) (?:cents?|pence)\b"
    rf"|(?P<whole>{NUMBER.pattern})(?: (?:dollars?|euros?|pounds?|bucks?))?(?:(?: and)? (?P<hundredths>{_TENS})\b)?"
)
"""A price in words, or any other number."""


def words_of(text: str) -> list[str]:
    """The words of a text as they sound: small, numbers spelt out, no marks."""
    text = re.sub(r"\b([ap])\.m\b\.?", r"\1m", text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").replace("-", " "))
    spoken = re.findall(r"[a-z0-9']+", spell_numbers(text).lower())
    return " ".join(SPELLINGS.get(word, word) for word in spoken).split()


def word_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """How many words must be put in, taken out or replaced to make what was heard out of what was said."""
    row = list(range(len(heard) + 1))
    for number, word in enumerate(said, 1):
        above = row
        row = [number]
        for column, other in enumerate(heard, 1):
            row.append(min(above[column] + 1, row[-1] + 1, above[column - 1] + (word != other)))
    return row[-1]


def mentions(text: str, name: str) -> bool:
    """Whether a text holds a name or a number, word for word; a number is one word, so 32 is no mention of 2."""
    return f" {_joined(name)} " in f" {_joined(text)} "


def numbers_of(text: str) -> list[str]:
    """The numbers of a text in words, each whole: `one hundred twenty`."""
    return [_plain(number) for number in NUMBER.findall(" ".join(words_of(text)))]


def amounts_of(text: str) -> list[tuple[str, str]]:
    """What a text may say of prices, each as whole units and hundredths in words.

    `two dollars and fifty cents`, `$2.50` and `two fifty` are ("two", "fifty"), `fifty cents` is ("", "fifty").
    """
    found = []
    for amount in AMOUNT.finditer(" ".join(words_of(text))):
        whole, hundredths, small = amount["whole"], amount["hundredths"], amount["small"]
        found.append(("", _plain(small)) if small else (_plain(whole), _plain(hundredths or "")))
    return found


def _plain(number: str) -> str:
    return number.replace(" and ", " ")


def _joined(text: str) -> str:
    """The words of a text, those of each number joined by hyphens."""
    spoken = " ".join(words_of(text))
    return NUMBER.sub(lambda found: _plain(found[0]).replace(" ", "-"), spoken)


class WordErrors:
    """Adds up a word error rate."""

    def __init__(self) -> None:
        self.errors = self.words = 0

    def add(self, said: str, heard: str) -> None:
        """Count one text against what was heard of it."""
        words = words_of(said)
        self.errors += word_errors(words, words_of(heard))
        self.words += len(words)

    @property
    def rate(self) -> float | None:
        """Errors to each word that was said; None where none was."""
        return self.errors / self.words if self.words else None
