"""Prices as people write them; `core.engine.spoken_numbers` says them in words."""

import random
import re

from core.engine.spoken_numbers import spell_numbers

_PRICE = re.compile(r"(\d+) (dollar|euro|pound)s?(?: and (\d\d) cents)?")
_WRITTEN = {
    "dollar": ("${}", "${}", "${}", "{} dollars", "{} USD"),
    "euro": ("\u20ac{}", "{} \u20ac", "{} euros", "{} EUR"),
    "pound": ("\u00a3{}", "{} pounds"),
}


def price(amount: int, cents: int = 0, currency: str = "dollars") -> str:
    """A price with digits, such as `4 dollars and 50 cents` or `1 gold coin`; `currency` in the plural."""
    whole = f"{amount} {currency.removesuffix('s') if amount == 1 else currency}"
    return f"{whole} and {cents} cents" if cents else whole


def written_price(rng: random.Random, price: str, digits: bool) -> str:
    """A price of `price` as somebody writes it: `$4.50`, `12 \u20ac`, or in words. It is said as before."""
    found = _PRICE.fullmatch(price)
    if not digits:
        return spell_numbers(price)
    if found is None:
        return price
    amount = f"{found[1]}.{found[3]}" if found[3] else rng.choice((found[1], found[1], f"{found[1]}.00"))
    return rng.choice(_WRITTEN[found[2]]).format(amount)
