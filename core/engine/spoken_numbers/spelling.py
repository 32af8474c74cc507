"""The rules for numbers in a text, in their order.

People write `$4`, `12 Mill Lane`, `9-17` and `555-0123`; a small model reads words better than digits. What a figure
means follows from what stands around it, so each rule takes one form of writing; the order decides between them.
"""

import re
from itertools import groupby

from core.engine.spoken_numbers import codes, dates, days, hours, measures, prices
from core.engine.spoken_numbers.number_words import MOST_DIGITS, digit_by_digit, number_in_words
from core.engine.spoken_numbers.rule import NUMBER, rule

_WRITTEN_SHORT = re.compile(
    r"\d|[\u00bd\u2153\u2154\u00bc\u00be]|\b(?:mon|tue|wed|thu|fri|sat|sun)"
    r"|\b(?-i:Mo|Tu|We|Th|Fr|Sa|Su|PH)(?: off|[,/]| ?[-\u2010-\u2015])"
    r"|\b(?-i:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)\b\.? ?[-\u2010-\u2015]",
    re.IGNORECASE,
)
"""What every text has for which there is anything to do; most sentences have nothing of it."""


_SENTENCE_ENDS = re.compile(r"(?<=\n)|(?<=[a-z]{3}[.!?] )(?=[A-Z])(?!Mon|Tue|Wed|Thu|Fri|Sat|Sun)")
_LINE_ENDS = re.compile(r"(?<=\n)")


def spell_numbers(text: str) -> str:
    """The text with every number in words: `$4.50 at 9 am` is `four dollars and fifty cents at nine in the morning`.

    What has no digits any more stays as it is, so a spelled text can be spelled again.
    """
    if not _WRITTEN_SHORT.search(text):
        return text
    # No form of writing spans sentences, so that those without any cost nothing. In a quotation it matters where the
    # quotation marks stand.
    ends = _LINE_ENDS if '"' in text else _SENTENCE_ENDS
    pieces = groupby(ends.split(text), lambda piece: _WRITTEN_SHORT.search(piece) is not None)
    return "".join(_spelled("".join(piece)) if short else "".join(piece) for short, piece in pieces)


def _spelled(piece: str) -> str:
    for one in _RULES:
        piece = one.spell(piece)
    return piece


def _plain(found: re.Match[str]) -> str:
    number = found[0]
    if number.startswith("0") and len(number) > 1 and number.isdecimal():
        return digit_by_digit(number)
    return number_in_words(number)


def _vulgar(found: re.Match[str]) -> str:
    """`2½` is `2 1/2`."""
    before, after = found.string[max(0, found.start() - 1) : found.start()], found.string[found.end() : found.end() + 1]
    space = " " if before.isdecimal() else ""
    return f"{space}{_VULGAR[found[1]]}{' ' if after.isalpha() else ''}"


_VULGAR = {"\u00bd": "1/2", "\u2153": "1/3", "\u2154": "2/3", "\u00bc": "1/4", "\u00be": "3/4"}
_TIDY = (
    rule(rf"\d{{{MOST_DIGITS + 1},}}", lambda found: digit_by_digit(found[0])),
    rule(r"(?:(?<=\d)\s)?([\u00bd\u2153\u2154\u00bc\u00be])", _vulgar, " ".join(_VULGAR)),
    rule(r"(?<=\d)[\u00a0\u202f'\u2019](?=\d{3}(?!\d))", "", "\u00a0 \u202f ' \u2019"),
    rule(r"\b(\d\d?),(\d\d),(\d{3})\b(?!,\d)", r"\1\2\3", ","),
)
"""One way of writing for what is written in several ways; no number is longer than MOST_DIGITS afterwards."""
_LEFT_OVER = (
    rule(r"(?<![\w.])\.(?=\d)", "point ", "."),
    rule(r"(?<=\d),(?!\d{3}(?!\d))(?=\d)", ", ", ","),
    rule(r"(?<=\d):(?=\d(?!\d))", " to ", ":"),
    rule(r"(?<=\d):(?=\d)", " ", ":"),
    rule(r"\b([1-9]0)/(?=\1\b)", r"\1 ", "/"),
    rule(r"(?<=\d)/(?=\d)", " slash ", "/"),
    rule(r"(?<![\w.])[-\u2212](?=\d)", "minus ", "- \u2212"),
    rule(rf"{NUMBER}", _plain),
)
_RULES = (
    *_TIDY,
    *days.RULES,
    *hours.EARLY,
    *dates.DATES,
    *codes.PLACES,
    *prices.RULES,
    *hours.RULES,
    *prices.WITHOUT_CURRENCY,
    *codes.TELEPHONES,
    *dates.YEARS,
    *measures.RULES,
    *codes.LETTERS,
    *_LEFT_OVER,
)
"""Each form of writing and how it is said, in the order in which they are tried."""
