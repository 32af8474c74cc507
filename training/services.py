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
from training.phrases import Groups, chosen, phrases, pick, small_talk, some, some_phrases, unknown
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
    groups += _small_talk(rng, fields)
    exchanges = (*chosen(rng, groups, _ANSWER_WORDS), _goodbye(rng, fields))
    exchanges = tuple(Exchange(exchange.kind, exchange.asks, spell_numbers(exchange.answer)) for exchange in exchanges)
    greeting = _greeting(rng, trade, fields)
    kind = "playful" if playful else "service"
    return Episode(kind, prompt, person.name, person.first, company, greeting, exchanges, some_phrases(rng, "sorry"))


def _greeting(rng: random.Random, trade: dict[str, Any], fields: dict[str, str]) -> str:
    answers = table("answers")
    if not fields["name"]:
        return pick(rng, answers["greetings_no_name"], **fields, help=answers["help"])
    if "hello" in trade and rng.random() < 0.7:
        return pick(rng, answers["greetings_playful"], hello=trade["hello"], **fields, help=answers["help"])
    return pick(rng, answers["greetings"], **fields, help=answers["help"])


def _small_talk(rng: random.Random, fields: dict[str, str]) -> Groups:
    answers = table("answers")
    fields = {**fields, "help": answers["help"]}
    named = "name" if fields["name"] else "company"
    groups: Groups = [
        (6.0, (Exchange("name", some_phrases(rng, "name"), pick(rng, answers[named], **fields)),)),
        (0.8, (Exchange("company", some_phrases(rng, "company"), pick(rng, answers["company"], **fields)),)),
        (0.5, (Exchange("what", some_phrases(rng, "what"), pick(rng, answers["what"], **fields)),)),
        (2.0, (unknown(rng, "service", **fields),)),
    ]
    return groups + [(0.3, (exchange,)) for exchange in small_talk(rng, "service", **fields)]


def _goodbye(rng: random.Random, fields: dict[str, str]) -> Exchange:
    return Exchange("goodbye", some_phrases(rng, "goodbye"), pick(rng, table("answers")["goodbye"], **fields))


def _facts(rng: random.Random, trade: dict[str, Any], held_out: bool, target: int) -> list[Fact]:
    """Statements of about `target` words in all, none of which answers the same question as another."""
    trades = table("trades")
    rules = [rng.choice(trade["facts"]), *rng.sample(trade["facts"] + trades[-1]["facts"], 2)]
    currency = trade.get("currency") or rng.choices(tuple(_CURRENCIES), tuple(_CURRENCIES.values()))[0]
    goods = some_goods(rng, trade, rng.choice((1, 2, 2, 3, 3)), currency)
    others = [_hours(rng), _place(rng), _special(rng, goods), *(_rule(rng, rule, held_out, currency) for rule in rules)]
    if rng.random() < 0.15:
        others.append(_phone(rng))
    rng.shuffle(others)
    facts = [_goods(rng, goods, trade.get("verb", "have"))]
    heard: set[str] = set()
    for fact in others:
        asks = {ask for _, group in fact.groups for exchange in group for ask in exchange.asks}
        if sum(len(other.tell.split()) for other in facts) < target and not asks & heard:
            heard |= asks
            facts.append(fact)
    rng.shuffle(facts)
    return [Fact(trade["manner"], ()), *facts] if "manner" in trade else facts


def _goods(rng: random.Random, goods: tuple[Good, ...], verb: str) -> Fact:
    style = rng.randrange(3)
    if style == 0 and len(goods) > 1:
        tells = [goods[0].tell, *(f"{good.subject} {good.price}{good.each}" for good in goods[1:])]
        tell = f"{capital(', '.join(tells[:-1]))} and {tells[-1]}."
    elif style == 1:
        tell = " ".join(f"{capital(good.subject)} {good.be} {good.price}{good.each}." for good in goods)
    else:
        tell = " ".join(f"{capital(good.tell)}." for good in goods)
    groups: Groups = [(2.5, (Exchange("price", _price_asks(rng, good), _price_answer(rng, good)),)) for good in goods]
    stock = [good.plural for good in goods]
    offered = " and ".join(stock[:2])
    what = Exchange("goods", some_phrases(rng, "goods"), f"We {verb} {offered}.")
    more = Exchange("more", some_phrases(rng, "more"), _more(rng, goods, verb))
    groups += [(1.5, (what, more)), (0.7, (_not_sold(rng, {good.word for good in goods}, offered, verb),))]
    if len(goods) == 1:
        groups.append((1.0, (Exchange("prices", some_phrases(rng, "prices"), _price_answer(rng, goods[0])),)))
    elif len(goods[0].price.split()) < 4:
        both = f"{capital(goods[0].tell)}, and {goods[1].subject} {goods[1].price}{goods[1].each}."
        groups.append((1.0, (Exchange("prices", some_phrases(rng, "prices"), both),)))
    return Fact(tell, tuple(groups))


