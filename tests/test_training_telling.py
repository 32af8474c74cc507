"""How prompts tell facts: in many forms, each of which keeps the price with its good and the fact as it is."""

import random
import re
from itertools import product

import pytest

from core.engine.spoken_numbers import spell_numbers
from training.facts import framed, rule
from training.goods import Good
from training.pricing import goods_and_prices, in_a_list, in_a_row, price_fields
from training.prompts import LISTINGS, Style, Told, told_about, written
from training.texts import choices, table

pytestmark = pytest.mark.training
GOODS = (
    Good("plum cake", "one", "9 dollars and 50 cents"),
    Good("red roses", "many", "2 dollars"),
    Good("rye bread", "some", "45 dollars"),
    Good("hour of tennis", "one", "120 dollars"),
)
COINS = (Good("moon walk", "one", "1 gold coin"), Good("star maps", "many", "12 gold coins"))
WRITTEN = [Style("prose", False, digits) for digits in (True, True, True, False)]


def order(text: str, goods: tuple[Good, ...]) -> str:
    """Which goods (`w`) and prices (`p`) a prompt tells, by their places in the list: `w0p0w1p1`."""
    said = spell_numbers(text).lower()
    marks = {f"w{place}": {good.word, good.plural} for place, good in enumerate(goods)}
    marks |= {f"p{place}": {spell_numbers(good.price)} for place, good in enumerate(goods)}
    names = {name.lower(): mark for mark, names in marks.items() for name in names}
    longest = sorted(names, key=len, reverse=True)
    return "".join(names[found] for found in re.findall("|".join(longest), said))


def kept_together(text: str, goods: tuple[Good, ...]) -> bool:
    """Whether each price stands beside its own good, all before or all after it."""
    after = "".join(f"w{place}p{place}" for place in range(len(goods)))
    before = "".join(f"p{place}w{place}" for place in range(len(goods)))
    return order(text, goods) in (after, before)


def sorted_pair(told: str) -> str:
    """A good and its price, the price first: `p0w0`, whichever is told first."""
    return "".join(sorted(re.findall(r"[wp]\d", told)))


@pytest.mark.parametrize("good", [*GOODS, *COINS])
def test_every_sentence_tells_the_good_and_its_price(good: Good) -> None:
    rng = random.Random(1)
    forms = table("prices")
    sentences = forms["sentences"] + (forms["sentences_one"] if good.count == "one" else [])
    for sentence, style in product(sentences, WRITTEN):
        text = sentence.format(**price_fields(rng, style, good, "have"))
        assert kept_together(text, (good,)), (sentence, text)
        assert f"{spell_numbers(good.price)}{good.each}" in spell_numbers(text).lower(), text
        assert text[0].isupper() or not text[0].isalpha()
        assert text.endswith(".")


@pytest.mark.parametrize("goods", [GOODS[:2], GOODS, COINS])
def test_every_row_and_list_keeps_prices_with_their_goods(goods: tuple[Good, ...]) -> None:
    rng = random.Random(2)
    forms = table("prices")
    for series, joins, style in product(forms["series"], forms["series_joins"], WRITTEN[1:]):
        told = [price_fields(rng, style, good, "have") for good in goods]
        assert kept_together(text := in_a_row(told, series, joins), goods), text
    for entry, style, label in product(forms["entries"], WRITTEN, ("", "Prices: ")):
        for between in forms["separators_strong" if "," in entry else "separators"]:
            told = [price_fields(rng, style, good, "have") for good in goods]
            text = in_a_list(told, entry, between, label, capitals=rng.random() < 0.5)
            assert kept_together(text, goods), text


def test_prices_are_told_in_many_ways() -> None:
    forms = table("prices")
    assert len({*forms["sentences"], *forms["sentences_one"]}) > 200
    assert len(set(forms["series"])) > 40
    assert len(set(forms["entries"])) >= 24
    assert len(set(forms["labels"])) >= 25
    rng = random.Random(3)
    texts = {
        goods_and_prices(rng, Style("prose", n % 3 == 0, n % 2 == 0), GOODS[:3], "have", False).told.text
        for n in range(600)
    }
    assert len(texts) > 550
    for text in texts:
        told = [order(part, GOODS[:3]) for part in re.split(r"\. ", text)]
        assert kept_together(text, GOODS[:3]) or sorted(map(sorted_pair, filter(None, told))) == [
            "p0w0",
            "p1w1",
            "p2w2",
        ], text
    for text in texts:
        assert all(spell_numbers(good.price) in spell_numbers(text).lower() for good in GOODS[:3]), text


