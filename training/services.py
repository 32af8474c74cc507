"""Service roles: somebody who works for a company and knows its goods, prices, hours and rules."""

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from core.engine.spoken_numbers import spell_numbers
from training import names
from training.episodes import Episode, Exchange
from training.goods import Good, all_goods, capital, money, some_goods
from training.numbers import with_dollar_signs
from training.phrases import Groups, chosen, good_phrases, phrases, pick, small_talk, unknown, wordings
from training.texts import choices, table

_ANSWER_WORDS = 46
"""About 25 s of speech, with greeting and farewell."""
_DIGITS_SHARE = 0.15
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_CURRENCIES = {"dollars": 0.88, "euros": 0.07, "pounds": 0.05}
_OPENINGS = (
    "You work for {company} which is {kind} and your name is {name}. Information:",
    "You work for {company} which is {kind} and your name is {name}. Information:",
    "You work for {company} which is {kind} and your name is {name}. Information:",
    "You work for {company}, which is {kind}, and your name is {name}.",
    "You work for {company}, {kind}. Your name is {name}. Information:",
    "You are {name} from {company}, which is {kind}.",
    "Your name is {name} and you work at {company}, {kind}.",
    "You are {name}. You answer the phone at {company}, {kind}. Information:",
)
_OPENING_NO_NAME = "You work for {company} which is {kind}. Information:"
_LEFT = {"one": "one", "many": "a few", "some": "a little"}
_HOURS = (
    "from {open} am to {close} pm",
    "every day from {open} am to {close} pm",
    "Monday to Friday from {open} am to {close} pm",
    "from {open} am to {close} pm, closed on {day}s",
    "on weekdays from {open}:30 am to {close} pm",
    "Tuesday to Sunday from {open} am to {late} pm",
    "every day until {late} pm",
    "daily from {open} am until {late}:30 pm",
    "day and night",
)
_PLACES = (
    "at {number} {road}",
    "at {number} {road}",
    "on {road}, next to {landmark}",
    "on the corner of {road} and {road2}",
    "opposite {landmark}",
    "behind {landmark}",
)


@dataclass(frozen=True)
class Fact:
    """A statement of the prompt, and what callers may ask because of it: groups of exchanges, each with its weight."""

    tell: str
    groups: tuple[tuple[float, tuple[Exchange, ...]], ...]


def service(rng: random.Random, held_out: bool = False, playful: bool = False) -> Episode:
    """Somebody at work. `playful`: in a shop for pirates, or the like."""
    trades = table("trades")
    trade = rng.choice([trade for trade in trades if ("currency" in trade) == playful and trade["kind"] != "any"])
    title = rng.choice(("Captain", "Professor", "Old", "", "", "")) if playful else ""
    person = names.person(rng, held_out, title) if playful or rng.random() < 0.95 else names.Person("", "")
    company = names.company(rng, rng.choice(trade["companies"].split(", ")), held_out)
    fields = {"name": person.name, "first": person.first, "company": company, "kind": trade["kind"]}
    opening = (rng.choice(_OPENINGS) if person.name else _OPENING_NO_NAME).format(**fields)
    facts = _facts(rng, trade, held_out, target=rng.randint(24, 66) - len(opening.split()))
    prompt = " ".join((opening, *(fact.tell for fact in facts)))
    if rng.random() >= _DIGITS_SHARE:
        prompt = spell_numbers(prompt)
    elif rng.random() < 0.5:
        prompt = with_dollar_signs(prompt)
    groups = [group for fact in facts for group in fact.groups]
    groups += _small_talk(rng, fields, held_out)
    exchanges = (*chosen(rng, groups, _ANSWER_WORDS), _goodbye(rng, fields, held_out))
    exchanges = tuple(Exchange(exchange.kind, exchange.asks, spell_numbers(exchange.answer)) for exchange in exchanges)
    greeting = _greeting(rng, trade, fields)
    kind = "playful" if playful else "service"
    return Episode(kind, prompt, person.name, person.first, company, greeting, exchanges, phrases("sorry", held_out))


