"""What is said in training: facts come from the prompt, held-out names stay out, conversations hang together."""

import random
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from core.engine.spoken_numbers import number_in_words, spell_numbers
from training import names
from training.catalogue import UNITS_OF_SOME, any_goods, askable, part_name, short_name
from training.goods import Good, all_goods, resemble
from training.phrases import FEELINGS, good_phrases, is_held_out, phrases, wordings
from training.pricing import goods_and_prices, indirect_asks
from training.prompts import style
from training.scripts import (
    KINDS,
    Episode,
    Exchange,
    caller_phrases,
    conversation,
    episode,
    greeting_episode,
    shipped_episodes,
)
from training.texts import choices, expanded, table, words

pytestmark = pytest.mark.training
SPOKEN = re.compile(r"[A-Za-z][A-Za-z' ,.?]*[.?]")
FREE = {
    *FEELINGS,
    "garbled",
    "joke",
    "robot",
    "weather",
    "lesson",
    "hello",
    "how_are_you",
    "thanks",
    "yes",
    "no",
    "goodbye",
}
"""Kinds of answers that need nothing of the prompt."""
NUMBERS = {word for number in range(200) for word in number_in_words(str(number)).split()}
COMMON = {"I", "I'm", "Would", "Doctor"}


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    rng = random.Random(1)
    return [episode(rng) for _ in range(3000)]


@pytest.fixture(scope="module")
def shipped() -> dict[str, Episode]:
    folder = Path(__file__).parents[1] / "personas"
    stems = sorted(path.stem for path in folder.glob("*.yaml"))
    return dict(zip(stems, shipped_episodes(random.Random(0)), strict=True))


def test_the_same_seed_gives_the_same_scripts() -> None:
    def scripts(seed: int) -> list[object]:
        rng = random.Random(seed)
        drawn = [episode(rng) for _ in range(50)]
        return [*drawn, *(conversation(rng, one) for one in drawn)]

    assert scripts(5) == scripts(5)
    assert scripts(5) != scripts(6)


def test_held_out_names_are_never_trained_on(episodes: list[Episode]) -> None:
    rng = random.Random(2)
    unseen = [episode(rng, held_out=True) for _ in range(500)]
    for one in episodes:
        assert not any(names.is_held_out(part) for part in one.name.split()), one.name
    for one in unseen:
        parts = [part for part in one.name.split() if part not in ("Captain", "Professor", "Old")]
        assert all(names.is_held_out(part) for part in parts), one.name
    trained = {name for one in episodes for name in (one.first, one.company) if name}
    assert not trained & {name for one in unseen for name in (one.first, one.company)}
    trained_greetings = " ".join(one.greeting for one in episodes)
    assert not [one.first for one in unseen if one.first and f" {one.first} " in trained_greetings]


def test_there_are_thousands_of_names(episodes: list[Episode]) -> None:
    assert len(words("first_names")) >= 3000
    assert len({one.first for one in episodes}) > 1200
    assert len({one.company for one in episodes}) > 1800
    assert max(Counter(one.first for one in episodes if one.first).values()) < 20


def test_every_kind_occurs_and_an_unknown_one_is_named(episodes: list[Episode]) -> None:
    assert {one.kind for one in episodes} == set(KINDS)
    with pytest.raises(ValueError, match="'opera'"):
        episode(random.Random(0), "opera")


def test_prompts_and_lines_have_the_right_length(episodes: list[Episode]) -> None:
    lengths = [len(one.prompt.split()) for one in episodes if one.kind in ("service", "playful")]
    assert min(lengths) >= 15
    assert max(lengths) <= 120
    assert sum(28 <= length <= 66 for length in lengths) > 0.6 * len(lengths)
    for one in episodes:
        assert 5 <= len(one.lines()) <= 14, one
        assert sum(len(line.split()) for line in one.lines()) <= 120
        assert all(2 <= len(line.split()) <= 22 for line in one.lines()), one.lines()


