"""Times of day and opening hours: `9-5`, `9am-5pm`, `12:30-14:30`, `8h30`, `24/7`."""

import re

from core.engine.spoken_numbers.number_words import hundredths, number_in_words
from core.engine.spoken_numbers.rule import TO, TO_OR_WORD, rule

_HALF = r"\s?([ap])(?:m|\.\s?m\.?)(?![a-z])"
_CLOCK = r"(\d{1,2})(?:[:.](\d\d))?"
_OPEN_HOURS = r"\d{1,2}(?:[:.h]\d\d)?(?: ?h\b)?"
_RANGE = rf"\b{_OPEN_HOURS}{TO_OR_WORD}{_OPEN_HOURS}(?![\d:])"
_RANGE_PARTS = re.compile(
    rf"(\d{{1,2}})(?:[:.h](\d\d))?(?: ?h\b)?{TO_OR_WORD}(\d{{1,2}})(?:[:.h](\d\d))?(?: ?h\b)?", re.IGNORECASE
)
_NEXT_SENTENCE = re.compile(
    r"\s*$|\s+(?!Mon|Tue|Wed|Thu|Fri|Sat|Sun|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[A-Z]"
)
_HOURS_WORD = (
    r"\b(?:open(?:s|ing)?|closed?|hours?|times?|daily|weekdays?|weekends?|every day|holidays?"
    r"|breakfast|brunch|lunch|dinner|supper|kitchen|happy hour|reception|check-?in"
    r"|to (?:january|february|march|april|may|june|july|august|september|october|november|december)"
    r"|mon|tue|wed|thu|fri|sat|sun|(?:mon|tues|wednes|thurs|fri|satur|sun)days?)\b"
)
_COUNTED = (
    r"(?![%\d]|[:.,]\d|\s?(?:[-\u2013/]\s?\d|h(?:ou)?rs?\b|min|days?\b|weeks?\b|months?\b|years?\b|people|persons?\b"
    r"|guests?\b|percent|dollars?\b|euros?\b|pounds?\b|cents?\b|[$\u20ac\u00a3]|km\b|kg\b|times\b|rooms?\b|stars?\b))"
)
"""What follows figures that are no times but an amount."""
_EVENING = re.compile(r"dinner|supper|evening|night|happy hour", re.IGNORECASE)
_LASTS = r"(?:takes?|lasts?|in|about|around|within|every|of|to|than|for) "


def time_of_day(hour: int, minute: int, half: str = "") -> str:
    """A time such as `nine fifteen in the morning`; `half` is `a` or `p`, or "" of a clock with 24 hours."""
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    if not minute and hour % 24 in (0, 12):
        return "noon" if hour == 12 else "midnight"
    part = "in the morning" if hour % 24 < 12 else "in the afternoon" if hour < 17 else "in the evening"
    return f"{_on_the_clock(hour, minute)} {part}"


def _on_the_clock(hour: int, minute: int) -> str:
    """A time without the half of the day, where nothing tells it."""
    return f"{number_in_words(str(hour % 12 or 12))}{hundredths(str(minute))}"


def _is_time(hour: str, minute: str | None) -> bool:
    return int(hour) <= 24 and int(minute or 0) < 60


def _full_stop(found: re.Match[str]) -> str:
    """The full stop of a sentence that ends with `a.m.`: what follows begins another one."""
    return "." if found[0].endswith(".") and _NEXT_SENTENCE.match(found.string, found.end()) else ""


def _with_half(found: re.Match[str]) -> str:
    hour, minute, half = found.groups()
    if not _is_time(hour, minute) or int(hour) > 12:
        return found[0]
    return time_of_day(int(hour), int(minute or 0), half.lower()) + _full_stop(found)


def _range_with_half(found: re.Match[str]) -> str:
    """`9-5 pm`, `9am-5pm`, `9a-5p`: a first time without its half of the day has the second's, or else the other."""
    first, first_minute, first_half, last, last_minute, last_half = found.groups()
    if int(first) > 12 or int(last) > 12 or not (_is_time(first, first_minute) and _is_time(last, last_minute)):
        return found[0]
    second = last_half.lower()
    half = first_half.lower() if first_half else second
    if not first_half and int(first) % 12 >= int(last) % 12:
        half = "a" if second == "p" else "p"
    begins = time_of_day(int(first), int(first_minute or 0), half)
    return f"{begins} to {time_of_day(int(last), int(last_minute or 0), second)}{_full_stop(found)}"


def _opening(found: re.Match[str]) -> str:
    """`open 9-17, 18-20`, and `open 9-5` just as well, since most places are open by day."""
    closes = 0

    def said(times: re.Match[str]) -> str:
        nonlocal closes
        spoken, closes = _open_from_to(times, closes, bool(_EVENING.search(found[1])))
        return spoken

    return found[1] + _RANGE_PARTS.sub(said, found[2])


def _open_from_to(times: re.Match[str], after: int, evening: bool) -> tuple[str, int]:
    """A range of times that does not begin before the hour `after`, and the hour at which it ends."""
    first, first_minute, last, last_minute = times.groups()
    if not (_is_time(first, first_minute) and _is_time(last, last_minute)):
        return times[0], after
    begin, end = int(first), int(last)
    on_12_hours = not first.startswith("0") and 0 < begin <= 12 and end <= 12
    if on_12_hours and (begin < after or begin < 5 or (evening and begin < 12)):
        begin += 12
        end += 12 if end < 12 or begin > 12 else 0
    elif on_12_hours and begin == 5 and end > begin:
        opens = _on_the_clock(begin, int(first_minute or 0))
        return f"{opens} to {_on_the_clock(end, int(last_minute or 0))}", end
    elif on_12_hours and end <= begin:
        end += 12
    opens = time_of_day(begin, int(first_minute or 0))
    return f"{opens} to {time_of_day(end, int(last_minute or 0))}", end


