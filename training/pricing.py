"""What the prompts of those who sell something tell of it: goods and prices, and what is special about one of them."""

import random

from core.engine.spoken_numbers import spell_numbers
from training.catalogue import last_word, part_name, short_name
from training.episodes import Exchange
from training.facts import Fact, framed
from training.goods import Good, capital, with_articles, words_of
from training.numbers import written_price
from training.phrases import Groups, good_phrases, phrases, wordings
from training.prompts import Style, Told, told_about
from training.texts import table

_SHORT = 0.4
"""How often one of the goods may be called by its last word, if it is the only one with it."""
_IN_A_ROW = 0.4
"""How often the prices of several goods are told in one sentence, where they do not stand in a list."""
_SENTENCE = 22
"""The most words of a sentence that tells two prices."""
_LEFT = {"one": "one", "many": "a few", "some": "a little"}


def goods_and_prices(rng: random.Random, style: Style, goods: tuple[Good, ...], verb: str, held_out: bool) -> Fact:
    """What there is, and what it costs."""
    groups: Groups = [
        (3.0, (Exchange("price", _asks(rng, good, goods, held_out), _price_answer(rng, good)),)) for good in goods
    ]
    what = Exchange("goods", phrases("goods", held_out), f"We {verb} {offered(goods)}.")
    more = Exchange("more", phrases("more", held_out), _more(rng, goods, verb))
    groups.append((2.0, (what, more)))
    if len(goods) == 1:
        groups.append((1.0, (Exchange("prices", phrases("prices", held_out), _price_answer(rng, goods[0])),)))
    else:
        both = spell_numbers(f"{capital(goods[0].tell)}, and {goods[1].tell}.")
        if len(both.split()) <= _SENTENCE:
            groups.append((1.0, (Exchange("prices", phrases("prices", held_out), both),)))
    return Fact(told_about("our prices", _price_list(rng, style, goods, verb)), tuple(groups))


def _price_list(rng: random.Random, style: Style, goods: tuple[Good, ...], verb: str) -> str:
    """What each costs: in a list, in one sentence for all, or in a sentence for each."""
    told = [price_fields(rng, style, good, verb) for good in goods]
    if style.labelled or rng.random() < 0.25:
        return _listed(rng, told, verb)
    forms = table("prices")
    if len(goods) > 1 and rng.random() < _IN_A_ROW:
        return in_a_row(told, rng.choice(forms["series"]), rng.choice(forms["series_joins"]))
    every = rng.choice(_sentences(goods)) if rng.random() < 0.5 else ""
    sentences = (
        (every or rng.choice(_sentences((good,)))).format(**fields) for good, fields in zip(goods, told, strict=True)
    )
    return with_articles(" ".join(sentences))


def _sentences(goods: tuple[Good, ...]) -> list[str]:
    """Sentences of `texts/prices.yaml` that fit all of the goods."""
    forms: dict[str, list[str]] = table("prices")
    ones = forms["sentences_one"] if all(good.count == "one" for good in goods) else []
    return forms["sentences"] + ones


def in_a_row(told: list[dict[str, str]], series: str, joins: str) -> str:
    """`A plum cake costs 9 dollars, rye bread 4 dollars and lemonade 2 dollars.`"""
    first, following = series.split(" | ")
    between, last = joins.split("|")
    *texts, end = (first.format(**told[0]), *(following.format(**fields) for fields in told[1:]))
    return f"{between.join(texts)}{last}{end}."


def _listed(rng: random.Random, told: list[dict[str, str]], verb: str) -> str:
    forms = table("prices")
    entry = rng.choice(forms["entries"])
    label = "" if ":" in entry or rng.random() < 0.2 else f"{rng.choice(forms['labels']).format(verb=verb)} "
    between = rng.choice(forms["separators_strong" if "," in entry else "separators"])
    return in_a_list(told, entry, between, label, rng.random() < 0.3)


def in_a_list(told: list[dict[str, str]], entry: str, between: str, label: str, capitals: bool) -> str:
    """`Prices: plum cake 9 dollars, rye bread 4 dollars.` `capitals` tells whether each begins with one."""
    entries = [entry.format(**fields) for fields in told]
    if capitals or between == ". ":
        entries = [capital(text) for text in entries]
    return f"{label}{between.join(entries)}." if label else f"{capital(between.join(entries))}."