def test_everything_said_can_be_spoken(episodes: list[Episode], shipped: dict[str, Episode]) -> None:
    texts = {text for one in (*episodes, *shipped.values()) for text in (*one.lines(), *one.asks())}
    for text in texts.union(*caller_phrases().values()):
        assert SPOKEN.fullmatch(text), text
        assert "  " not in text


def test_names_of_the_greeting_stand_in_the_prompt(episodes: list[Episode], shipped: dict[str, Episode]) -> None:
    for one in (*episodes, *shipped.values()):
        assert one.name in one.prompt
        assert one.company in one.prompt
        assert one.first in one.greeting
        assert one.company.removeprefix("The ") in one.greeting or not one.name


def test_answers_take_their_facts_from_the_prompt(episodes: list[Episode], shipped: dict[str, Episode]) -> None:
    for one in episodes:
        told = set(re.findall(r"[A-Za-z']+", one.prompt))
        told |= {word.lower() for word in told}
        for exchange in one.exchanges:
            if exchange.kind in FREE or one.kind == "teacher":
                continue
            said = facts(exchange)
            assert said <= told, (said - told, exchange, one.prompt)
            if exchange.kind in ("hours", "where", "phone"):
                said_fact = re.sub(r"^.*? (?:call us at|is|at|are open|are|am|come|us) ", "", exchange.answer).rstrip(
                    "."
                )
                assert said_fact.lower() in spell_numbers(one.prompt).lower(), exchange
    told_by_personas = {key: set(re.findall(r"[A-Za-z']+", spell_numbers(one.prompt))) for key, one in shipped.items()}
    for key, one in shipped.items():
        for exchange in one.exchanges:
            assert key == "assistant" or exchange.kind in FREE or facts(exchange) & NUMBERS <= told_by_personas[key]


def facts(exchange: Exchange) -> set[str]:
    """The numbers and the names in an answer. A sentence's first word is none."""
    sentences = re.split(r"[.?] ?", exchange.answer)
    inner = [word for sentence in sentences for word in re.findall(r"[A-Za-z']+", sentence)[1:]]
    names_said = {word for word in inner if word[0].isupper()} - COMMON
    numbers_said = {word for word in inner if word in NUMBERS}
    return names_said | numbers_said - ({"one"} if exchange.kind == "fact" else set())


def test_a_price_is_asked_and_told_for_the_same_thing(episodes: list[Episode]) -> None:
    for one in episodes:
        for exchange in one.exchanges:
            if exchange.kind == "price":
                price = re.split(r" (?:costs?|is|are) ", exchange.answer)[-1].rstrip(".")
                # A sentence may begin with it: `Nine dollars gets you a plum cake.`
                assert price.lower() in spell_numbers(one.prompt).lower()


def test_a_wording_has_one_answer_only(episodes: list[Episode]) -> None:
    for one in episodes:
        asks = [ask for exchange in one.exchanges for ask in exchange.asks]
        assert len(asks) == len(set(asks)), asks


