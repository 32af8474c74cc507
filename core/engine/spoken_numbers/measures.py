"""Measures, fractions, ranges and other amounts: `5 km`, `20°C`, `5'10"`, `2½`, `10%-20%`, `3x`, `10k`."""

import re

from core.engine.spoken_numbers.number_words import number_in_words, ordinal
from core.engine.spoken_numbers.rule import NUMBER, TO, rule

_FRACTIONS = {"1/2": "half", "1/3": "a third", "2/3": "two thirds", "1/4": "a quarter", "3/4": "three quarters"}
_UNITS = {
    "%": ("percent", "percent"),
    "°c": ("degree Celsius", "degrees Celsius"),
    "°f": ("degree Fahrenheit", "degrees Fahrenheit"),
    "°": ("degree", "degrees"),
    "km/h": ("kilometer an hour", "kilometers an hour"),
    "kph": ("kilometer an hour", "kilometers an hour"),
    "mph": ("mile an hour", "miles an hour"),
    "km": ("kilometer", "kilometers"),
    "cm": ("centimeter", "centimeters"),
    "mm": ("millimeter", "millimeters"),
    "m": ("meter", "meters"),
    "mi": ("mile", "miles"),
    "ft": ("foot", "feet"),
    "yd": ("yard", "yards"),
    "in": ("inch", "inches"),
    "kg": ("kilogram", "kilograms"),
    "mg": ("milligram", "milligrams"),
    "g": ("gram", "grams"),
    "lbs": ("pound", "pounds"),
    "lb": ("pound", "pounds"),
    "fl oz": ("fluid ounce", "fluid ounces"),
    "oz": ("ounce", "ounces"),
    "ml": ("milliliter", "milliliters"),
    "cl": ("centiliter", "centiliters"),
    "l": ("liter", "liters"),
    "kb": ("kilobyte", "kilobytes"),
    "mb": ("megabyte", "megabytes"),
    "gb": ("gigabyte", "gigabytes"),
    "tb": ("terabyte", "terabytes"),
    "mbps": ("megabit per second", "megabits per second"),
    "mbit/s": ("megabit per second", "megabits per second"),
    "gbps": ("gigabit per second", "gigabits per second"),
    "kwh": ("kilowatt hour", "kilowatt hours"),
    "kw": ("kilowatt", "kilowatts"),
    "kcal": ("kilocalorie", "kilocalories"),
    "secs": ("second", "seconds"),
    "sec": ("second", "seconds"),
    "mins": ("minute", "minutes"),
    "min": ("minute", "minutes"),
    "hrs": ("hour", "hours"),
    "hr": ("hour", "hours"),
    "h": ("hour", "hours"),
    "wks": ("week", "weeks"),
    "yrs": ("year", "years"),
    "yr": ("year", "years"),
    "sqm": ("square meter", "square meters"),
    "sq m": ("square meter", "square meters"),
    "m²": ("square meter", "square meters"),
    "m2": ("square meter", "square meters"),
    "sqft": ("square foot", "square feet"),
    "sq ft": ("square foot", "square feet"),
    "sq. ft.": ("square foot", "square feet"),
    "pcs": ("piece", "pieces"),
    "ppl": ("person", "people"),
}
_SMALL_LETTERS = ("m", "g", "in", "mi")
"""Units that are other things in capitals, `5G`."""
_GLUED = ("in",)
"""Units that are words when they stand apart, `5 in the morning`."""
_UNIT = "|".join(
    (r"(?<=\d)" if unit in _GLUED else "") + (f"(?-i:{unit})" if unit in _SMALL_LETTERS else re.escape(unit))
    for unit in sorted(_UNITS, key=len, reverse=True)
)
_ONE_OF_THEM = (
    r"(?= (?:pizza|steak|burger|walk|drive|ride|run|bottle|glass|can|cup|class|lesson|session|pan|screen|tv|tall)\b)"
)
"""Nouns before which a measure stands in the singular, `a ten minute walk`."""
_SINGULAR = re.compile(_ONE_OF_THEM, re.IGNORECASE)


def _unit(found: re.Match[str], number: str, written: str) -> str:
    one, many = _UNITS[" ".join(written.lower().split())]
    singular = number == "1" or "-" in found[0].lstrip("-") or _SINGULAR.match(found.string, found.end())
    return one if singular and one != "percent" else many


def _measure(found: re.Match[str]) -> str:
    minus = "minus " if found[1] else ""
    return f"{minus}{number_in_words(found[2])} {_unit(found, found[2], found[3])}"


def _mixed_number(found: re.Match[str]) -> str:
    """`1/2 price`, `1/2 lb`, `2 1/2 hrs`."""
    whole, fraction, unit = found[1], _FRACTIONS[found[2]], found[3]
    one, many = _UNITS[" ".join(unit.lower().split())] if unit else ("", "")
    if not whole and not unit:
        return fraction
    if whole:
        amount = f"{number_in_words(whole)} and {'a half' if fraction == 'half' else fraction}"
        return f"{amount} {many}" if unit else amount
    article = "an" if one[0] in "aeio" or one.startswith("hour") else "a"
    return f"{fraction} {article} {one}" if fraction == "half" else f"{fraction} of {article} {one}"