def _greeting(rng: random.Random, trade: dict[str, Any], fields: dict[str, str]) -> str:
    answers = table("answers")
    if not fields["name"]:
        return pick(rng, answers["greetings_no_name"], **fields, help=answers["help"])
    if "hello" in trade and rng.random() < 0.7:
        return pick(rng, answers["greetings_playful"], hello=trade["hello"], **fields, help=answers["help"])
    return pick(rng, answers["greetings"], **fields, help=answers["help"])


def _small_talk(rng: random.Random, fields: dict[str, str], held_out: bool) -> Groups:
    answers = table("answers")
    fields = {**fields, "help": answers["help"]}
    named = "name" if fields["name"] else "company"
    groups: Groups = [
        (6.0, (Exchange("name", phrases("name", held_out), pick(rng, answers[named], **fields)),)),
        (0.8, (Exchange("company", phrases("company", held_out), pick(rng, answers["company"], **fields)),)),
        (0.5, (Exchange("what", phrases("what", held_out), pick(rng, answers["what"], **fields)),)),
        (2.0, (unknown(rng, "service", held_out, **fields),)),
    ]
    return groups + [(0.3, (exchange,)) for exchange in small_talk(rng, "service", held_out, **fields)]


def _goodbye(rng: random.Random, fields: dict[str, str], held_out: bool) -> Exchange:
    return Exchange("goodbye", phrases("goodbye", held_out), pick(rng, table("answers")["goodbye"], **fields))


def _facts(rng: random.Random, trade: dict[str, Any], held_out: bool, target: int) -> list[Fact]:
    """Statements of about `target` words in all, none of which answers the same question as another."""
    own = rng.choice(trade["facts"])
    rules = [
        own,
        *rng.sample([fact for fact in (*trade["facts"], *table("trades")[-1]["facts"]) if fact is not own], 2),
    ]
    currency = trade.get("currency") or rng.choices(tuple(_CURRENCIES), tuple(_CURRENCIES.values()))[0]
    goods = some_goods(rng, trade, rng.choice((1, 2, 2, 3, 3)), currency)
    others = [_hours(rng, held_out), _place(rng, held_out), _special(rng, goods, held_out)]
    others += [_rule(rng, rule, held_out, currency) for rule in rules]
    if rng.random() < 0.15:
        others.append(_phone(rng, held_out))
    rng.shuffle(others)
    facts = [_goods(rng, goods, trade.get("verb", "have"), held_out)]
    for fact in others:
        if sum(len(other.tell.split()) for other in facts) < target:
            facts.append(fact)
    rng.shuffle(facts)
    return [Fact(trade["manner"], ()), *facts] if "manner" in trade else facts


def _goods(rng: random.Random, goods: tuple[Good, ...], verb: str, held_out: bool) -> Fact:
    style = rng.randrange(3)
    if style == 0 and len(goods) > 1:
        tells = [goods[0].tell, *(f"{good.subject} {good.price}{good.each}" for good in goods[1:])]
        tell = f"{capital(', '.join(tells[:-1]))} and {tells[-1]}."
    elif style == 1:
        tell = " ".join(f"{capital(good.subject)} {good.be} {good.price}{good.each}." for good in goods)
    else:
        tell = " ".join(f"{capital(good.tell)}." for good in goods)
    groups: Groups = [
        (2.5, (Exchange("price", _price_asks(good, held_out), _price_answer(rng, good)),)) for good in goods
    ]
    stock = [good.plural for good in goods]
    offered = " and ".join(stock[:2])
    what = Exchange("goods", phrases("goods", held_out), f"We {verb} {offered}.")
    more = Exchange("more", phrases("more", held_out), _more(rng, goods, verb))
    groups += [(1.5, (what, more)), (0.7, (_not_sold(rng, {good.word for good in goods}, offered, verb, held_out),))]
    if len(goods) == 1:
        groups.append((1.0, (Exchange("prices", phrases("prices", held_out), _price_answer(rng, goods[0])),)))
    elif len(goods[0].price.split()) < 4:
        both = f"{capital(goods[0].tell)}, and {goods[1].subject} {goods[1].price}{goods[1].each}."
        groups.append((1.0, (Exchange("prices", phrases("prices", held_out), both),)))
    return Fact(tell, tuple(groups))


def _more(rng: random.Random, goods: tuple[Good, ...], verb: str) -> str:
    if len(goods) > 2:
        return f"We also {verb} {goods[2].plural}. {capital(goods[2].tell)}."
    return rng.choice(("That is all for now.", "I am sorry, that is all.", "Nothing else today, I am afraid."))