def test_conversations_hang_together(episodes: list[Episode], shipped: dict[str, Episode]) -> None:
    rng = random.Random(3)
    kinds = Counter[str]()
    for one in (*episodes[:1500], *shipped.values()):
        turns = conversation(rng, one)
        assert (turns[0].side, turns[0].text) == ("agent", one.greeting)
        assert [turn.side for turn in turns] == ["agent", *["caller", "agent"] * (len(turns) // 2)]
        assert 5 <= len(turns) <= 19, turns
        assert {turn.text for turn in turns if turn.side == "agent"} <= set(one.lines())
        assert {turn.text for turn in turns if turn.side == "caller"} <= set(one.asks())
        heard = [turn.kind for turn in turns]
        for before, asked, answer in zip(turns[0::2], turns[1::2], turns[2::2], strict=False):
            assert asked.kind == answer.kind
            if asked.kind == "sorry":
                assert answer.text == before.text
                assert before.kind != "sorry"
            if asked.kind in ("yes", "no"):
                assert before.text.endswith("?")
        if "more" in heard:
            assert "goods" in heard[: heard.index("more")] or one.kind == "shipped"
        assert "goodbye" not in heard[:-2]
        kinds.update(heard)
    assert {"sorry", "more", "yes", "no", "price", "hours", "where", "special", "question", "goodbye"} <= set(kinds)


def test_a_greeting_episode_says_its_name_and_no_more() -> None:
    rng = random.Random(4)
    for _ in range(200):
        one = greeting_episode(rng)
        assert {exchange.kind for exchange in one.exchanges} == {"name"}
        assert len(one.lines()) <= 2
        assert conversation(rng, one)[0].text == one.greeting


def test_callers_have_many_phrases() -> None:
    spoken = caller_phrases()
    assert {"hello", "name", "price", "prices", "more", "hours", "goodbye", "thanks", "yes", "no", "sorry"} <= set(
        spoken
    )
    assert len(spoken["unknown"]) >= 100
    assert len(spoken["price"]) >= 150
    for kind, value in table("phrases").items():
        assert len(choices(value)) >= 60, kind
        assert len(choices(value)) == len(set(choices(value))), kind
        assert all(len(wording.split()) <= 22 for wording in choices(value))
    assert sum(len(choices(table("phrases")[kind])) >= 120 for kind in table("phrases")) >= 15
    assert len(table("trades")) > 70
    assert len(table("trades")[-1]["facts"]) >= 40
    assert all(len(choices(fact["asks"])) >= 5 for trade in table("trades") for fact in trade["facts"])


def test_thousands_of_goods_are_listed_once_and_can_be_asked_for() -> None:
    listed = [
        Good(word, key.split()[0], "")
        for group in table("goods").values()
        for key, names in group.items()
        for name in names.split(", ")
        for word in expanded(name)
    ]
    words_listed = [good.word for good in listed]
    assert len(words_listed) == len(set(words_listed)) > 2500
    assert not set(words_listed) & {good.word for good in all_goods()}
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z' ]*[a-z]", word) and "  " not in word for word in words_listed)
    assert {good.count for good in listed} == {"one", "many", "some"}
    assert 0.02 < 1 - len(set(words_listed) & {good.word for good in askable()}) / len(listed) < 0.2
    assert Good("hour of tennis", "one", "").subject == "an hour of tennis"
    assert Good("bread knife", "one", "").plural == "bread knives"


def test_some_prices_are_for_so_long_or_so_much() -> None:
    rng = random.Random(8)
    by_unit = [good for _ in range(400) for good in any_goods(rng, 3, "dollars", held_out=False) if good.unit]
    assert len(by_unit) > 80
    for good in by_unit:
        assert good.tell.endswith(f"{good.price} {good.unit}")
        assert (good.unit in UNITS_OF_SOME) == (good.count == "some")
    told = [one for one in (episode(rng, "service") for _ in range(400)) if " a week" in one.prompt]
    answered = [x.answer for one in told for x in one.exchanges if x.kind == "price" and x.answer.endswith(" a week.")]
    assert len(answered) > 3


def test_any_trade_has_any_goods_of_which_no_two_may_be_meant_by_one_name() -> None:
    rng = random.Random(8)
    drawn = [any_goods(rng, 4, "dollars", held_out=False) for _ in range(800)]
    assert len({good.word for goods in drawn for good in goods}) > 1000
    assert all(not resemble(one, other) for goods in drawn for one, other in combinations(goods, 2))
    shared = [goods for goods in drawn if len({good.word.split()[-1] for good in goods}) < len(goods)]
    assert 0.2 < len(shared) / len(drawn) < 0.6
    asked = {good.word for good in askable()}
    assert all(good.word in asked for goods in drawn for good in goods)
    unseen = [good.word for _ in range(200) for good in any_goods(rng, 3, "dollars", held_out=True)]
    assert not asked & set(unseen)


def test_a_part_of_a_name_is_for_one_of_the_goods() -> None:
    small, large = Good("small pizza", "one", ""), Good("large pizza", "one", "")
    assert part_name(large, (small, large)) == Good("large one", "one", "")
    assert part_name(large, (large, Good("large salad", "one", ""))) is None
    assert part_name(Good("large boots", "many", ""), (small,)) is None, "these are no large one"
    assert part_name(Good("ballet lesson", "one", ""), ()) is None, "nobody calls it the ballet one"


def test_who_needs_one_of_the_goods_need_not_name_it() -> None:
    rng = random.Random(0)

    def asks(word: str, *others: str) -> set[str]:
        goods = tuple(Good(one, "one", "3 dollars") for one in (word, *others))
        told = goods_and_prices(rng, style(rng), goods, "have", held_out=False)
        price = next(exchange for _, group in told.groups for exchange in group if exchange.kind == "price")
        return set(price.asks) & set(indirect_asks(goods[0], held_out=False))

    alone, beside = asks("crab sandwich"), asks("crab sandwich", "turkey sandwich")
    assert any("crab" not in ask.lower() for ask in alone)
    assert beside < alone
    assert beside
    assert all("crab" in ask.lower() for ask in beside), "beside another sandwich it is told apart"


def test_a_short_name_is_for_one_of_the_goods() -> None:
    pizza, other, ticket = (Good(word, "one", "") for word in ("mushroom pizza", "large pizza", "night train ticket"))
    assert short_name(ticket, (pizza, ticket)) == Good("ticket", "one", "")
    assert short_name(pizza, (pizza, other)) is None
    assert short_name(Good("ticket", "one", ""), (pizza,)) is None


def test_wordings_are_trained_on_or_held_out() -> None:
    for kind, value in table("phrases").items():
        trained, unseen = phrases(kind), phrases(kind, held_out=True)
        assert sorted((*trained, *unseen)) == sorted(choices(value))
        assert 0.02 < len(unseen) / len(trained) < 0.25, kind
        assert all(is_held_out(wording) for wording in unseen)
        assert not any(is_held_out(wording) for wording in trained)
    assert not is_held_out("How much are the {item}?")  # The same in every process and for good.
    facts = [fact["asks"] for trade in table("trades") for fact in trade["facts"]]
    assert sum(bool(wordings(asks, held_out=True)) for asks in facts) > 0.5 * len(facts)
    assert "Do you have plum cakes?" in good_phrases("stock", "plum cake", "one")


def test_held_out_episodes_ask_in_held_out_wordings_alone(episodes: list[Episode]) -> None:
    trained = {ask for one in episodes for ask in one.asks()}
    rng = random.Random(6)
    unseen = [episode(rng, held_out=True) for _ in range(100)]
    assert all(exchange.asks for one in unseen for exchange in one.exchanges)
    assert not trained & {ask for one in unseen for ask in one.asks()}


def test_no_wording_means_two_things() -> None:
    def heard(wording: str) -> str:
        return re.sub(r"\W+", " ", wording.lower()).strip()

    kinds: dict[str, str] = {}
    for kind, value in table("phrases").items():
        for wording in choices(value):
            meant = kind.partition("_")[0] if kind.startswith("price_") else kind
            assert kinds.setdefault(heard(wording), meant) == meant, wording
    for number, told in enumerate(table("about")):
        for wording in choices(told["asks"]):
            assert kinds.setdefault(heard(wording), str(number)) == str(number), wording
    *trades, of_all = table("trades")
    for trade in (*trades, of_all):
        facts = trade["facts"] if trade is of_all else trade["facts"] + of_all["facts"]
        asks = [heard(ask) for fact in facts for ask in choices(fact["asks"])]
        assert not [ask for ask, count in Counter(asks).items() if count > 1], trade["kind"]
        assert not kinds.keys() & set(asks), trade["kind"]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("9 am to 5:30 pm", "nine in the morning to five thirty in the evening"),
        ("at 12 pm", "at noon"),
        ("$4.50 or $12", "four dollars and fifty cents or twelve dollars"),
        ("1,200 dollars", "one thousand two hundred dollars"),
        ("dial 911 or 555 0142", "dial nine one one or five five five, zero one four two"),
        ("189 dollars", "one hundred eighty nine dollars"),
    ],
)
def test_numbers_are_spoken(written: str, said: str) -> None:
    assert spell_numbers(written) == said
