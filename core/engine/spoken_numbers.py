"""Numbers in a text as one says them, for models that were trained on prompts without digits.

People write `$4`, `12 Mill Lane`, `9-17` and `555-0123`; a small model reads words better than digits. What a figure
means follows from what stands around it, so each rule below takes one form of writing; the order decides between them.
`num2words` writes the words themselves, here as Americans say them, without hyphens, commas and `and`.
"""

import re
from collections.abc import Callable

from num2words import num2words

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_CURRENCIES = {
    "$": ("dollar", "dollars", "cents"),
    "€": ("euro", "euros", "cents"),
    "£": ("pound", "pounds", "pence"),
    "usd": ("dollar", "dollars", "cents"),
    "eur": ("euro", "euros", "cents"),
    "gbp": ("pound", "pounds", "pence"),
    "dollar": ("dollar", "dollars", "cents"),
    "euro": ("euro", "euros", "cents"),
    "pound": ("pound", "pounds", "pence"),
}
_FRACTIONS = {"1/2": "half", "1/3": "a third", "2/3": "two thirds", "1/4": "a quarter", "3/4": "three quarters"}
_VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4"}
_UNITS = {
    "%": "percent",
    "°c": "degrees Celsius",
    "°f": "degrees Fahrenheit",
    "°": "degrees",
    "km/h": "kilometers an hour",
    "km": "kilometers",
    "cm": "centimeters",
    "mm": "millimeters",
    "kg": "kilograms",
    "lbs": "pounds",
    "lb": "pounds",
    "ml": "milliliters",
    "gb": "gigabytes",
    "mb": "megabytes",
    "mbps": "megabits per second",
    "mins": "minutes",
    "min": "minutes",
    "hrs": "hours",
    "hr": "hours",
    "h": "hours",
    "mph": "miles an hour",
    "sqm": "square meters",
    "m²": "square meters",
    "sq ft": "square feet",
    "ft": "feet",
}
_LARGE = {"k": "thousand", "m": "million", "bn": "billion", "thousand": "thousand", "million": "million"}
_MONTHS = (
    "January|February|March|April|May|June|July|August|September|October|November|December"
    "|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec"
)
_MONTH_NAMES = _MONTHS.split("|")[:12]
MOST_DIGITS = 15
"""A longer number is no amount."""
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_TO = r"\s?[-\u2013\u2014]\s?"
"""Between the ends of a range."""
_HALF = r"\s?([ap]m|[ap]\.m\.?)(?![a-z])"
_CLOCK = r"(\d{1,2})(?:[:.](\d\d))?"
_NEXT_SENTENCE = re.compile(rf"\s*$|\s+(?!(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun|{_MONTHS}))[A-Z]")
_DAYS = {
    "mon": "Monday",
    "tue": "Tuesday",
    "wed": "Wednesday",
    "thu": "Thursday",
    "fri": "Friday",
    "sat": "Saturday",
    "sun": "Sunday",
}
_DAY = r"(mon|tue|wed|thu|fri|sat|sun)(?:s|r|rs|day|sday|nesday|rsday|urday)?\b\.?"
"""A day of the week, short or not; its first three letters say which."""
_SHORT_DAY = r"\b(?-i:(Mon|Tue|Wed|Thu|Fri|Sat|Sun)(?:s|r|rs)?\b)\.?"
_HOURS_WORD = (
    r"\b(?:open(?:ing)?|hours?|daily|weekdays?|weekends?|every day"
    r"|mon|tue|wed|thu|fri|sat|sun|(?:mon|tues|wednes|thurs|fri|satur|sun)days?)\b"
)
_WRITTEN_SHORT = re.compile(r"\d|[\u00bd\u2153\u2154\u00bc\u00be]|\b(?:mon|tue|wed|thu|fri|sat|sun)", re.IGNORECASE)
"""What every text has for which there is anything to do; most sentences have nothing of it."""
_EACH = "hour|hr|h|kg|night|day|week|month|year|person|piece|guest"


def spell_numbers(text: str) -> str:
    """The text with every number in words: `$4.50 at 9 am` is `four dollars and fifty cents at nine in the morning`."""
    if not _WRITTEN_SHORT.search(text):
        return text
    for sign, fraction in _VULGAR.items():
        text = re.sub(rf"(?<=\d)\s?{sign}", f" {fraction}", text).replace(sign, fraction)
    for pattern, say in _RULES:
        text = pattern.sub(say, text)
    return text


def number_in_words(number: str) -> str:
    """A number such as `120`, `1,200` or `2.5` in words, `one hundred twenty`; one that nobody says, digit by digit."""
    plain = number.replace(",", "")
    if len(plain) > MOST_DIGITS:
        return _digit_by_digit(plain)
    words = num2words(plain if "." in plain else int(plain), lang="en")
    return re.sub(r"\band |[-,]", lambda found: " " if found[0] == "-" else "", words)