def _clock_range(found: re.Match[str]) -> str:
    return _open_from_to(found, 0, False)[0]


def _clock(found: re.Match[str]) -> str:
    """`17:30` and `08:30` belong to a clock with 24 hours; `8:30` may be in the morning or in the evening."""
    hour, minute = found[1], found[2]
    if not _is_time(hour, minute):
        return found[0]
    if 0 < int(hour) <= 12 and not hour.startswith("0"):
        return _on_the_clock(int(hour), int(minute)) + ("" if int(minute) else " o'clock")
    return time_of_day(int(hour), int(minute))


def _of_24_hours(found: re.Match[str]) -> str:
    """`8h30`, `1700 hrs`."""
    return time_of_day(int(found[1]), int(found[2] or 0)) if _is_time(found[1], found[2]) else found[0]


def _range_of_24_hours(found: re.Match[str]) -> str:
    first, first_minute, last, last_minute = found.groups()
    if not (_is_time(first, first_minute) and _is_time(last, last_minute)):
        return found[0]
    opens = time_of_day(int(first), int(first_minute or 0))
    return f"{opens} to {time_of_day(int(last), int(last_minute or 0))}"


def _duration(found: re.Match[str]) -> str:
    hours, minutes = (number_in_words(number) for number in found.group(2, 3))
    one = int(found[2]) == 1
    return f"{found[1] or ''}{hours} {'hour' if one else 'hours'} and {minutes} minutes"


_FOUR = r"([01]\d|2[0-4])([0-5]\d)"
_LIST = rf"{_RANGE}(?:(?: ?[,/&+] ?|,? and | or ){_RANGE}){{0,5}}"
_LATE = "late|close|closing|noon|midnight|sunset|dusk|dark"
EARLY = (
    rule(r"\b24 ?/ ?7 ?/ ?365\b(?!/)", "twenty four hours a day, seven days a week, all year"),
    rule(r"\b24 ?[/x] ?7\b(?!/)|\b24-7\b", "twenty four hours a day, seven days a week"),
    rule(rf"\b{_CLOCK} ?(a){TO}{_CLOCK} ?(p)\b(?!\.?m)", _range_with_half),
)
"""What would be taken for a date or for pence."""
RULES = (
    rule(rf"\b(noon|midnight|sunrise|dawn){TO}(?=\d|late\b|close\b|sunset\b|midnight\b)", r"\1 to "),
    rule(rf"(?<=[\dmh.]){TO}({_LATE})\b", r" to \1"),
    rule(r"(?<=\d),(?=\d{1,2}:\d\d|\d{1,2} ?[ap]\.?m)", ", ", ","),
    rule(r"\b(\d{1,2}:\d\d):00\b", r"\1", ":"),
    rule(r"(?<=:\d\d)\+(?!\d)", " or later", "+"),
    rule(rf"\b{_CLOCK}(?:{_HALF})?{TO_OR_WORD}{_CLOCK}{_HALF}", _range_with_half, "m M"),
    rule(rf"\b{_CLOCK}{_HALF}", _with_half, "m M"),
    rule(r"()\b(\d{1,2}) ?h ?(\d{1,2}) ?m(?:ins?)?\b", _duration, "h H"),
    rule(rf"\b({_LASTS})(\d{{1,2}})h(\d\d)\b(?!{TO_OR_WORD}\d)", _duration, "h H"),
    rule(rf"\b(\d{{1,2}}) ?h ?(\d\d)?(?:{TO_OR_WORD}| \u00e0 )(\d{{1,2}}) ?h ?(\d\d)?\b", _range_of_24_hours, "h H"),
    rule(r"\b(\d{1,2})h([0-5]\d)\b", _of_24_hours, "h H"),
    rule(r"(?<=\bat )(\d{1,2}) ?h()\b", _of_24_hours, "h H"),
    rule(rf"\b(\d\d?)[.:](\d\d){TO_OR_WORD}(\d\d?)[.:](\d\d) ?(?:hours|hrs|h|uhr)\b", _range_of_24_hours, "h H"),
    rule(r"\b(\d\d?)[.:](\d\d) ?(?:hours|hrs|uhr)\b", _of_24_hours, "h H"),
    rule(rf"\b{_FOUR}{TO_OR_WORD}{_FOUR} ?(?:h|hrs|hours)\b", _range_of_24_hours, "h H"),
    rule(rf"\b{_FOUR} ?(?:h|hrs|hours)\b", _of_24_hours, "h H"),
    rule(rf"({_HOURS_WORD}[^.;\d\n]{{0,24}}?)({_LIST}){_COUNTED}", _opening, needs=_RANGE),
    rule(rf"\b(\d{{1,2}}):(\d\d){TO_OR_WORD}(\d{{1,2}})(?::(\d\d))?\b(?!:)", _clock_range, ":"),
    rule(rf"\b(\d{{1,2}})(?::(\d\d))?{TO_OR_WORD}(\d{{1,2}}):(\d\d)\b(?!:)", _clock_range, ":"),
    rule(r"\b(\d{1,2}):(\d\d)\b(?!:)", _clock, ":"),
    rule(r"(?<=\bat )(1[3-9]|2[0-3])\.([0-5]\d)\b(?![.,]?\d)", _of_24_hours, "."),
)
