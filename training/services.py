"""Service roles: somebody who works for a company and knows its goods, prices, hours and rules."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from core.engine.spoken_numbers import spell_numbers
from training import names
from training.absent import absent
from training.catalogue import any_goods
from training.episodes import Episode, Exchange
from training.facts import Fact, about, amenity, hours, on_a_road, phone, place, rule
from training.goods import Good, some_goods
from training.persons import Telling, traits
from training.phrases import Groups, chosen, feelings, garbled, phrases, pick, small_talk
from training.pricing import goods_and_prices, special
from training.prompts import Style, Told, fillers, opening, role, style, written
from training.texts import choices, table

_ANSWER_WORDS = 58
"""About 30 s of speech, with greeting and farewell."""
_LISTING_WORDS = {"questions": 14, "numbers": 10, "letters": 10}
"""Words that a listing adds: those that tell what is asked, or that count facts."""
_CURRENCIES = {"dollars": 0.88, "euros": 0.07, "pounds": 0.05}
_NO_GOODS = 0.12
"""The share of prompts that name nothing for sale."""
_OPEN = 0.5
"""The share of the others whose goods are any, and not those of the trade: what is sold must be read to be known."""
_ON_A_ROAD = 0.15
"""How often a prompt opens with where its company is: `a bakery on Hill Street`."""
_PERSONAL = 0.2
"""The share of prompts that may also tell something of a life."""
_FOREIGN, _AMENITIES = 1, 2
"""Rules of other trades that a prompt may tell, since what is told must be read too, and things at the place."""


def service(rng: random.Random, held_out: bool = False, playful: bool = False) -> Episode:
    """Somebody at work. `playful`: in a shop for pirates, or the like."""
    trades = table("trades")
    trade = rng.choice([trade for trade in trades if ("currency" in trade) == playful and trade["kind"] != "any"])
    title = rng.choice(("Captain", "Professor", "Old", "", "", "")) if playful else ""
    person = names.person(rng, held_out, title) if playful or rng.random() < 0.95 else names.Person("", "")
    company = names.company(rng, rng.choice(trade["companies"].split(", ")), held_out)
    fields = {"name": person.name, "first": person.first, "company": company, "kind": trade["kind"]}
    fields["trade"] = trade["kind"].partition(" ")[2]
    chosen_style = style(rng)
    roles = role(rng, trade["kind"])
    openings = "openings" if person.name else "openings_no_name"
    road = names.road(rng) if rng.random() < _ON_A_ROAD else ""
    placed = {**fields, "kind": f"{trade['kind']} on {road}"} if road else fields
    begin, late = opening(rng, openings, held_out, **placed, **roles)
    target = rng.randint(28, 64) - len(begin.split()) - _LISTING_WORDS.get(chosen_style.listing, 0)
    facts, groups = _facts(rng, trade, chosen_style, held_out, target, road if road in f"{begin} {late}" else "")
    told = [Told(trade["manner"])] if "manner" in trade else []
    told += [fact.told for fact in facts]
    prompt = written(rng, chosen_style, begin, late, told, fillers(rng, asides="asides"))
    exchanges = company_exchanges(rng, groups, fields, held_out)
    greeting = company_greeting(rng, fields, trade.get("hello", ""))
    kind = "playful" if playful else "service"
    return Episode(kind, prompt, person.name, person.first, company, greeting, exchanges, phrases("sorry", held_out))


def company_exchanges(
    rng: random.Random, groups: Groups, fields: dict[str, str], held_out: bool
) -> tuple[Exchange, ...]:
    """What is asked of somebody at work: some of `groups`, which are about the prompt, and what anybody is asked.

    `fields` are `name`, `first` and `company`, the company's `kind` with its article, and `trade` without.
    """
    asked = groups + _small_talk(rng, fields, held_out)
    exchanges = (*chosen(rng, asked, _ANSWER_WORDS), garbled(rng, held_out), _goodbye(rng, fields, held_out))
    return tuple(replace(exchange, answer=spell_numbers(exchange.answer)) for exchange in exchanges)


def company_greeting(rng: random.Random, fields: dict[str, str], hello: str = "") -> str:
    """How somebody at work answers the phone; with `hello`, mostly by that word."""
    answers = table("answers")
    if not fields["name"]:
        return pick(rng, answers["greetings_no_name"], **fields, help=answers["help"])
    if hello and rng.random() < 0.7:
        return pick(rng, answers["greetings_playful"], hello=hello, **fields, help=answers["help"])
    return pick(rng, answers["greetings"], **fields, help=answers["help"])


def _small_talk(rng: random.Random, fields: dict[str, str], held_out: bool) -> Groups:
    answers = table("answers")
    fields = {**fields, "help": answers["help"]}
    named = "name" if fields["name"] else "company"
    groups: Groups = [
        (6.0, (Exchange("name", phrases("name", held_out), pick(rng, answers[named], **fields)),)),
        (0.8, (Exchange("company", phrases("company", held_out), pick(rng, answers["company"], **fields)),)),
        (0.5, (Exchange("what", phrases("what", held_out), pick(rng, answers["what"], **fields)),)),
        *feelings(rng, "service", held_out, **fields),
    ]
    return groups + [(0.3, (exchange,)) for exchange in small_talk(rng, "service", held_out, **fields)]


def _goodbye(rng: random.Random, fields: dict[str, str], held_out: bool) -> Exchange:
    return Exchange("goodbye", phrases("goodbye", held_out), pick(rng, table("answers")["goodbye"], **fields))


def _facts(
    rng: random.Random, trade: dict[str, Any], style: Style, held_out: bool, target: int, road: str
) -> tuple[list[Fact], Groups]:
    """Statements of about `target` words in all, what is asked because of them, and what is asked in vain.

    Where the company is stands among them unless the prompt has opened with its `road`.
    """
    currency = trade.get("currency") or rng.choices(tuple(_CURRENCIES), tuple(_CURRENCIES.values()))[0]
    goods, verb = _goods(rng, trade, currency, held_out)
    others = [hours(rng, style, held_out)]
    if not road:
        others.append(place(rng, style, held_out))
    own, foreign = _rules(rng, trade)
    first, *rules = [rule(rng, style, told, held_out, currency) for told in own]
    rules += [rule(rng, style, told, held_out, currency, foreign=True) for told in foreign]
    others += [*rules, about(rng, style, goods, held_out, currency)]
    others += [amenity(rng, style, held_out, currency) for _ in range(_AMENITIES)]
    if goods:
        others.append(special(rng, goods, held_out))
    if rng.random() < 0.5:
        others.append(phone(rng, style, held_out))
    if rng.random() < _PERSONAL:
        personal, _ = traits(rng, Telling(style.labelled, ""), "", held_out, count=1)
        others += [Fact(trait.told, ((2.5, (trait.exchange,)),)) for trait in personal]
    rng.shuffle(others)
    facts = [goods_and_prices(rng, style, goods, verb, held_out)] if goods else []
    facts.append(first)
    said = sum(_spoken_words(fact) for fact in facts)
    for fact in others:
        if said < target:
            facts.append(fact)
            said += _spoken_words(fact)
    rng.shuffle(facts)
    known = [group for fact in facts for group in fact.groups]
    if road:
        known.append(on_a_road(rng, road, held_out))
    topics = [fact.told.topic for fact in facts if fact.told.topic]
    return facts, [*known, *absent(rng, trade, goods, verb, known, topics, held_out)]


def _spoken_words(fact: Fact) -> int:
    """The words of what is told, numbers spelled: `$895` has five."""
    return len(spell_numbers(fact.told.text).split())


def _goods(rng: random.Random, trade: dict[str, Any], currency: str, held_out: bool) -> tuple[tuple[Good, ...], str]:
    """What is sold, if anything, and what the company does with it: `have`."""
    verb = trade.get("verb", "have")
    if "currency" not in trade and rng.random() < _NO_GOODS:
        return (), verb
    if rng.random() < _OPEN:
        return any_goods(rng, rng.choice((1, 2, 2, 3, 3, 4)), currency, held_out), rng.choice(("have", "have", "offer"))
    return some_goods(rng, trade, rng.choice((1, 2, 2, 3, 3)), currency), verb


def _rules(rng: random.Random, trade: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What else is told, of which no two are asked for alike: of the trade or of any company; and of other trades."""
    *trades, of_all = table("trades")
    own = [rng.choice(trade["facts"]), *rng.sample([*trade["facts"], *of_all["facts"]], 2)]
    foreign = [rng.choice(rng.choice(trades)["facts"]) for _ in range(_FOREIGN)]
    asked: set[str] = set()

    def unasked(rules: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for told in rules:
            if asked.isdisjoint(asks := choices(told["asks"])):
                asked.update(asks)
                yield told

    return list(unasked(own)), list(unasked(foreign))
