"""Numbers, prices, times and telephone numbers, as one says them."""

import re

_TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", *_TEENS)
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_TIME = re.compile(r"\b(\d{1,2})(?::(\d\d))? (am|pm)\b")
_DOLLARS = re.compile(r"\$(\d[\d,]*)(?:\.(\d\d))?")
_TELEPHONE = re.compile(r"\b(\d{3}) (\d{4})\b|\b(911)\b")
_NUMBER = re.compile(r"\b\d[\d,]*\b")
_PRICE = re.compile(r"\b(\d+) dollars?(?: and (\d\d) cents)?\b")


def in_words(number: int) -> str:
    """The number in words, without hyphens. Raises ValueError below 0 and from a million on."""
    if not 0 <= number < 1_000_000:
        raise ValueError(f"{number} is outside 0-999999.")
    if number < 20:
        return _ONES[number]
    if number < 100:
        return f"{_TENS[number // 10]} {_ONES[number % 10]}".removesuffix(" zero")
    size, word = (100, "hundred") if number < 1000 else (1000, "thousand")
    rest = f" {in_words(number % size)}" if number % size else ""
    return f"{in_words(number // size)} {word}{rest}"


def speak(text: str) -> str:
    """The text with every number in words: `$4.50 at 9 am` is `four dollars and fifty cents at nine in the morning`."""
    text = _TIME.sub(_time, text)
    text = _DOLLARS.sub(lambda found: price(int(found[1].replace(",", "")), int(found[2] or 0)), text)
    text = _TELEPHONE.sub(_telephone, text)
    return _NUMBER.sub(lambda found: in_words(int(found[0].replace(",", ""))), text)


def price(amount: int, cents: int = 0, currency: str = "dollars") -> str:
    """A price with digits, such as `4 dollars and 50 cents` or `1 gold coin`; `currency` in the plural."""
    whole = f"{amount} {currency.removesuffix('s') if amount == 1 else currency}"
    return f"{whole} and {cents} cents" if cents else whole


def with_dollar_signs(text: str) -> str:
    """The text with prices as `$4.50` and `$12`."""
    return _PRICE.sub(lambda found: f"${found[1]}.{found[2]}" if found[2] else f"${found[1]}", text)


def _time(found: re.Match[str]) -> str:
    hour, minute, evening = int(found[1]), int(found[2] or 0), found[3] == "pm"
    if hour == 12 and not minute:
        return "noon" if evening else "midnight"
    later = "in the afternoon" if hour == 12 or hour < 5 else "in the evening"
    part = later if evening else "in the morning"
    minutes = f" {'oh ' if minute < 10 else ''}{in_words(minute)}" if minute else ""
    return f"{in_words(hour)}{minutes} {part}"


def _telephone(found: re.Match[str]) -> str:
    groups = [group for group in found.groups() if group]
    return ", ".join(" ".join(_ONES[int(digit)] for digit in group) for group in groups)
