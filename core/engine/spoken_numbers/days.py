"""Days of the week, long or short, with their ranges and lists: `Mon-Fri`, `Sa,Su`, `M-F`."""

import re

from core.engine.spoken_numbers.rule import TO, TO_OR_WORD, rule

_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_LETTER = r"Mon?|M|Tue?|T|Wed?|W|Thu?|Fri?|F|Sat?|Sun?"
_THREE = r"(?:mon|tue|wed|thu|fri|sat|sun)"
_ENDING = r"(?:(?:s|nes|rs|ur)?days?|rs?|s)?\b"
_DAY = rf"\b{_THREE}{_ENDING}"
_CAPITAL_DAY = rf"\b(?-i:Mon|Tue|Wed|Thu|Fri|Sat|Sun|MON|TUE|WED|THU|FRI|SAT|SUN){_ENDING}"
_TWO = r"\b(?-i:Mo|Tu|We|Th|Fr|Sa|Su|PH|SH)\b"
_STOP = r"(?:\.(?=[ \t]?[-\d,:&\u2010-\u2015(]|[ \t](?:to|thru|through)\b))?"
"""The full stop of an abbreviation, unless a sentence may end with it."""
_TIME_RANGE = rf"(?=[:,]? ?\(?(?:from )?\d{{1,2}}(?:[:.h]\d\d)?\s?(?:[ap]\.?m\.?)?{TO_OR_WORD}(?:\d|noon|midnight))"
_ANY = re.compile(rf"{_DAY}{_STOP}|{_TWO}", re.IGNORECASE)
_BETWEEN = re.compile(rf"({TO}| (?:thru|through|till|until) )|(,(?! )|[ ]?/[ ]?)", re.IGNORECASE)


def _name(written: str) -> str:
    """The first day of the week that begins so: `T` is Tuesday."""
    return next(name for name in _NAMES if name.lower().startswith(written.lower()))


def _day(found: re.Match[str]) -> str:
    written = found[0].removesuffix(".")
    if written in ("PH", "SH"):
        return "public holidays" if written == "PH" else "school holidays"
    if "day" in written.lower():
        return written
    return _name(written[:2])


def _days(found: re.Match[str]) -> str:
    """All days of a range or a list."""
    with_names = _ANY.sub(_day, found[0])
    return _BETWEEN.sub(lambda mark: " to " if mark[1] else ", ", with_names)


def _letters(found: re.Match[str]) -> str:
    """`M-F`, `M-Th`, `mo-fr`."""
    return f"{_name(found[1])} to {_name(found[2])}"


RULES = (
    rule(rf"{_DAY}{_STOP}{TO_OR_WORD}{_DAY}{_STOP}", _days),
    rule(rf"{_CAPITAL_DAY}{_STOP}(?:(?:, ?| ?/ ?| ?& ?| and |, and ){_CAPITAL_DAY}{_STOP}){{1,6}}", _days),
    rule(r"\b(mo|tu|we|th|fr|sa|su)[-\u2010-\u2015](mo|tu|we|th|fr|sa|su)\b(?=[:,]? ?\(?\d)", _letters),
    rule(rf"{_TWO}(?:(?:{TO}|,|/){_TWO}){{1,6}}", _days),
    rule(rf"{_TWO}(?:(?:, | and | & ){_TWO}){{1,6}}(?=:? ?\d)", _days),
    rule(rf"\b(?-i:({_LETTER}){TO}({_LETTER}))\b(?=[:,]? ?\(?\d)", _letters),
    rule(rf"(?:{_TWO}|{_DAY}{_STOP}){_TIME_RANGE}", _days),
    rule(rf"{_TWO}(?= \d{{1,2}}[:h]\d\d| off\b)", _days),
    rule(rf"{_CAPITAL_DAY}{_STOP}(?=[:,]? ?\(?\d|:? (?:closed|off)\b)", _days),
    rule(rf"(?<=closed ){_CAPITAL_DAY}|(?<=except ){_CAPITAL_DAY}|(?<=every ){_CAPITAL_DAY}", _days),
)