def price_fields(rng: random.Random, style: Style, good: Good, verb: str) -> dict[str, str]:
    """What the forms of `texts/prices.yaml` have of a good."""
    amount = written_price(rng, good.price, style.digits)
    price, many = f"{amount}{good.each}", good.count == "many"
    return {
        "subject": good.subject,
        "Subject": capital(good.subject),
        "word": good.word,
        "plural": good.plural,
        "Plural": capital(good.plural),
        "price": price,
        "Price": capital(price),
        "each": price if good.unit or good.count == "some" else f"{amount} each",
        "be": good.be,
        "are": "is" if good.count == "some" else "are",
        "s": "" if many else "s",
        "es": "" if many else "es",
        "it": "they" if many else "it",
        "verb": verb,
    }


def offered(goods: tuple[Good, ...]) -> str:
    """What one may name of it in a breath."""
    return " and ".join([good.plural for good in goods][:2])


def _more(rng: random.Random, goods: tuple[Good, ...], verb: str) -> str:
    if len(goods) > 2:
        return spell_numbers(f"We also {verb} {goods[2].plural}. {capital(goods[2].tell)}.")
    return rng.choice(("That is all for now.", "I am sorry, that is all.", "Nothing else today, I am afraid."))


def price_asks(good: Good, held_out: bool) -> tuple[str, ...]:
    """All ways to ask for one of the goods and its price."""
    return tuple(
        ask for kind in (f"price_{good.count}", "stock") for ask in good_phrases(kind, good.word, good.count, held_out)
    )


def indirect_asks(good: Good, held_out: bool) -> tuple[str, ...]:
    """What somebody says who needs one of the goods, of `texts/wanted.yaml`: nothing for most goods."""
    wanted = table("wanted")
    return wordings(wanted[good.word], held_out) if good.word in wanted else ()


def _asks(rng: random.Random, good: Good, goods: tuple[Good, ...], held_out: bool) -> tuple[str, ...]:
    """The same, and as people put it who do not name it; now and then by its last word or its first, where no other of
    the goods has it."""
    names = [short_name(good, goods) if rng.random() < _SHORT else None, part_name(good, goods)]
    shorter = (ask for name in names if name for ask in price_asks(name, held_out))
    indirect = (ask for ask in indirect_asks(good, held_out) if _tells_apart(ask, good, goods))
    return (*price_asks(good, held_out), *indirect, *shorter)


def _tells_apart(ask: str, good: Good, goods: tuple[Good, ...]) -> bool:
    """Whether it is of this one of the goods: where others are of its kind, it has a word that their names have not."""
    alike = [other for other in goods if other.word != good.word and last_word(other.word) == last_word(good.word)]
    own = words_of(good.word).difference(*(words_of(other.word) for other in alike))
    return not alike or not own.isdisjoint(words_of(ask))


def _price_answer(rng: random.Random, good: Good) -> str:
    plain = f"{capital(good.subject)} {good.be} {good.price}{good.each}."
    answer = rng.choice(
        (
            f"{capital(good.tell)}.",
            f"{capital(good.tell)}.",
            plain,
            f"The {good.word} {good.costs} {good.price}{good.each}.",
            f"The {good.word} {good.be} {good.price}{good.each}.",
            f"Sure, {good.tell}.",
        )
    )
    return spell_numbers(answer)


def special(rng: random.Random, goods: tuple[Good, ...], held_out: bool) -> Fact:
    """What is special about one of the goods."""
    good = goods[-1]
    tell = rng.choice(
        (
            f"This week {good.subject} {good.be} half price.",
            f"Today {good.subject} {good.be} half price.",
            f"{capital(good.subject)} {good.be} very popular.",
            f"{capital(good.subject)} {good.be} the special today.",
            f"There {good.be} only {_LEFT[good.count]} {good.word} left today.",
        )
    )
    if "half price" in tell:
        answer = rng.choice((tell, f"Yes. {tell}", f"Good question. {tell}"))
    else:
        answer = rng.choice((tell, f"Well, {tell[0].lower()}{tell[1:]}"))
    return Fact(Told(framed(rng, tell)), ((2.0, (Exchange("special", phrases("special", held_out), answer),)),))
