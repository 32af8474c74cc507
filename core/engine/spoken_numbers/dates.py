"""Dates, years and decades: `Dec 24th`, `12/24`, `24.12.2026`, `2026-12-24`, `since 1987`, `the 1990s`."""

import re

from core.engine.spoken_numbers.number_words import decade, number_in_words, ordinal, year
from core.engine.spoken_numbers.rule import TO, rule

_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_MONTH = (
    r"(?:(?-i:May|March|Mar|MAY|MARCH|MAR)|january|february|april|june|july|august|september|october|november|december"
    r"|jan|feb|apr|jun|jul|aug|sept|sep|oct|nov|dec)(?![a-z])"
)
_SHORT_MONTH = r"(?-i:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec)(?![a-z])"
_MONTH_MARKS = " ".join(f"{month[:3]} {month[:3].lower()} {month[:3].upper()}" for month in _MONTHS)
_YEAR = r"(?:1[5-9]|20)\d\d"
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_BEFORE_A_DATE = (
    r"\b(on|by|until|till?|since|from|before|after|closed|starting|starts|begins|ends|ending|due|date:?|(?:mon|tues"
    r"|wednes|thurs|fri|satur|sun)day,?)"
)
_BEFORE_A_YEAR = "|".join(
    rf"(?<=\b{word} )"
    for word in ("in", "since", "from", "of", "year", "until", "founded", "established", "built", "est", "est.")
)
_NOT_COUNTED = r"(?! (?!was\b|is\b|has\b|as\b|its\b|this\b|always\b|class\b|season)[a-z]+s\b| people\b| square\b|\d)"
"""A number of four digits before a plural says how many."""


def _month(name: str) -> str:
    return next(month for month in _MONTHS if month.lower().startswith(name.lower()[:3]))


def _spoken(month: str, day: str, last_day: str | None = None, in_year: str | None = None) -> str:
    """`December twenty fourth to twenty sixth, twenty twenty six`; `month` is a name."""
    to_day = f" to {ordinal(last_day)}" if last_day else ""
    return f"{month} {ordinal(day)}{to_day}{f', {year(in_year)}' if in_year else ''}"


def _is_date(month: str, day: str) -> bool:
    return 1 <= int(month) <= 12 and 1 <= int(day) <= 31


def _full_year(written: str | None) -> str | None:
    return f"20{written}" if written and len(written) == 2 else written


def _of_numbers(found: re.Match[str], month: str, day: str, in_year: str | None = None) -> str:
    if not _is_date(month, day):
        month, day = day, month
    if not _is_date(month, day):
        return found[0]
    return _spoken(_MONTHS[int(month) - 1], day, in_year=_full_year(in_year))


def _iso_date(found: re.Match[str]) -> str:
    if not _is_date(found[2], found[3]):
        return found[0]
    return _spoken(_MONTHS[int(found[2]) - 1], found[3], in_year=found[1])


def _month_first(found: re.Match[str]) -> str:
    """`12/24/2026`, as Americans write it, unless there is no such month."""
    return _of_numbers(found, found[1], found[2], found[3])


def _day_first(found: re.Match[str]) -> str:
    """`24.12.2026`, as Europeans write it."""
    return _of_numbers(found, found[2], found[1], found[3])


def _in_month(found: re.Match[str], month: str, day: str, last_day: str | None, in_year: str | None) -> str:
    """A date whose `month` is written as a word, unless no month has so many days."""
    return _spoken(_month(month), day, last_day, in_year) if max(int(day), int(last_day or 0)) <= 31 else found[0]


def _month_and_day(found: re.Match[str]) -> str:
    month, day, last_day, in_year = found.groups()
    return _in_month(found, month, day, last_day, in_year)


def _day_and_month(found: re.Match[str]) -> str:
    day, last_day, month, in_year = found.groups()
    return _in_month(found, month, day, last_day, in_year)


def _after_a_word(found: re.Match[str]) -> str:
    said = _of_numbers(found, found[2], found[3])
    return said if said == found[0] else f"{found[1]} {said}"


def _sure(found: re.Match[str]) -> str:
    """`12/24`: one of the numbers is too large for a month, so that the other is one."""
    one, other = int(found[1]), int(found[2])
    return _of_numbers(found, found[1], found[2]) if max(one, other) > 12 else found[0]


def _two_dates(found: re.Match[str]) -> str:
    first, last = _of_numbers(found, found[1], found[2]), _of_numbers(found, found[3], found[4])
    return found[0] if found[0] in (first, last) else f"{first} to {last}"


def _day_first_short(found: re.Match[str]) -> str:
    """`24.12.`"""
    return _of_numbers(found, found[2], found[1])


def _short_after_a_word(found: re.Match[str]) -> str:
    """`on 24.12.`"""
    if not (_is_date(found[3], found[2]) and (found[0].endswith(".") or int(found[2]) > 12)):
        return found[0]
    return f"{found[1]} {_of_numbers(found, found[3], found[2])}"


def _two_short_dates(found: re.Match[str]) -> str:
    """`24.12.-26.12.`"""
    if not (_is_date(found[2], found[1]) and _is_date(found[4], found[3])):
        return found[0]
    return f"{_of_numbers(found, found[2], found[1])} to {_of_numbers(found, found[4], found[3])}"