def price(amount: str, currency: str) -> str:
    """A price in words; `currency` is its sign, code or name."""
    one, many, hundredths = _CURRENCIES[currency.lower()]
    whole, _, cents = amount.replace(",", "").partition(".")
    if len(cents) not in (0, 2):
        return f"{number_in_words(amount)} {many}"
    small = f"{number_in_words(cents)} {hundredths}" if int(cents or 0) else ""
    if small and not int(whole):
        return small
    large = f"{number_in_words(whole)} {one if int(whole) == 1 else many}"
    return f"{large} and {small}" if small else large


def _ordinal(number: str) -> str:
    return str(num2words(int(number), to="ordinal", lang="en")).replace("-", " ").replace(" and ", " ")


def _year(number: str) -> str:
    return re.sub(r"\band |[-,]", lambda found: " " if found[0] == "-" else "", num2words(int(number), to="year"))


def _digit_by_digit(group: str) -> str:
    return " ".join(_DIGITS[int(digit)] for digit in group if digit.isdecimal())


def time_of_day(hour: int, minute: int, half: str = "") -> str:
    """A time such as `nine fifteen in the morning`; `half` is `am` or `pm`, or "" of a clock with 24 hours."""
    if half:
        hour = hour % 12 + (12 if half == "pm" else 0)
    if not minute and hour % 24 in (0, 12):
        return "noon" if hour == 12 else "midnight"
    part = "in the morning" if hour < 12 else "in the afternoon" if hour < 17 else "in the evening"
    spoken = number_in_words(str(hour % 12 or 12))
    return f"{spoken}{_minutes(minute)} {part}"


def _minutes(minute: int) -> str:
    return f" {'oh ' if minute < 10 else ''}{number_in_words(str(minute))}" if minute else ""


def _half(written: str) -> str:
    return written.replace(".", "").lower()


def _full_stop(found: re.Match[str]) -> str:
    """The full stop of a sentence that ends with `a.m.`: what follows begins another one."""
    return "." if found[0].endswith(".") and _NEXT_SENTENCE.match(found.string, found.end()) else ""


def _day(short: str) -> str:
    return _DAYS[short.lower()]


def _closed_day(found: re.Match[str]) -> str:
    """`closed Mon`, `Saturday and Sun`."""
    return _day(next(filter(None, found.groups())))


def _decimal_comma(found: re.Match[str]) -> str:
    """`€4,50` with the point that the rules for prices know."""
    return f"{found[1] or found[3]}.{found[2] or found[4]}"


def _clock_range(found: re.Match[str]) -> str:
    return f"{_clock_in(found[1], found[2])} to {_clock_in(found[3], found[4])}"


def _clock_in(hour: str, minute: str) -> str:
    return time_of_day(int(hour), int(minute)) if _is_time(hour, minute) else f"{hour}:{minute}"


def _each(found: re.Match[str]) -> str:
    """`$20/hr` is twenty dollars an hour."""
    unit = {"hr": "hour", "h": "hour", "kg": "kilogram"}.get(found[2].lower(), found[2])
    return f"{found[1]} {'an' if unit == 'hour' else 'a'} {unit}"


def _is_time(hour: str, minute: str | None) -> bool:
    return int(hour) <= 24 and int(minute or 0) < 60


def _time_with_half(found: re.Match[str]) -> str:
    if not _is_time(found[1], found[2]) or int(found[1]) > 12:
        return found[0]
    return time_of_day(int(found[1]), int(found[2] or 0), _half(found[3])) + _full_stop(found)


def _time_range_with_half(found: re.Match[str]) -> str:
    """`9-5 pm`, `9am-5pm`: a first time without its half of the day has the second's, or else the other."""
    first, first_minute, first_half, last, last_minute, last_half = found.groups()
    if int(first) > 12 or int(last) > 12:
        return found[0]
    second = _half(last_half)
    half = _half(first_half) if first_half else second
    if not first_half and int(first) % 12 >= int(last) % 12:
        half = "am" if second == "pm" else "pm"
    begins = time_of_day(int(first), int(first_minute or 0), half)
    return f"{begins} to {time_of_day(int(last), int(last_minute or 0), second)}{_full_stop(found)}"


def _clock(found: re.Match[str]) -> str:
    return time_of_day(int(found[1]), int(found[2])) if _is_time(found[1], found[2]) else found[0]


