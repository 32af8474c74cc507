"""Prices: `$4.50`, `4 €`, `EUR 4`, `50c`, `99p`, `$20/hr`, and those without a currency, `costs 12.50`."""

import re

from core.engine.spoken_numbers.number_words import hundredths, number_in_words
from core.engine.spoken_numbers.rule import NUMBER, TO, rule

_CENTS = ("cent", "cents")
_CURRENCIES = {
    "$": ("dollar", "dollars", *_CENTS),
    "usd": ("dollar", "dollars", *_CENTS),
    "dollar": ("dollar", "dollars", *_CENTS),
    "cad": ("Canadian dollar", "Canadian dollars", *_CENTS),
    "aud": ("Australian dollar", "Australian dollars", *_CENTS),
    "€": ("euro", "euros", *_CENTS),
    "eur": ("euro", "euros", *_CENTS),
    "euro": ("euro", "euros", *_CENTS),
    "£": ("pound", "pounds", "penny", "pence"),
    "gbp": ("pound", "pounds", "penny", "pence"),
    "pound": ("pound", "pounds", "penny", "pence"),
    "chf": ("franc", "francs", *_CENTS),
    "franc": ("franc", "francs", *_CENTS),
    "¥": ("yen", "yen", "sen", "sen"),
    "jpy": ("yen", "yen", "sen", "sen"),
    "yen": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "rs": ("rupee", "rupees", "paisa", "paise"),
    "inr": ("rupee", "rupees", "paisa", "paise"),
    "rupee": ("rupee", "rupees", "paisa", "paise"),
}
_LARGE = {"k": "thousand", "m": "million", "bn": "billion"}
_DOLLARS = {"us": "US", "a": "Australian", "au": "Australian", "c": "Canadian", "ca": "Canadian", "nz": "New Zealand"}
_UNITS = {
    "hr": "hour",
    "h": "hour",
    "kg": "kilogram",
    "lb": "pound",
    "min": "minute",
    "mo": "month",
    "mth": "month",
    "wk": "week",
    "yr": "year",
    "pers": "person",
    "ppl": "person",
    "pp": "person",
    "sqm": "square meter",
    "km": "kilometer",
    "mi": "mile",
    "l": "liter",
}
_PER = (
    "hour|hr|h|kg|lb|pound|night|day|week|wk|month|mth|mo|year|yr|person|pers|pp|piece|guest|minute|min|head|adult|child"
    "|kid|car|pet|dog|item|km|mile|mi|liter|litre|l|room|slice|visit|session|class|lesson|ticket|pair|dozen|sqm"
)
_SIGN = "([$€£¥₹])"
_NAMES = ("dollar", "euro", "pound", "franc", "rupee")
_CODES = "usd|eur|gbp|chf|cad|aud|inr|jpy"
_AMOUNT = rf"({NUMBER}|\.\d\d)"
_CURRENCY = rf"([€$£¥₹]|{_CODES}|(?:dollar|euro|pound|franc|rupee)(?=s?\b)|yen\b)"
_HAS_SIGN = "$ € £ ¥ ₹"
_NO_PRICE = (
    r"(?![\d%:/\"']|[.,]\d|\s?(?:[ap]\.?m\b|[kcm]?m\b|[km]?g\b|m?l\b|km|miles?\b|met|feet|ft\b|inch|hours?\b|hrs?\b|h\b"
    r"|min|million|out of|stars?\b|times\b|points?\b|percent|degrees|°|liter|litre|kilo|pounds? of|lbs?\b|oz\b"
    r"|ounces?))"
)
_NO_CURRENCY = rf"(?<![\d.,:$€£\-/])(\d{{1,4}})[.,](\d\d)(?!\d){_NO_PRICE}"
_WITHOUT_CURRENCY = re.compile(rf"(?<!until )(?<!till )(?<!opens )(?<!closes ){_NO_CURRENCY}", re.IGNORECASE)
_COSTS = (
    r"\b(?:costs?|prices?|priced|pricing|menu|fees?|charges?|pay|pays|paid|sell|sells|sold|only|just|admission|entry"
    r"|tickets?|specials?)\b"
)
_FOR_EACH = (
    r"(?= ?(?:each|apiece|a piece|per|ea\b|a (?:person|head|slice|glass|cup|bottle|pint|night|day|week|month)\b))"
)