def _months(found: re.Match[str]) -> str:
    """`Apr-Oct`, before hours with a comma, so that nobody takes these for days of the month."""
    hours = f", {found[3].lstrip(', ')}" if found[3] else ""
    return f"{_month(found[1])} to {_month(found[2])}{hours}"


def _years(found: re.Match[str]) -> str:
    first, last = found.groups()
    return f"{year(first)} to {year(last) if len(last) == 4 else number_in_words(last)}"


DATES = (
    rule(r"\b(\d{4})[-/](\d\d)[-/](\d\d)\b(?![-/]?\d)", _iso_date, "- /"),
    rule(r"\b(\d{1,2})[-/](\d{1,2})[-/](\d{4})\b", _month_first, "- /"),
    rule(r"\b(\d{1,2})/(\d{1,2})/(\d\d)\b(?!/)", _month_first, "/"),
    rule(r"\b(\d{1,2})\.(\d{1,2})\.(\d{4}|\d\d)\b(?!\.\d)", _day_first, "."),
    rule(rf"(?<![\d/])(\d{{1,2}})/(\d{{1,2}}){TO}(\d{{1,2}})/(\d{{1,2}})(?![/\d])", _two_dates, "/"),
    rule(
        rf"{_BEFORE_A_DATE} (?!1/2|1/3|2/3|1/4|3/4)(\d{{1,2}})/(\d{{1,2}})(?![/\d%])"
        r"(?! ?(?:inch|cup|mile|stars?|of)\b)",
        _after_a_word,
        "/",
    ),
    rule(r"(?<![\d/.,$])(\d{1,2})/(\d{1,2})(?![/\d%\"])(?! ?(?:inch|cup|mile|stars?|of)\b)", _sure, "/"),
    rule(rf"(?<![\d.])(\d\d?)\.(\d\d?)\.{TO}(\d\d?)\.(\d\d?)\.(?!\d)", _two_short_dates, "."),
    rule(rf"{_BEFORE_A_DATE} (\d\d?)\.(\d\d?)(?:\.(?!\d)|(?=\.? ?$))", _short_after_a_word, "."),
    rule(r"(?<![\d.])(\d\d)\.(0[1-9]|1[0-2])\.(?=[^\w\s\"]| (?-i:[a-z(\d]))", _day_first_short, "."),
    rule(
        r"(?:^|(?<=\()|(?<= and )(?=1[3-9]|[23])|(?<= or )(?=1[3-9]|[23]))(\d\d)\.(0[1-9]|1[0-2])\.(?!\d)",
        _day_first_short,
        ".",
    ),
    rule(rf"\b({_SHORT_MONTH})\.?{TO}({_SHORT_MONTH})\b\.?(,? \d\d?(?::\d\d)?{TO}\d)?", _months),
    rule(rf"\b({_MONTH})\.? {_DAY}{TO}(?={_MONTH}\.? \d)", r"\1 \2 to ", marks=_MONTH_MARKS),
    rule(
        rf"\b({_MONTH})\.? {_DAY}(?:{TO}{_DAY}(?! ?[ap]\.?m|[:.]\d|\d))?\b(?![:%/]|\.\d|\d)(?:,? ({_YEAR})\b)?",
        _month_and_day,
        marks=_MONTH_MARKS,
    ),
    rule(
        rf"(?<![\d:/.,-])\b(?:the )?{_DAY}(?:{TO}{_DAY})?(?:\.(?! (?:May|Mar)))? (?:of )?"
        rf"({_MONTH})(?!{TO}{_MONTH})(?:\.(?= \d))?(?:,? ({_YEAR})\b)?",
        _day_and_month,
        marks=_MONTH_MARKS,
    ),
    rule(rf"\b({_MONTH})\.?,? ({_YEAR})\b", lambda found: f"{_month(found[1])} {year(found[2])}", marks=_MONTH_MARKS),
)
"""Dates; they are tried before hours and prices."""
YEARS = (
    rule(r"\b((?:1[1-9]|20)\d0)(?:s|'s|\u2019s)\b", lambda found: decade(found[1])),
    rule(r"['\u2019]([1-9]0)s\b", lambda found: decade(found[1])),
    rule(
        r"\b(the|in (?:his|her|their|my|your)|early|mid|late)([ -])([2-9]0)(?:s|'s|\u2019s)\b",
        lambda found: f"{found[1]} {decade(found[3])}",
    ),
    rule(
        r"\b([5-9]0)s(?= (?:music|hits|songs|rock|pop|disco|party|night|movies|films|style|fashion)\b)",
        lambda found: decade(found[1]),
    ),
    rule(rf"\b({_YEAR})(?:{TO}|/)({_YEAR})\b", _years),
    rule(rf"\b({_YEAR})[-\u2013/](\d\d)\b(?![-/\d])", _years),
    rule(rf"\b({_YEAR}){TO}(present|today|now)\b", lambda found: f"{year(found[1])} to {found[2]}"),
    rule(
        rf"(?=[12])(?:{_BEFORE_A_YEAR})\b(1[0-9]\d\d|20\d\d)\b{_NOT_COUNTED}(?![,.]\d)",
        lambda found: year(found[1]),
    ),
    rule(
        rf"(?<![\d.,\-/:])\b(19\d\d|20[0-4]\d)\b{_NOT_COUNTED}(?![,.:/%-]?\d|[ -]?[a-z]{{1,2}}\b)",
        lambda found: year(found[1]),
    ),
)
"""Years; they are tried after telephone numbers."""
