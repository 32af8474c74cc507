"""Portraits: every slot is filled, what is asked is answered out of the prompt, and one in ten is held out whole."""

import random
import re

import pytest

from core.engine.spoken_numbers import number_in_words
from training.catalogue import askable, part_names
from training.episodes import Episode
from training.portraits import Asked, Portrait, Statement, portrait, portrait_asks, portraits
from training.pricing import price_asks

pytestmark = pytest.mark.training
ALL = (*portraits(), *portraits(held_out=True))
SLOT = re.compile(r"\{(\w+)\}")
SPOKEN = re.compile(r"[A-Za-z][A-Za-z' ,.?]*[.?]")
NUMBERS = {word for number in range(1000) for word in number_in_words(str(number)).split()} - {"and", "one"}


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    rng = random.Random(3)
    return [portrait(rng) for _ in range(3000)]


def named(one: Portrait) -> str:
    return one.opening


@pytest.mark.parametrize("one", ALL, ids=named)
def test_slots_are_declared_and_used(one: Portrait) -> None:
    given = {"name", "first"} | ({"company"} if one.companies else set())
    texts = [one.opening, *(statement.text for statement in one.statements)]
    used = {slot for text in texts for slot in SLOT.findall(text)}
    assert used <= given | one.draws.keys()
    assert one.draws.keys() <= used
    assert not one.draws.keys() & {"name", "first", "company"}, "the agent's own take the place of these"
    assert {"name", "first"} & set(SLOT.findall(one.opening))
    assert not one.companies or "{company}" in one.opening
    for statement in one.statements:
        for fact in statement.facts:
            assert set(SLOT.findall(fact.answer)) <= set(SLOT.findall(statement.text)), fact.answer


@pytest.mark.parametrize("one", ALL, ids=named)
def test_a_wording_asks_for_one_thing_and_can_be_spoken(one: Portrait) -> None:
    facts = [fact for statement in one.statements for fact in statement.facts]
    assert all(fact.wordings() for fact in facts)
    asks = [ask for fact in facts for held_out in (False, True) for ask in fact.wordings(held_out)]
    assert len(asks) == len(set(asks))
    assert all(SPOKEN.fullmatch(ask) for ask in asks), [ask for ask in asks if not SPOKEN.fullmatch(ask)]


def test_numbers_of_answers_stand_in_the_prompt(episodes: list[Episode]) -> None:
    for one in episodes:
        told = set(re.findall(r"[a-z']+", one.prompt.lower()))
        for exchange in one.exchanges:
            if exchange.kind == "fact":
                assert set(re.findall(r"[a-z']+", exchange.answer.lower())) & NUMBERS <= told, (exchange, one.prompt)


def test_an_unknown_kind_of_draw_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Portrait("a mill", "You are {name}, at {company}, with {bags}.", (), {"bags": "weight 2-9"}, "Mill")
    monkeypatch.setattr("training.portraits.portraits", lambda held_out: (one,))
    with pytest.raises(ValueError, match="'weight 2-9'"):
        portrait(random.Random(0))


def test_statements_are_left_out_and_their_questions_refused(episodes: list[Episode]) -> None:
    lengths = sorted(len(one.prompt.split()) for one in episodes)
    assert lengths[len(lengths) // 10] >= 25
    assert lengths[-1] <= 120
    facts = [exchange for one in episodes for exchange in one.exchanges if exchange.kind == "fact"]
    untold = [exchange for one in episodes for exchange in one.exchanges if exchange.kind == "no_fact"]
    assert 0.02 * len(facts) < len(untold) < 0.3 * len(facts)
    assert all(re.search(r"\b(not|nobody|no|cannot|rather|us)\b", exchange.answer) for exchange in untold)
    assert len({one.prompt for one in episodes}) == len(episodes)


def test_held_out_portraits_are_never_trained_on() -> None:
    facts = [fact for one in portraits(held_out=True) for statement in one.statements for fact in statement.facts]
    assert facts
    assert {fact.wordings() for fact in facts}.isdisjoint(portrait_asks())
    assert 0.04 < len(portraits(held_out=True)) / len(ALL) < 0.16
    rng = random.Random(4)
    unseen = [portrait(rng, held_out=True) for _ in range(200)]
    trained = {ask for asks in portrait_asks() for ask in asks}
    asked = {ask for one in unseen for exchange in one.exchanges if exchange.kind == "fact" for ask in exchange.asks}
    assert asked
    assert not asked & trained
    of_goods = {ask for good in (*askable(), *part_names().values()) for ask in price_asks(good, held_out=True)}
    assert not of_goods & trained


def test_days_and_months_of_a_portrait_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = {"a": "day", "b": "day", "c": "day", "from": "month", "to": "month"}
    told = Statement("Shut on {a}, {b} and {c}, and from {from} to {to}.", (Asked("On {a}.", "When are you shut?"),))
    one = Portrait("a mill", "You are {name}, at {company}.", (told,), draws, "Mill")
    monkeypatch.setattr("training.portraits.portraits", lambda held_out: (one,))
    rng = random.Random(5)
    for _ in range(100):
        found = re.findall(r"\b(?:[A-Z]\w+day|from \w+|to \w+)", portrait(rng).prompt.partition("hut on ")[2])
        assert len(found) == 5
        assert len({word.split()[-1] for word in found}) == 5


def test_answers_begin_with_a_capital(episodes: list[Episode]) -> None:
    assert [line for one in episodes for line in one.lines() if not line[0].isupper()] == []


def test_an_opening_gives_way_to_others_unless_something_is_drawn_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Statement("You keep nine goats.", (Asked("I keep nine goats.", "What do you keep?"),))
    rng, own = random.Random(6), {}
    for opening in ("Once, {name} the miller.", "Once, {name} of {town}."):
        one = Portrait("a miller", opening, (told,), {"town": "town"})
        monkeypatch.setattr("training.portraits.portraits", lambda held_out, one=one: (one,))
        prompts = [portrait(rng).prompt for _ in range(300)]
        own[opening] = sum(prompt.startswith("Once, ") for prompt in prompts) / 300
        others = [prompt for prompt in prompts if not prompt.startswith("Once, ")]
        assert all(re.search(r"\b[Aa] miller\b", prompt) for prompt in others)
    assert 0.5 < own["Once, {name} the miller."] < 0.8
    assert own["Once, {name} of {town}."] == 1


def test_what_takes_too_long_to_say_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = ("Well, it is open " + "now and then " * count + "only." for count in (5, 6))
    facts = (Asked(short, "When is it open?"), Asked(long, "And when exactly?"))
    one = Portrait("a miller", "You are {name}.", (Statement("It is open now and then.", facts),))
    monkeypatch.setattr("training.portraits.portraits", lambda held_out: (one,))
    rng = random.Random(7)
    told = {exchange.answer for _ in range(100) for exchange in portrait(rng).exchanges}
    assert short in told
    assert long not in told