def test_what_people_write_around_a_fact_leaves_it_as_it_is() -> None:
    rng = random.Random(4)
    frames = [*table("prompts")["frames"], *table("prompts")["frames_of_statements"]]
    assert len(set(frames)) == len(frames) > 90
    texts = {framed(rng, "The door is blue.") for _ in range(3000)}
    assert len(texts) > 90
    assert all("he door is blue." in text for text in texts)
    named = {framed(rng, "Anna cuts hair.") for _ in range(1000)}
    assert len(named) > 25
    assert all("Anna cuts hair." in text for text in named)
    assert {framed(rng, "Deposit: 5 dollars.") for _ in range(100)} == {"Deposit: 5 dollars."}
    asked = {framed(rng, "Ask for a name.") for _ in range(1000)}
    assert not [text for text in asked if re.search(r"\b(tell|say)\b", text, re.IGNORECASE)]


def test_rules_name_numbers_days_and_times_that_make_sense() -> None:
    rng = random.Random(6)
    rules = [told for trade in table("trades") for told in trade["facts"]]
    texts = [rule(rng, WRITTEN[0], told, False, "dollars").told.text for told in rules for _ in range(8)]
    assert not [text for text in texts if re.search(r"\d{3} (?:percent|minutes)", text)]
    assert not [text for text in texts if re.search(r"(\w+day) and \1", text)]
    assert not [text for text in texts if re.search(r"(?i)\b(?:next|first|last|closes)\b.* pm and ", text)]
    assert sum(bool(re.search(r"\b[1-9][0-9] (?:minutes|days|people)", text)) for text in texts) > 40
    assert sum("day and " in text or " pm and " in text for text in texts) > 40


def test_a_heading_stands_over_hours_with_minutes() -> None:
    told = [Told("Open 8:30 am to 5 pm.", "our hours")]
    texts = [written(random.Random(n), Style("topics", False, True), "You are Ann.", "", told, []) for n in range(40)]
    assert all("hours" in text.lower() for text in texts)


def test_some_statements_go_on_in_the_sentence_before() -> None:
    """But none that is told to the agent, begins with a name, has a label or would make it long."""
    rng = random.Random(6)
    plain = [Told("We open at nine."), Told("The door is blue.")]
    others = [
        Told("Ann is the baker."),
        Told("Tell people that it is free."),
        Told("Deposit: five."),
        Told("The end. So."),
    ]
    texts = [written(rng, Style("prose", False, False), "Hi.", "", [*plain, *others], []) for _ in range(200)]
    joined = [text for text in texts if "Hi. We open at nine. The door is blue. " not in text]
    assert 20 < len(joined) < 90
    assert all(
        " the door is blue. Ann is the baker. Tell people that it is free. Deposit: five. " in text for text in joined
    )
    assert len({text.partition("the")[0] for text in joined}) > 3


@pytest.mark.parametrize("listing", LISTINGS)
def test_every_listing_has_every_fact_once(listing: str) -> None:
    rng = random.Random(5)
    told = [told_about("our prices", "A cake costs 4 dollars."), Told("The door is blue."), Told("Dogs are welcome.")]
    for _ in range(40):
        text = written(rng, Style(listing, False, True), "You are Ann.", "", told, [])
        assert text.startswith("You are Ann. ")
        for fact in ("a cake costs four dollars", "the door is blue", "dogs are welcome"):
            assert text.lower().count(fact) == 1, text


def test_what_is_told_to_the_agent_is_not_told_under_a_topic() -> None:
    assert told_about("our prices", "If they ask, a cake is 4 dollars.").topic == ""
    assert told_about("our prices", "A cake is 4 dollars. Tell people rye bread is 3.").topic == ""
    assert told_about("our prices", "A cake is 4 dollars.").topic == "our prices"


def test_rules_of_any_good_are_told_in_many_ways() -> None:
    kinds = table("about")
    assert len(kinds) >= 13
    assert sum(len(choices(about["tells"])) for about in kinds) >= 200
    for about in kinds:
        for key, least in (("tells", 10), ("labels", 6)):
            texts = choices(about[key])
            assert len(set(texts)) == len(texts) >= least, about[key]
            assert all("{plural}" in text.lower() and text.endswith(".") for text in texts)