def _more(rng: random.Random, goods: tuple[Good, ...], verb: str) -> str:
    if len(goods) > 2:
        return f"We also {verb} {goods[2].plural}. {capital(goods[2].tell)}."
    return rng.choice(("That is all for now.", "I am sorry, that is all.", "Nothing else today, I am afraid."))


def _not_sold(rng: random.Random, sold: Collection[str], offered: str, verb: str) -> Exchange:
    elsewhere = [good.plural for good in all_goods() if good.word not in sold]
    wanted = rng.sample(elsewhere, 3)
    answer = rng.choice(("I am sorry, we do not have that.", f"I am sorry, no. But we {verb} {offered}."))
    return Exchange("not_sold", tuple(f"Do you have {plural}?" for plural in wanted), answer)


def _price_asks(rng: random.Random, good: Good) -> tuple[str, ...]:
    article = good.subject.split()[0]
    return some(
        rng, tuple(ask.format(item=good.word, a=article, plural=good.plural) for ask in phrases(f"price_{good.count}"))
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


def _special(rng: random.Random, goods: tuple[Good, ...]) -> Fact:
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
    return Fact(tell, ((1.5, (Exchange("special", some_phrases(rng, "special"), answer),)),))


def _hours(rng: random.Random) -> Fact:
    hours = rng.choice(_HOURS).format(
        open=rng.randint(6, 11), close=rng.randint(1, 8), late=rng.randint(6, 11), day=rng.choice(_DAYS)
    )
    tell = rng.choice(("Open {hours}.", "We are open {hours}.", "It is open {hours}.")).format(hours=hours)
    answer = rng.choice(("We are open {hours}.", "We are open {hours}.", "You can come {hours}."))
    return Fact(tell, ((2.5, (Exchange("hours", some_phrases(rng, "hours"), answer.format(hours=hours)),)),))


def _place(rng: random.Random) -> Fact:
    landmark = rng.choice(table("places")["landmarks"])
    place = rng.choice(_PLACES).format(
        number=rng.randint(1, 199), road=names.road(rng), road2=names.road(rng), landmark=landmark
    )
    tell = rng.choice(("You find us {place}.", "We are {place}.", "It is {place}.")).format(place=place)
    answer = rng.choice(("We are {place}.", "You find us {place}.", "Come and see us {place}."))
    return Fact(tell, ((2.0, (Exchange("where", some_phrases(rng, "where"), answer.format(place=place)),)),))


def _phone(rng: random.Random) -> Fact:
    phone = f"555 {rng.randint(0, 9999):04d}"
    answer = pick(rng, table("answers")["phone"], phone=phone)
    return Fact(f"The phone number is {phone}.", ((2.0, (Exchange("phone", some_phrases(rng, "phone"), answer),)),))


def _rule(rng: random.Random, rule: str, held_out: bool, currency: str) -> Fact:
    fields = {
        "number": str(rng.randint(2, 9)),
        "time": f"{rng.choice((8, 9, 10, 11))}{rng.choice(('', '', ':30', ':15'))} am",
        "morning": f"{rng.randint(6, 10)}{rng.choice(('', '', ':30'))} am",
        "evening": f"{rng.randint(6, 10)}{rng.choice(('', '', ':30'))} pm",
        "day": rng.choice((*_DAYS, "the weekend") if " on {day}" not in rule else _DAYS),
        "money": money(rng, currency),
        "surname": names.surname(rng, held_out),
        "town": names.town(rng),
    }
    if rng.random() < 0.5:
        fields["time"] = f"{rng.randint(1, 5)}{rng.choice(('', '', ':30', ':45'))} pm"
    tell, asks, *answer = rule.format(**fields).split(" | ")
    return Fact(tell, ((2.0, (Exchange("fact", some(rng, choices(asks)), answer[0] if answer else tell),)),))