def _opening_hours(found: re.Match[str]) -> str:
    """`open 9-17`, and `open 9-5` just as well, since most places are open by day."""
    before, first, first_minute, last, last_minute = found.groups()
    begin, end = int(first), int(last)
    if not (_is_time(first, first_minute) and _is_time(last, last_minute)) or begin > 24:
        return found[0]
    if end <= begin and end < 12:
        end += 12
    opens = time_of_day(begin, int(first_minute or 0))
    return f"{before}{opens} to {time_of_day(end, int(last_minute or 0))}"


def _price_range(found: re.Match[str]) -> str:
    sign, first, last = found[1], found[2], found[3]
    return f"{number_in_words(first)} to {price(last, sign)}"


def _large_price(found: re.Match[str]) -> str:
    return f"{number_in_words(found[2])} {_LARGE[found[3].lower()]} {_CURRENCIES[found[1]][1]}"


def _price_after(found: re.Match[str]) -> str:
    return price(found[1], found[2])


def _telephone(found: re.Match[str]) -> str:
    groups = re.findall(r"\d+", found[0])
    plus = "plus " if found[0].lstrip("( ").startswith("+") else ""
    return plus + ", ".join(_digit_by_digit(group) for group in groups)


def _month_day(found: re.Match[str]) -> str:
    year = f", {_year(found[3])}" if found[3] else ""
    return f"{_month(found[1])} {_ordinal(found[2])}{year}"


def _day_month(found: re.Match[str]) -> str:
    year = f", {_year(found[3])}" if found[3] else ""
    return f"{_month(found[2])} {_ordinal(found[1])}{year}"


def _month(name: str) -> str:
    short = name.lower()[:3]
    return next(month for month in _MONTH_NAMES if month.lower().startswith(short))


def _iso_date(found: re.Match[str]) -> str:
    year, month, day = found[1], int(found[2]), int(found[3])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return found[0]
    return f"{_MONTH_NAMES[month - 1]} {_ordinal(str(day))}, {_year(year)}"


def _american_date(found: re.Match[str]) -> str:
    month, day = int(found[1]), int(found[2])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return found[0]
    return f"{_MONTH_NAMES[month - 1]} {_ordinal(str(day))}, {_year(found[3])}"


def _mixed_number(found: re.Match[str]) -> str:
    whole, fraction = found[1], _FRACTIONS[found[2]]
    if not whole:
        return fraction
    return f"{number_in_words(whole.strip())} and {'a half' if fraction == 'half' else fraction}"


def _with_unit(found: re.Match[str]) -> str:
    minus = "minus " if found[1] else ""
    unit = _UNITS[found[3].lower()]
    return f"{minus}{number_in_words(found[2])} {unit[:-1] if found[2] == '1' and unit.endswith('s') else unit}"


def _letters_and_digits(found: re.Match[str]) -> str:
    """`B12` is `B twelve`, `BA249` and `A05` are said digit by digit, since longer ones are codes."""
    letters, digits, rest = found.groups()
    code = len(digits) > 2 or digits.startswith("0")
    return " ".join(filter(None, (letters, _digit_by_digit(digits) if code else number_in_words(digits), rest)))


def _plain(found: re.Match[str]) -> str:
    number = found[0]
    if number.startswith("0") and len(number) > 1 and number.isdecimal():
        return _digit_by_digit(number)
    return number_in_words(number)


def _rule(pattern: str, say: Callable[[re.Match[str]], str]) -> tuple[re.Pattern[str], Callable[[re.Match[str]], str]]:
    return re.compile(pattern, re.IGNORECASE), say