def _fraction(found: re.Match[str]) -> str:
    """`3/8 inch`."""
    parts = ordinal(found[2]) + ("s" if int(found[1]) > 1 else "")
    return f"{number_in_words(found[1])} {parts}"


def _thousand(found: re.Match[str]) -> str:
    """`1.5k` is `one thousand five hundred`."""
    whole, _, rest = found[1].replace(",", "").partition(".")
    if len(rest) > 3 or len(whole) > 6:
        return f"{number_in_words(found[1])} thousand"
    return number_in_words(str(int(whole + rest.ljust(3, "0"))))


def _feet_and_inches(found: re.Match[str]) -> str:
    """`5'10"` is `five foot ten`."""
    return f"{number_in_words(found[1])} foot {number_in_words(found[2])}"


def _inches(found: re.Match[str]) -> str:
    """`10"` is a measure unless a quotation ends there."""
    line = found.string[max(0, found.start() - 200) : found.start()].rpartition("\n")[2]
    if len(re.findall(r'(?<!\d)"', line)) % 2:
        return found[0]
    one = found[1] == "1" or re.match(
        r" (?!tall|long|wide|high|deep|x |by |and |or |is |for |in |only|from|to |with|on )[a-z]",
        found.string[found.end() : found.end() + 8],
    )
    return f"{number_in_words(found[1])} {'inch' if one else 'inches'}"


RULES = (
    rule(
        r"\b(\d+)(st|nd|rd|th)[ \t]?[-\u2013][ \t]?(?=\d+(?:st|nd|rd|th)\b)", lambda found: f"{ordinal(found[1])} to "
    ),
    rule(r"\b(\d+)(?:st|nd|rd|th)\b", lambda found: ordinal(found[1])),
    rule(r"\b(\d{1,2})['\u2032\u2019] ?(\d{1,2})(?:\"|''|[\u2033\u201d])", _feet_and_inches, "' \u2032 \u2019"),
    rule(r"\b(\d{1,3})['\u2032\u2019] ?[x\u00d7] ?(\d{1,3})['\u2032\u2019](?!\d)", r"\1 by \2 feet", "' \u2032 \u2019"),
    rule(r"\b(\d{1,3})['\u2032\u2019](?= (?:tall|long|wide|high|deep|x|by)\b)", r"\1 feet", "' \u2032 \u2019"),
    rule(r"(?<=\d) ?[x\u00d7] ?(?=\d)", " by ", "x X \u00d7"),
    rule(r"\b(\d{1,3})[\"\u2033]", _inches, '" \u2033'),
    rule(
        rf"(?:\b(\d{{1,9}}) )?(?<![\d/])\b(1/2|1/3|2/3|1/4|3/4)(?![\d/])(?:[ -]?({_UNIT})(?![a-z\d]))?",
        _mixed_number,
        "/",
    ),
    rule(
        r"\b([1-9]\d?)/(5|6|8|10|16|32)(?= (?:inch|cup|mile|tsp|tbsp|teaspoon|tablespoon|acre|pound|of)\b)",
        _fraction,
        "/",
    ),
    rule(r"\b(\d{1,3})/(\d{1,3})(?= (?:stars?|points|rating)\b)", r"\1 out of \2", "/"),
    rule(rf"\b({NUMBER}) ?({_UNIT}){TO}(?=\d[\d,.]{{0,12}} ?\2(?![a-z]))", r"\1 to "),
    rule(rf"(?<!\d[-\u2013])\b({NUMBER}){TO}({NUMBER})(?![\d]|-\d)", r"\1 to \2"),
    rule(r"\b(\d{1,6})-(for|in|to|on|by)-(?=\d)", r"\1 \2 ", "-"),
    rule(rf"\b({NUMBER})k\b(?! (?:run|race|tv|video|uhd|screen|monitor|resolution|camera)\b)", _thousand, "k K"),
    rule(r"(?<=\d)(bn)\b", " billion", "b B"),
    rule(r"\b(\d+)(%?)\+(?=[ ,.;)]|$)", r"\1\2 or more", "+"),
    rule(r"(?<=\d)(%?) or more", r"\1 or more", "%"),
    rule(r"\u00b1 ?(?=\d)|\+/- ?(?=\d)", "plus or minus ", "\u00b1 +"),
    rule(r"[~\u2248] ?(?=\d)", "about ", "~ \u2248"),
    rule(rf"(?<![\w.])([-\u2212])?({NUMBER})(?: |-|\u00a0)?({_UNIT})(?![a-z\d])(?:\.(?= (?-i:[a-z])))?", _measure),
    rule(r"(?<=\d) ?[x\u00d7](?![a-z\d])", " times", "x X \u00d7"),
    rule(r"(?<![a-z\d])[x\u00d7] ?(?=\d)", "times ", "x X \u00d7"),
    rule(r"(?<=\d) ?\+ ?(?=\d)", " plus ", "+"),
)