def price(amount: str, currency: str) -> str:
    """A price in words; `currency` is its sign, code or name."""
    one, many, hundredth, small_many = _CURRENCIES[currency.lower().rstrip(".")]
    whole, _, cents = amount.replace(",", "").partition(".")
    if len(cents) == 1 and currency != "pound":
        cents += "0"
    if len(cents) not in (0, 2):
        return f"{number_in_words(amount)} {many}"
    count = int(cents or 0)
    small = f"{number_in_words(cents)} {hundredth if count == 1 else small_many}" if count else ""
    if small and not int(whole or 0):
        return small
    large = f"{number_in_words(whole or '0')} {one if int(whole or 0) == 1 else many}"
    return f"{large} and {small}" if small else large


def _range(first: str, last: str, currency: str) -> str:
    if "." in first:
        return f"{price(first, currency)} to {price(last, currency)}"
    return f"{number_in_words(first)} to {price(last, currency)}"


def _large(found: re.Match[str]) -> str:
    """`$1.5k`, `$1.5 million`."""
    size = found[3].lower()
    return f"{number_in_words(found[2])} {_LARGE.get(size, size)} {_CURRENCIES[found[1]][1]}"


def _kind_of_dollar(found: re.Match[str]) -> str:
    return price(found[2], "$").replace("dollar", f"{_DOLLARS[found[1].lower()]} dollar", 1)


def _named(found: re.Match[str]) -> str:
    """`4.50 dollars` is a price; in `5 dollar menu` the word stays as it is written."""
    amount, currency, plural = found.groups()
    by_name = currency.lower() in _NAMES
    before_a_noun = not plural and re.match(r"[ -][a-z]", found.string[found.end() : found.end() + 2])
    return f"{number_in_words(amount)} {currency}" if by_name and before_a_noun else price(amount, currency)


def _per(found: re.Match[str]) -> str:
    """`$20/hr` is twenty dollars an hour, `$30/pet/night` thirty dollars a pet a night."""
    said = []
    for written in found[0].split("/")[1:]:
        unit = _UNITS.get(written.strip().lower(), written.strip())
        said.append(f" {'an' if unit.lower().startswith(('hour', 'adult', 'item')) else 'a'} {unit}")
    return "".join(said)


def _cents(found: re.Match[str]) -> str:
    pence = found[2] == "p"
    one, many = ("penny", "pence") if pence else _CENTS
    return f"{number_in_words(found[1])} {one if found[1] == '1' else many}"


def _bare(found: re.Match[str]) -> str:
    """`12.50` is `twelve fifty` where nothing tells the currency."""
    whole, cents = found[1], found[2]
    if not int(whole):
        return f"{number_in_words(cents)} cents"
    return f"{number_in_words(whole)}{hundredths(cents)}"


def _bare_prices(found: re.Match[str]) -> str:
    return _WITHOUT_CURRENCY.sub(_bare, found[0])


def _thousands(found: re.Match[str]) -> str:
    """`1.200,50` with the marks that Americans use."""
    cents = f".{found[2]}" if found[2] else ""
    return found[1].replace(".", "") + cents


