"""Telephone numbers, house and room numbers, and letters with digits: `555-0134`, `Apt 4B`, `BA249`, `No. 12`."""

import re

from core.engine.spoken_numbers.number_words import digit_by_digit, number_in_words
from core.engine.spoken_numbers.rule import TO, rule

_PLACES = {"apt": "apartment", "ste": "suite", "rm": "room", "bldg": "building", "rte": "route", "hwy": "highway"}
_PLACE = (
    "apt|apartment|suite|ste|room|rm|unit|gate|flat|bus|line|platform|seat|row|bldg|building|block|house|lot|tram|track"
    "|section|level|floor|wing|rte|hwy|route|highway|grade|class"
)


def _telephone(found: re.Match[str]) -> str:
    groups = re.findall(r"\d+", found[0])
    plus = "plus " if found[0].lstrip("( ").startswith("+") else ""
    rest = ", " if found[0].endswith("-") else ""
    return plus + ", ".join(digit_by_digit(group) for group in groups) + rest


def _place(found: re.Match[str]) -> str:
    """`Apt. 4B` is `apartment four B`."""
    word = found[1]
    long = _PLACES.get(word.lower(), word)
    place = long.capitalize() if word[0].isupper() else long
    return f"{place} {found[2]}{' ' if found[3] else ''}{found[3]}"


def _digits(found: re.Match[str]) -> str:
    return digit_by_digit(found[0])


def _letters_and_digits(found: re.Match[str]) -> str:
    """`B12` is `B twelve`, `BA249` and `A05` are said digit by digit, since longer ones are codes."""
    letters, digits, rest = found.groups()
    code = len(digits) > 2 or digits.startswith("0")
    return " ".join(filter(None, (letters, digit_by_digit(digits) if code else number_in_words(digits), rest)))


def _dotted(found: re.Match[str]) -> str:
    """`1.2.3`."""
    space = " " if found.string[max(0, found.start() - 1) : found.start()].isalpha() else ""
    return space + " point ".join(number_in_words(part) for part in found[0].split("."))


PLACES = (
    rule(rf"\b({_PLACE})\b\.? ?#?(\d{{1,5}})([a-z]?)\b", _place, needs=r"[a-z]\.? ?#?\d"),
    rule(r"(?:#|\bno\. ?|\bnr\. ?|\u2116 ?)(?=\d)", "number "),
    rule(r"\bnos\. ?(?=\d)", "numbers "),
)
"""Places; they are tried before prices, since `flat 5c` costs nothing."""
TELEPHONES = (
    rule(r"(?<![\w+])\+\d{1,3}(?:[ .\-/]?\(?\d{1,8}\)?){1,6}\b(?! ?[%$\u20ac])", _telephone, "+"),
    rule(r"\(\d{2,5}\)[ \-]?\d{3,4}(?:[ \-]\d{2,5}){0,4}\b", _telephone, "("),
    rule(r"\(\d{3}\) ?\d{3}-(?=[a-z])|\b1-\d{3}-(?=[a-z])", _telephone, "-"),
    rule(r"\b1[ .\-]\d{3}[ .\-]\d{3}[ .\-]\d{4}\b", _telephone),
    rule(
        r"\b\d{3}[ .\-]\d{3}[ .\-]\d{4}\b|\b\d{3}[ .\-]\d{4}\b|\b0\d{2,4}[ \-/]\d{3,8}(?:[ \-]\d{2,5}){0,4}\b"
        r"|\b0\d(?:[ .]\d\d){4}\b",
        _telephone,
    ),
    rule(r"\b\d{1,4}(?:-\d{1,5}){2,6}\b", _telephone, "-"),
    rule(r"(?=\d)(?:\b911\b|(?:(?<=call )|(?<=dial )|(?<=ring )|(?<=text ))\d{3,6}\b(?! [a-z]+s\b))", _digits),
    rule(
        r"(?=\d)(?:(?<=pin )|(?<=code )|(?<=code is )|(?<=pin is )|(?<=pin: )|(?<=code: )|(?<=zip )|(?<=word is ))"
        r"\d{3,12}\b",
        _digits,
    ),
    rule(r"(?-i:(?<=\b[A-Z]{2} ))\d{5}(?:-\d{4})?\b", _telephone),
    rule(r"\bext\.? ?(?=\d)", "extension "),
    rule(r"(?<![\d.,])\d{7,}(?<!000)(?![.,]?\d)", _digits),
)
LETTERS = (
    rule(r"(?<![\d.])\d+(?:\.\d+){2,}", _dotted, "."),
    rule(rf"\b([a-z]\d{{1,4}}){TO}(?=[a-z]\d)", r"\1 to "),
    rule(rf"\b(\d{{1,4}}[a-z]){TO}(?=\d{{1,4}}[a-z]\b)", r"\1 to "),
    rule(r"\b([a-z]{1,3})(\d+)([a-z]?)\b", _letters_and_digits),
    rule(r"\b()(\d+)([a-z])\b", _letters_and_digits),
    rule(r"(?<=[a-z])-?(?=\d)|(?<=\d)-?(?=[a-z])", " "),
)
"""What is left of letters and digits; they are tried last."""
