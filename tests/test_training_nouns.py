"""Facts of any noun: told and asked for with the noun, answered in the first person, and spoken by callers."""

import random
import re

import pytest

from training.calling import calls
from training.catalogue import askable
from training.nouns import nouns, told_of_good, told_of_nouns
from training.persons import Telling, traits
from training.scripts import episode
from training.texts import choices, table

pytestmark = pytest.mark.training
FIELDS = ("thing", "relation", "belonging")


@pytest.mark.parametrize("field", FIELDS)
def test_each_kind_is_told_and_asked_for_in_many_ways(field: str) -> None:
    assert len({noun.word for noun in nouns(field)}) == len(nouns(field)) >= 50
    seen: set[str] = set()
    for told in told_of_nouns(field):
        asks = choices(told["asks"])
        assert len(set(asks)) == len(asks) >= 18
        assert not seen & set(asks)
        seen |= set(asks)
        assert all(f"{{{field}}}" in ask.lower() for ask in asks), asks
        for key, least in (("tells", 12), ("labels", 4)):
            texts = choices(told[key])
            assert len(set(texts)) == len(texts) >= least
            assert all(f"{{{field}}}" in text.lower() and text.endswith(".") for text in texts), texts
        for noun in nouns(field)[:5]:
            trained, unseen = noun.asks(told), noun.asks(told, held_out=True)
            assert trained, told["asks"]
            assert not set(trained) & set(unseen)
            assert all(noun.word in ask.lower() and "{" not in ask for ask in trained + unseen)


def test_the_agent_tells_of_its_own_life_in_the_first_person() -> None:
    rng, words = random.Random(4), {noun.word for field in FIELDS[1:] for noun in nouns(field)}
    answered = 0
    for _ in range(200):
        told, _others = traits(rng, Telling(False, "Ann"), "nurse", held_out=False, count=4)
        for trait in told:
            if any(f"our {word}" in trait.told.text for word in words):
                answered += 1
                assert not re.search(r"\byour?\b", trait.exchange.answer, re.IGNORECASE), trait
    assert 100 < answered < 500


def test_what_is_told_of_somebody_near_is_not_unknown() -> None:
    rng, kin = random.Random(6), 0
    for _ in range(400):
        told, unknown = traits(rng, Telling(False, "Ann"), "nurse", held_out=False, count=4)
        if any("sister" in trait.told.text for trait in told):
            kin += 1
            assert not any("Do you have a sister?" in trait.exchange.asks for trait in unknown), told
    assert kin > 10


def test_articles_fit_the_words_that_are_drawn() -> None:
    rng = random.Random(7)
    for one in (episode(rng) for _ in range(1500)):
        for text in (one.prompt, *one.lines()):
            assert not re.search(r"\b[Aa] (orange|energy|encyclopedia|eight)\b", text), text


def test_what_there_is_at_a_place_is_asked_for_by_its_name() -> None:
    rng, words = random.Random(5), [noun.word for noun in nouns("thing")]
    found = 0
    for one in (episode(rng, "service") for _ in range(300)):
        for exchange in one.exchanges:
            named = [word for word in words if exchange.asks and all(word in ask.lower() for ask in exchange.asks)]
            if exchange.kind == "fact" and named:
                found += 1
                assert any(word in one.prompt.lower() for word in named), (exchange, one.prompt)
    assert found > 30


def test_callers_ask_for_what_may_be_told_of_nouns() -> None:
    wishes = {noun_ask for field in FIELDS for noun in nouns(field) for told in told_of_nouns(field)
              for noun_ask in noun.asks(told)}  # fmt: skip
    said = [call.wish for call in calls("espeak", 0, 3000)]
    assert 0.04 < sum(wish in wishes for wish in said) / len(said) < 0.2


def test_a_good_always_has_the_same_kinds() -> None:
    words = [good.word for good in askable()[:50]]
    told = [told_of_good(word) for word in words]
    told_of_good.cache_clear()
    assert [told_of_good(word) for word in words] == told
    assert all(len(kinds) == 6 for kinds in told)
    assert sum(about in kinds for about in table("about") for kinds in told) == 300
    assert len({id(about) for kinds in told for about in kinds}) == len(table("about"))