_NO_NOUN = r"(?:an?|per|for|and|or|each|off|to|more|extra|on|in|at|if|with|plus|less|is|but|million|billion|usd)\b"
"""Words before which `a $5` is not `a five dollar ...`."""
_EURO_THOUSANDS = r"(\d{1,3}(?:\.\d{3}){1,3})(?:,(\d\d))?(?![\d.,]\d)"
RULES = (
    rule(r"(?<=\d)[.,](?:[-\u2013]{1,2}|\u2014)(?=\s?(?:€|eur|chf)|[\s;,)]|$)", "", "- \u2013 \u2014"),
    rule(rf"(?<=€){_EURO_THOUSANDS}", _thousands, "€"),
    rule(rf"(?<=€ ){_EURO_THOUSANDS}", _thousands, "€"),
    rule(rf"(?<![\d.,]){_EURO_THOUSANDS}(?=\s?(?:€|euros?\b|eur\b|chf\b))", _thousands, "."),
    rule(r"(€\s?\d+),(\d\d?)(?!\d)", r"\1.\2", "€"),
    rule(
        r"(?<![\d.,])(\d{1,6}),(\d\d?)(?!\d)(?=\s?(?:[-\u2013]\s?\d{1,6},\d\d?\s?)?(?:€|euros?\b|eur\b|chf\b))",
        r"\1.\2",
        ",",
    ),
    rule(r"\b(\d{1,4})€(\d\d)\b", r"€\1.\2", "€"),
    rule(r"\u2212(?=[$€£])", "minus ", "\u2212"),
    rule(r"\+(?=[$€£]\s?[\d.])", "plus ", "+"),
    rule(r"([$€£]\s?\d[\d.,]{0,12}) ?(?:pp|p\.p\.)(?!\w)", r"\1 a person", _HAS_SIGN),
    rule(r"([$€£]\s?\d[\d.,]{0,12}) ?ea\b\.?", r"\1 each", _HAS_SIGN),
    rule(rf"(?<=[\d€$£¢+])(?:\s?/\s?(?:{_PER})\b){{1,3}}", _per, "/"),
    rule(
        rf"(?:(?<=dollars)|(?<=dollar)|(?<=euros)|(?<=euro)|(?<=pounds)|(?<=cents)|(?<=pence)|(?<=eur)|(?<=usd))(?:\s?/\s?(?:{_PER})\b){{1,3}}",
        _per,
        "/",
    ),
    rule(r"(?<=[$€£]\d)/[a-z]{3,12}\b(?!/)", _per, "/"),
    rule(r"([$€£]\s?\d[\d.,]{0,12}k?)\+", r"\1 or more", "+"),
    rule(rf"{_SIGN}\s?({NUMBER})\s?(k|m|bn|million|billion|thousand)\b", _large, _HAS_SIGN),
    rule(rf"\b(us|au?|ca?|nz)\$\s?({NUMBER})", _kind_of_dollar, "$"),
    rule(
        rf"{_SIGN}\s?{_AMOUNT}{TO}\1?{_AMOUNT}(?![%\d])", lambda found: _range(found[2], found[3], found[1]), _HAS_SIGN
    ),
    rule(
        rf"\b({NUMBER}) ?{_CURRENCY}s?{TO}({NUMBER}) ?\2s?(?![a-z])", lambda found: _range(found[1], found[3], found[2])
    ),
    rule(rf"\b({NUMBER}){TO}({NUMBER}) ?{_CURRENCY}s?(?![a-z])", lambda found: _range(found[1], found[2], found[3])),
    rule(
        rf"(?:(?<=\ba )|(?<=\bthe )){_SIGN}(\d[\d,]{{0,10}})(?= (?!{_NO_NOUN})[a-z]+)",
        lambda found: f"{number_in_words(found[2])} {_CURRENCIES[found[1]][0]}",
        _HAS_SIGN,
    ),
    rule(
        r"(\$\s?\d[\d.,]{0,12})\s?usd\b|(€\s?\d[\d.,]{0,12})\s?eur\b|(£\s?\d[\d.,]{0,12})\s?gbp\b", r"\1\2\3", _HAS_SIGN
    ),
    rule(rf"{_SIGN}\s?{_AMOUNT}", lambda found: price(found[2], found[1]), _HAS_SIGN),
    rule(rf"\b(?=[uegcajir])({_CODES}|rs\.?) ?{_AMOUNT}", lambda found: price(found[2], found[1])),
    rule(rf"\b({NUMBER})[ \t\u00a0]?-?{_CURRENCY}(s?)(?![a-z])", _named),
    rule(rf"\b({NUMBER}) ?(¢)", _cents, "¢"),
    rule(r"(?<![\w.,])(\d{1,2}(?:\.\d)?)(?-i:(c|p))\b(?![.\-'](?:[a-z]))", _cents, "c p"),
)
"""Prices with a currency."""
WITHOUT_CURRENCY = (
    rule(rf"{_NO_CURRENCY}{_FOR_EACH}", _bare, ". ,", needs=r"\d[.,]\d\d(?!\d)"),
    rule(rf"{_COSTS}(?:[^.\n;!?]|\.(?=\d)){{0,160}}", _bare_prices, ". ,", needs=r"\d[.,]\d\d(?!\d)"),
    rule(
        r"(?=[1-9])(?<!rated )(?<!rating )(?<!version )(?<!score )(?<!until )(?<![\d.,:$€£\-/v])\b"
        r"([1-9]\d{0,2})\.(\d[059])"
        r"(?=[,;)\n]|\.?\s*$|\.\s| and | or )",
        _bare,
        ".",
    ),
)
"""Prices without; they are tried after hours."""
