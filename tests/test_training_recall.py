"""What the recall stage asks, when, and which answers it takes for right; its calls are too long for a test."""

import random

import pytest

from training.phrases import phrases
from training.recall import Answer, Check, Question, asked_at, figures_of, unseen

MINUTES = (0.5, 3.0, 5.0, 10.0, 15.0)


@pytest.mark.parametrize("number", range(8))
def test_questions_of_unseen_personas(number: int) -> None:
    """The persona's own answers are right for what they answer, and others are not."""
    persona, questions = unseen(random.Random(number))
    assert [question.kind for question in questions] == ["name", "company", "price"]
    name, company, price = questions
    assert name.asks == phrases("name")
    assert name.right(f"My name is {persona.first}, how can I help?")
    assert company.right(f"This is {persona.company}.")
    assert price.right(next(exchange.answer for exchange in persona.exchanges if exchange.kind == "price"))
    assert not any(question.right("I am Zebulon from Nowhere, and I do not know.") for question in questions)


def test_a_price_is_right_by_its_numbers() -> None:
    price = Question("price", (), "four fifty")
    assert price.right("That is $4.50, thank you.")
    assert price.right("It costs four dollars and fifty cents.")
    assert not price.right("It costs four dollars and fifteen cents.")


def test_answers_do_not_stay_in_the_window_until_the_next_minute() -> None:
    assert [asked_at(number, MINUTES) for number in (0, 1)] == [(0.5, 5.0, 10.0, 15.0), (0.5, 3.0, 10.0, 15.0)]
    assert asked_at(0, (3.0,)) == (3.0,)


def test_figures() -> None:
    answers = tuple(Answer(kind, "?", "x", "x", right) for kind, right in (("name", True), ("price", False)))
    checks = [Check("NATF2", pinned, 3.0, answers[: 1 + pinned], (False, True), 0.5) for pinned in (True, False)]
    figures = {figure.name: (figure.value, figure.cases) for figure in figures_of(checks)}
    assert figures["name right after 3 min, pinned"] == (1.0, 1)
    assert figures["price right after 3 min, pinned"] == (0.0, 1)
    assert figures["price right after 3 min, not pinned"] == (None, 0)
    assert figures["turns talked over after 3 min, not pinned"] == (0.5, 2)
    assert figures["silence kept after 3 min, pinned"] == (0.5, 1)
