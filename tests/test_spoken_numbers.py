"""Numbers as people write them in prompts, and what the built-in model is given to read."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.boot.checkpoint_source import NANO
from core.engine.checkpoint import Checkpoint
from core.engine.spoken_numbers import spell_numbers
from core.engine.tokenizer import SentencePieceTokenizer

WRITTEN = {
    "A coffee is $4, a cake $4.50.": "A coffee is four dollars, a cake four dollars and fifty cents.",
    "payment of 1,200 dollars": "payment of one thousand two hundred dollars",
    "$5-10 a person": "five to ten dollars a person",
    "from $1.5 million to $20k": "from one point five million dollars to twenty thousand dollars",
    "12 € or 3.20 EUR, and £0.99": "twelve euros or three euros and twenty cents, and ninety nine pence",
    "1 dollar, 1 silver coin": "one dollar, one silver coin",
    "at 12 Mill Lane": "at twelve Mill Lane",
    "at 112 Bailey Road": "at one hundred twelve Bailey Road",
    "open 9-17": "open nine in the morning to five in the evening",
    "Open Mon-Fri 9-5": "Open Monday to Friday nine in the morning to five in the evening",
    "Mon\u2013Sat 8\u201318, not Sun": "Monday to Saturday eight in the morning to six in the evening, not Sun",
    "daily, closed Sun": "daily, closed Sunday",
    "Sat & Sun 10-16": "Saturday & Sunday ten in the morning to four in the afternoon",
    "The Sun and I sat.": "The Sun and I sat.",
    "09:00 - 17:30": "nine in the morning to five thirty in the evening",
    "noon-8pm": "noon to eight in the evening",
    "\u20ac4,50 or 3,20 \u20ac, 12$": "four euros and fifty cents or three euros and twenty cents, twelve dollars",
    "$20/hr, $5/kg, 80 dollars / night": "twenty dollars an hour, five dollars a kilogram, eighty dollars a night",
    "20+ people": "twenty or more people",
    "Hours: 08:00-20:00": "Hours: eight in the morning to eight in the evening",
    "9am-5pm": "nine in the morning to five in the evening",
    "from 7 to 10:30 am": "from seven in the morning to ten thirty in the morning",
    "11-2 pm": "eleven in the morning to two in the afternoon",
    "9:05 a.m. to noon": "nine oh five in the morning to noon",
    "from 8 am to 12 pm": "from eight in the morning to noon",
    "at 17:30": "at five thirty in the evening",
    "We close at 5 p.m. Then we rest.": "We close at five in the evening. Then we rest.",
    "until 6 p.m. Monday": "until six in the evening Monday",
    "555-0123": "five five five, zero one two three",
    "(555) 123-4567": "five five five, one two three, four five six seven",
    "+1 555 123 4567": "plus one, five five five, one two three, four five six seven",
    "0800 123 456": "zero eight zero zero, one two three, four five six",
    "dial 911, or call 311": "dial nine one one, or call three one one",
    "until March 3rd": "until March third",
    "On the 5th of May.": "On May fifth.",
    "Dec 24, 2026": "December twenty fourth, twenty twenty six",
    "2026-11-26": "November twenty sixth, twenty twenty six",
    "3/14/2015": "March fourteenth, twenty fifteen",
    "since 1985, from 2019-2021": "since nineteen eighty five, from twenty nineteen to twenty twenty one",
    "10% off, a 2.5% fee": "ten percent off, a two point five percent fee",
    "Groups of 8-10, ages 3\u201312": "Groups of eight to ten, ages three to twelve",
    "the 21st floor, 2nd door": "the twenty first floor, second door",
    "2 1/2 hours, \u00bd price": "two and a half hours, half price",
    "30 cm, 2.5 kg, -5 \u00b0C": "thirty centimeters, two point five kilograms, minus five degrees Celsius",
    "flight BA249, gate 12B": "flight BA two four nine, gate twelve B",
    "R2D2 has a PIN, 0412": "R two D two has a PIN, zero four one two",
    "No. 5, #1, 24/7": "number five, number one, twenty four hours a day, seven days a week",
    "a 4x4": "a four by four",
    "100,000 people": "one hundred thousand people",
}


@pytest.mark.parametrize("written", WRITTEN)
def test_numbers_are_written_as_one_says_them(written: str) -> None:
    assert spell_numbers(written) == WRITTEN[written]


@given(st.text(alphabet=st.sampled_from("0123456789.,:-/$%+# apmAMx()\u00bd\u00b2\u0663k"), max_size=40))
@example("9" * 400)
@example("99:99 25:61 am 13 pm 13/45/2020 0000-99-99")
def test_no_digit_is_left_whatever_is_written(text: str) -> None:
    spelled = spell_numbers(text)
    assert not re.search(r"\d", spelled)
    assert spell_numbers(spelled) == spelled


@given(st.text(alphabet=st.characters(exclude_categories=["N", "Cs"]), max_size=40))
def test_text_without_numbers_is_left_alone(text: str) -> None:
    assert spell_numbers(text) == text


def test_the_built_in_model_reads_and_says_words_and_others_read_digits() -> None:
    nano = Checkpoint.read(NANO)
    spelling, plain = SentencePieceTokenizer(nano.tokenizer, nano.spell), SentencePieceTokenizer(nano.tokenizer)
    assert list(spelling.prompt("Tea is $4.")) == list(plain.prompt("Tea is four dollars."))
    assert spelling.words("That is $4.") == plain.words("That is four dollars.")
    assert list(plain.prompt("Tea is $4.")) != list(plain.prompt("Tea is four dollars."))
