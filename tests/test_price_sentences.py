"""Prices that people tell in one sentence, each in a sentence of its own, as nano reads them."""

import pytest

from core.boot.checkpoint_source import NANO
from core.engine.checkpoint import Checkpoint
from core.engine.price_sentences import one_price_a_sentence
from core.engine.tokenizer import SentencePieceTokenizer, spelled


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (
            "A haircut is $20 and a shave is $12.50. Ask for Ann.",
            "A haircut is twenty dollars. A shave is twelve dollars and fifty cents. Ask for Ann.",
        ),
        (
            "Bowls cost €8, cups are €5 each, and for a class we charge €30 a person.",
            "Bowls cost eight euros. Cups are five euros each, and for a class we charge thirty euros a person.",
        ),
        (
            "A room is 80 pounds a night; parking costs 9 pounds\nWe are open.",
            "A room is eighty pounds a night. Parking costs nine pounds\nWe are open.",
        ),
        (
            "Prices: one hour goes for $15, but two hours go for $25!",
            "Prices: one hour goes for fifteen dollars, but two hours go for twenty five dollars!",
        ),
        (
            "Tours start at $10, while a private tour starts at $90.",
            "Tours start at ten dollars. A private tour starts at ninety dollars.",
        ),
        ("The soup is 4 dollars, the pie 6 dollars.", "The soup is four dollars, the pie six dollars."),
        ("Delivery is $4 and takes an hour.", "Delivery is four dollars. Delivery takes an hour."),
        (
            "Hi. Our small plan has 5 channels and costs $9, the large plan has 50 and costs $19.",
            "Hi. Our small plan has five channels. Our small plan costs nine dollars. The large plan has fifty. "
            "The large plan costs nineteen dollars.",
        ),
        ("Ask Ann, who costs $5 and takes 2.", "Ask Ann, who costs five dollars and takes two."),
        ("A pass is $22 for two and $11 for one.", "A pass is twenty two dollars for two and eleven dollars for one."),
        ("The store is on Elm Street, a shirt is $9.", "The store is on Elm Street, a shirt is nine dollars."),
        ("Nothing to see, and nothing is for sale.", "Nothing to see, and nothing is for sale."),
    ],
)  # fmt: skip
def test_each_price_with_a_verb_has_a_sentence(written: str, read: str) -> None:
    assert one_price_a_sentence(spelled(written)) == read
    assert one_price_a_sentence(read) == read


def test_only_a_model_that_was_trained_so_reads_prompts_so() -> None:
    nano = Checkpoint.read(NANO)
    spelling, plain = (SentencePieceTokenizer(nano.tokenizer, spell) for spell in (nano.spell, False))
    apart, together = "A cake is nine dollars. A roll is two dollars.", "A cake is nine dollars, a roll is two dollars."
    assert list(spelling.prompt(together)) == list(spelling.prompt(apart))
    assert list(plain.prompt(together)) != list(plain.prompt(apart))
    assert spelling.words(together) != spelling.words(apart), "what is to be said is said as it stands"


def test_what_nobody_would_say_in_a_sentence_stays_and_takes_no_time() -> None:
    """A search of each for all that follows would take hours."""
    for text in ("a is dollars, " * 20_000, "x, " * 200_000 + "is dollars", "and a is " * 50_000):
        assert one_price_a_sentence(text) == text
    assert one_price_a_sentence("A pie is two dollars, a cake is two dollars. " * 5_000).count(".") == 10_000
