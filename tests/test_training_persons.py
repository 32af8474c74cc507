"""What open conversations tell of somebody: in either person and under labels, asked for in many wordings."""

import random
import re

import pytest

from training.persons import Telling, in_third_person, traits
from training.scripts import episode
from training.texts import choices, table

pytestmark = pytest.mark.training


@pytest.mark.parametrize(
    ("told", "third"),
    [
        ("You have a dog.", "Ann has a dog."),
        ("You never went to school.", "Ann never went to school."),
        ("Your house is full of your maps.", "Her house is full of her maps."),
        ("Every day you watch the sea.", "Every day Ann watches the sea."),
        ("You could eat soup, you cannot fly.", "Ann could eat soup, Ann cannot fly."),
    ],
)
def test_what_is_told_of_you_is_told_of_somebody(told: str, third: str) -> None:
    assert in_third_person(told, "Ann", "she") == third


def test_every_telling_has_a_third_person() -> None:
    for fact in table("persons")["facts"]:
        for tell in choices(fact["tells"]):
            third = in_third_person(tell.partition(" | ")[0], "he", "he")
            assert not re.search(r"\b[Yy]our?\b|\bhe \{", third), third


def test_facts_of_a_life_are_many_and_asked_in_many_ways() -> None:
    facts = table("persons")["facts"]
    assert len(facts) >= 45
    for fact in facts:
        asks = choices(fact["asks"])
        assert len(asks) == len(set(asks)) >= 8, asks
        assert len(choices(fact["tells"])) >= 3
        assert "answers" in fact or all(" | " in tell for tell in choices(fact["tells"]))


def test_what_is_not_told_is_about_something_else() -> None:
    rng = random.Random(1)
    for _ in range(200):
        told, others = traits(rng, Telling(True, "Ann"), "nurse", held_out=False, count=4)
        assert len(told) == 4
        assert not {trait.about for trait in told if trait.about} & {trait.about for trait in others}
        asked = {ask for trait in told for ask in trait.exchange.asks}
        assert asked.isdisjoint(ask for trait in others for ask in trait.exchange.asks)


def test_some_prompts_tell_of_their_person_in_the_third_person() -> None:
    rng = random.Random(2)
    prompts = [episode(rng, "talk").prompt for _ in range(300)]
    third = sum(bool(re.search(r"\b(?:[Ss]he|[Hh]e) \w", prompt)) for prompt in prompts)
    assert 20 < third < 150
