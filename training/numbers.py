"""Prices as training writes them; `core.engine.spoken_numbers` says them in words."""

import re

_PRICE = re.compile(r"\b(\d+) dollars?(?: and (\d\d) cents)?\b")


def price(amount: int, cents: int = 0, currency: str = "dollars") -> str:
    """A price with digits, such as `4 dollars and 50 cents` or `1 gold coin`; `currency` in the plural."""
    whole = f"{amount} {currency.removesuffix('s') if amount == 1 else currency}"
    return f"{whole} and {cents} cents" if cents else whole


def with_dollar_signs(text: str) -> str:
    """The text with prices as `$4.50` and `$12`."""
    return _PRICE.sub(lambda found: f"${found[1]}.{found[2]}" if found[2] else f"${found[1]}", text)