def _not_sold(rng: random.Random, sold: Collection[str], offered: str, verb: str, held_out: bool) -> Exchange:
    elsewhere = [good for good in all_goods() if good.word not in sold]
    wanted = rng.sample(elsewhere, 3)
    asks = (ask for good in wanted for ask in good_phrases("stock", good.word, good.count, held_out))
    answer = rng.choice(("I am sorry, we do not have that.", f"I am sorry, no. But we {verb} {offered}."))
    return Exchange("not_sold", tuple(asks), answer)


def _price_asks(good: Good, held_out: bool) -> tuple[str, ...]:
    return tuple(
        ask for kind in (f"price_{good.count}", "stock") for ask in good_phrases(kind, good.word, good.count, held_out)
    )


def _price_answer(rng: random.Random, good: Good) -> str:
    plain = f"{capital(good.subject)} {good.be} {good.price}{good.each}."
    return rng.choice(
        (
            f"{capital(good.tell)}.",
            f"{capital(good.tell)}.",
            plain,
            f"The {good.word} {good.costs} {good.price}{good.each}.",
            f"The {good.word} {good.be} {good.price}{good.each}.",
            f"Sure, {good.tell}.",
        )
    )


def _special(rng: random.Random, goods: tuple[Good, ...], held_out: bool) -> Fact:
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
    return Fact(tell, ((1.5, (Exchange("special", phrases("special", held_out), answer),)),))


def _hours(rng: random.Random, held_out: bool) -> Fact:
    hours = rng.choice(_HOURS).format(
        open=rng.randint(6, 11), close=rng.randint(1, 8), late=rng.randint(6, 11), day=rng.choice(_DAYS)
    )
    tell = rng.choice(("Open {hours}.", "We are open {hours}.", "It is open {hours}.")).format(hours=hours)
    answer = rng.choice(("We are open {hours}.", "We are open {hours}.", "You can come {hours}."))
    return Fact(tell, ((2.5, (Exchange("hours", phrases("hours", held_out), answer.format(hours=hours)),)),))


def _place(rng: random.Random, held_out: bool) -> Fact:
    landmark = rng.choice(table("places")["landmarks"])
    place = rng.choice(_PLACES).format(
        number=rng.randint(1, 199), road=names.road(rng), road2=names.road(rng), landmark=landmark
    )
    tell = rng.choice(("You find us {place}.", "We are {place}.", "It is {place}.")).format(place=place)
    answer = rng.choice(("We are {place}.", "You find us {place}.", "Come and see us {place}."))
    return Fact(tell, ((2.0, (Exchange("where", phrases("where", held_out), answer.format(place=place)),)),))


def _phone(rng: random.Random, held_out: bool) -> Fact:
    phone = f"555 {rng.randint(0, 9999):04d}"
    answer = pick(rng, table("answers")["phone"], phone=phone)
    return Fact(f"The phone number is {phone}.", ((2.0, (Exchange("phone", phrases("phone", held_out), answer),)),))


def _rule(rng: random.Random, rule: dict[str, str], held_out: bool, currency: str) -> Fact:
    told = rng.choice(choices(rule["tells"]))
    fields = {
        "number": str(rng.randint(2, 9)),
        "time": f"{rng.choice((8, 9, 10, 11))}{rng.choice(('', '', ':30', ':15'))} am",
        "morning": f"{rng.randint(6, 10)}{rng.choice(('', '', ':30'))} am",
        "evening": f"{rng.randint(6, 10)}{rng.choice(('', '', ':30'))} pm",
        "day": rng.choice((*_DAYS, "the weekend") if " on {day}" not in told else _DAYS),
        "money": money(rng, currency),
        "surname": names.surname(rng, held_out),
        "town": names.town(rng),
    }
    if rng.random() < 0.5:
        fields["time"] = f"{rng.randint(1, 5)}{rng.choice(('', '', ':30', ':45'))} pm"
    tell, *answer = told.format(**fields).split(" | ")
    return Fact(tell, ((2.0, (Exchange("fact", wordings(rule["asks"], held_out), answer[0] if answer else tell),)),))