_SIGN = "([$€£])"
_CODE = r"(usd|eur|gbp|[€$£]|dollar|euro|pound)"
_WORD_UNITS = "|".join(re.escape(unit) for unit in sorted(_UNITS, key=len, reverse=True))
_RULES = (
    _rule(rf"\b{_DAY}(?:{_TO}| to ){_DAY}", lambda found: f"{_day(found[1])} to {_day(found[2])}"),
    _rule(
        rf"{_SHORT_DAY}(?=:? ?\d|(?:,|,? and|,? &) (?-i:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b)", lambda found: _day(found[1])
    ),
    _rule(rf"(?<=closed ){_SHORT_DAY}|(?<=day and ){_SHORT_DAY}|(?<=day & ){_SHORT_DAY}", _closed_day),
    _rule(r"\b(noon|midnight)\s?[-\u2013\u2014]\s?(?=\d)", lambda found: f"{found[1]} to "),
    _rule(r"(?<=[\dm])\s?[-\u2013\u2014]\s?(noon|midnight)\b", lambda found: f" to {found[1]}"),
    _rule(r"(€\s?\d+),(\d\d)\b|\b(\d+),(\d\d)(?=\s?(?:€|euros?\b|eur\b))", _decimal_comma),
    _rule(rf"((?:[$€£]\s?\d|\b\d)[\d.,]*(?:\s?(?:[€$£]|dollars?|euros?|pounds?))?)\s?/\s?({_EACH})\b", _each),
    _rule(r"\b(\d+)\+(?=[ ,.;)]|$)", lambda found: f"{found[1]} or more"),
    _rule(r"\b24/7\b", lambda _: "twenty four hours a day, seven days a week"),
    _rule(r"\b(\d{4})-(\d\d)-(\d\d)\b", _iso_date),
    _rule(r"\b(\d{1,2})/(\d{1,2})/(\d{4})\b", _american_date),
    _rule(rf"\b({_MONTHS})\.? (\d{{1,2}})(?:st|nd|rd|th)?\b(?![:%])(?:,? ((?:1[5-9]|20)\d\d)\b)?", _month_day),
    _rule(
        rf"\b(?:the )?(\d{{1,2}})(?:st|nd|rd|th)?\.? (?:of )?({_MONTHS})\b(?:\.(?= \d))?(?:,? ((?:1[5-9]|20)\d\d)\b)?",
        _day_month,
    ),
    _rule(rf"{_SIGN}\s?({_NUMBER})\s?(k|m|bn|million|thousand)\b", _large_price),
    _rule(rf"{_SIGN}\s?({_NUMBER}){_TO}[$€£]?({_NUMBER})", _price_range),
    _rule(rf"{_SIGN}\s?({_NUMBER})", lambda found: price(found[2], found[1])),
    _rule(rf"\b({_NUMBER})\s?{_CODE}s?(?![a-z])", _price_after),
    _rule(rf"\b{_CLOCK}(?:{_HALF})?(?:{_TO}| to ){_CLOCK}{_HALF}", _time_range_with_half),
    _rule(rf"\b{_CLOCK}{_HALF}", _time_with_half),
    _rule(rf"({_HOURS_WORD}[^.;\d]{{0,24}}?){_CLOCK}(?:{_TO}| to ){_CLOCK}\b(?![%\d])", _opening_hours),
    _rule(rf"\b(\d{{1,2}}):(\d\d){_TO}(\d{{1,2}}):(\d\d)\b(?!:)", _clock_range),
    _rule(r"\b(\d{1,2}):(\d\d)\b(?!:)", _clock),
    _rule(r"(?<![\w+])\+\d{1,3}(?:[ .\-/]?\(?\d{1,4}\)?){2,5}\b", _telephone),
    _rule(r"\(\d{2,5}\)[ \-]?\d{3,4}(?:[ \-]\d{2,5})*\b", _telephone),
    _rule(
        r"\b\d{3}[ .\-]\d{3}[ .\-]\d{4}\b|\b\d{3}[ \-]\d{4}\b|\b0\d{2,4}[ \-/]\d{3,8}(?:[ \-]\d{2,5})*\b", _telephone
    ),
    _rule(r"\b911\b|(?:(?<=call )|(?<=dial )|(?<=ring ))\d{3,4}\b", lambda found: _digit_by_digit(found[0])),
    _rule(rf"\b((?:1[5-9]|20)\d\d){_TO}((?:1[5-9]|20)\d\d)\b", lambda found: f"{_year(found[1])} to {_year(found[2])}"),
    _rule(
        r"\b(in|since|from|of|year|until|founded|established|est\.) ((?:1[5-9]|20)\d\d)\b(?! [a-z]+s\b)",
        lambda found: f"{found[1]} {_year(found[2])}",
    ),
    _rule(r"\b(\d+)(?:st|nd|rd|th)\b", lambda found: _ordinal(found[1])),
    _rule(r"(?:\b(\d+) )?\b(1/2|1/3|2/3|1/4|3/4)(?![\d/])", _mixed_number),
    _rule(rf"\b({_NUMBER}){_TO}({_NUMBER})(?!\d)", lambda found: f"{found[1]} to {found[2]}"),
    _rule(rf"(?<![\w])([-\u2212])?({_NUMBER})\s?({_WORD_UNITS})(?![a-z])", _with_unit),
    _rule(r"(?:#|\bno\. ?)(?=\d)", lambda _: "number "),
    _rule(r"\b([a-z]{1,3})(\d+)([a-z]?)\b", _letters_and_digits),
    _rule(r"\b()(\d+)([a-z])\b", _letters_and_digits),
    _rule(r"\b(\d+)\s?x\s?(\d+)\b", lambda found: f"{found[1]} by {found[2]}"),
    _rule(r"(?<=[a-z])(?=\d)|(?<=\d)(?=[a-z])", lambda _: " "),
    _rule(r"(\d)/(?=\d)", lambda found: f"{found[1]} "),
    _rule(r"(?<![\w.])[-\u2212](?=\d)", lambda _: "minus "),
    _rule(_NUMBER, _plain),
)
"""Each form of writing and how it is said, in the order in which they are tried."""
