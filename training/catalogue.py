"""Goods that any business may have: so many that they are heard and found in the prompt, and not known by heart."""

import random
from collections import defaultdict
from dataclasses import replace
from functools import cache

from training.goods import Good, Offer, all_goods, offers, resemble, words_of
from training.phrases import is_held_out
from training.texts import expanded, table, words

ALIKE, RELATED = 0.3, 0.35
"""How often goods share a word, `day pass` and `month pass`, and how often they are of one group. Others are any."""
BY_A_UNIT = 0.15
"""How often a price is not of the thing itself, but of these."""
UNITS = ("an hour", "a day", "a night", "a week", "a month", "a person")
UNITS_OF_SOME = ("a pound", "a kilo", "a bag", "a box", "a bottle", "a portion")


def any_goods(rng: random.Random, count: int, currency: str, held_out: bool) -> tuple[Good, ...]:
    """At most `count` goods with prices drawn anew, in a currency (in the plural), of which none may mean another.

    With `held_out` they are such as never occur without.
    """
    groups, alike = _groups(held_out), _alike(held_out)
    form = rng.random()
    drawn = list(rng.choice(alike if form < ALIKE else groups))
    rng.shuffle(drawn)
    if form < ALIKE:
        drawn[2:] = rng.choice(groups)
    elif form > ALIKE + RELATED:
        drawn = [rng.choice(rng.choice(groups)) for _ in range(2 * count)]
    kept: list[Offer] = []
    for offer in drawn:
        if len(kept) < count and not any(resemble(offer.good, other.good) for other in kept):
            kept.append(offer)
    return tuple(_by_a_unit(rng, offer.priced(rng, currency)) for offer in kept)


def _by_a_unit(rng: random.Random, good: Good) -> Good:
    """The same, now and then with a price for so long or so much of it."""
    if rng.random() >= BY_A_UNIT:
        return good
    return replace(good, unit=rng.choice(UNITS_OF_SOME if good.count == "some" else UNITS))


def other_good(rng: random.Random, goods: tuple[Good, ...], words: set[str]) -> Good:
    """One that a prompt with these goods and `words` does not name, half of the time much like one that it does."""
    near = [good for one in goods for good in _by_last_word().get(last_word(one.word), ())]
    while True:
        good = rng.choice(near) if near and rng.random() < 0.5 else rng.choice(askable())
        near = []
        if not words_of(good.word) <= words and not any(resemble(good, one) for one in goods):
            return good


def short_name(good: Good, goods: tuple[Good, ...]) -> Good | None:
    """What callers may call one of these goods, `pizza` for `large pizza`, if something is sold under this name."""
    last = last_word(good.word)
    if " " not in good.word or sum(last.lower() in words_of(one.word) for one in goods) > 1:
        return None
    return next((one for one in _by_last_word().get(last, ()) if one.word == good.word.split()[-1]), None)


def part_name(good: Good, goods: tuple[Good, ...]) -> Good | None:
    """`large one` for `large pizza`, if this is the only one of these goods that is large."""
    first, *rest = good.word.split()
    if good.count != "one" or len(rest) != 1 or sum(first in one.word.split() for one in goods) > 1:
        return None
    return part_names().get(first)


@cache
def part_names() -> dict[str, Good]:
    """What callers may name of a good instead of all of it, by its first word: those of `texts/part_names.txt`."""
    return {first: Good(f"{first} one", "one", "") for first in words("part_names")}


@cache
def askable() -> tuple[Good, ...]:
    """All goods that callers ask for in training: those of every trade and those of the list."""
    return (*all_goods(), *(offer.good for group in _listed().values() for offer in group if not _is_held_out(offer)))


def last_word(name: str) -> str:
    """The word that says what it is, of one such thing."""
    return name.split()[-1].removesuffix("s")


def _is_held_out(offer: Offer) -> bool:
    """Whether a good is for evaluation only. Names of one word are not: other names have them too."""
    return " " in offer.good.word and is_held_out(f"good {offer.good.word}")


@cache
def _listed() -> dict[str, tuple[Offer, ...]]:
    """What `texts/goods.yaml` holds, by group."""
    groups: dict[str, list[Offer]] = defaultdict(list)
    for group, entries in table("goods").items():
        for key, names in entries.items():
            count, lowest, highest = key.split()
            words = (word for name in names.split(", ") for word in expanded(name))
            groups[group] += [Offer(Good(word, count, ""), int(lowest), int(highest)) for word in words]
    return {group: tuple(entries) for group, entries in groups.items()}


@cache
def _groups(held_out: bool) -> tuple[tuple[Offer, ...], ...]:
    """Goods that belong together. Those of the trades are trained on; prices in strange coins are none of theirs."""
    listed = [tuple(offer for offer in group if _is_held_out(offer) == held_out) for group in _listed().values()]
    trades = [] if held_out else [offers(trade) for trade in table("trades") if "currency" not in trade]
    return tuple(group for group in (*listed, *trades) if group)


@cache
def _alike(held_out: bool) -> tuple[tuple[Offer, ...], ...]:
    """Goods with the same last word, where there are several. Each occurs once for every one, as often as any."""
    found: dict[str, list[Offer]] = defaultdict(list)
    for offer in (offer for group in _groups(held_out) for offer in group):
        found[last_word(offer.good.word)].append(offer)
    return tuple(tuple(offers) for offers in found.values() for _ in offers if len(offers) > 1)


@cache
def _by_last_word() -> dict[str, tuple[Good, ...]]:
    found: dict[str, list[Good]] = defaultdict(list)
    for good in askable():
        found[last_word(good.word)].append(good)
    return {last: tuple(goods) for last, goods in found.items()}
