"""Numbers in words as Americans say them, without hyphens, commas and `and`; `num2words` writes them."""

import re

from num2words import num2words

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MOST_DIGITS = 15
"""A longer number is no amount."""


def number_in_words(number: str) -> str:
    """A number such as `120`, `1,200` or `2.5` in words, `one hundred twenty`; one that nobody says, digit by digit."""
    plain = number.replace(",", "")
    if len(plain) > MOST_DIGITS:
        return digit_by_digit(plain)
    return _without_marks(str(num2words(plain if "." in plain else int(plain), lang="en")))


def ordinal(number: str) -> str:
    """`21` is `twenty first`."""
    if len(number) > MOST_DIGITS:
        return digit_by_digit(number)
    return _without_marks(str(num2words(int(number), to="ordinal", lang="en")))


def year(number: str) -> str:
    """`1985` is `nineteen eighty five`."""
    return _without_marks(str(num2words(int(number), to="year", lang="en")))


def decade(number: str) -> str:
    """The years from a round number on: `1990` is `nineteen nineties`, `30` is `thirties`."""
    words = year(number) if len(number) > 2 else number_in_words(number)
    return f"{words.removesuffix('y')}ies" if words.endswith("y") else f"{words}s"


def digit_by_digit(group: str) -> str:
    """`0142` is `zero one four two`; what is no digit is left out."""
    return " ".join(_DIGITS[int(digit)] for digit in group if digit.isdecimal())


def hundredths(number: str) -> str:
    """Two digits after an hour or a price: `05` is `oh five`, and `00` is not said."""
    if not int(number):
        return ""
    return f" {'oh ' if int(number) < 10 else ''}{number_in_words(number)}"


def _without_marks(words: str) -> str:
    return re.sub(r"\band |[-,]", lambda found: " " if found[0] == "-" else "", words)
