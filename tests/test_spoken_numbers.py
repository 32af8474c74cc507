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
    "Open 9-12, 14-18.": "Open nine in the morning to noon, two in the afternoon to six in the evening.",
    "Mon-Fri 9-12 and 14-18, Sat 9-12, 2-6": (
        "Monday to Friday nine in the morning to noon and two in the afternoon to six in the evening, "
        "Saturday nine in the morning to noon, two in the afternoon to six in the evening"
    ),
    "8h-18h": "eight in the morning to six in the evening",
    "open 8h - 18h30, at 8h30": (
        "open eight in the morning to six thirty in the evening, at eight thirty in the morning"
    ),
    "It takes 1h30. The tour lasts 2h 15min.": (
        "It takes one hour and thirty minutes. The tour lasts two hours and fifteen minutes."
    ),
    "A pizza costs 12.50": "A pizza costs twelve fifty",
    "Rolls 1.20 each, pies cost 12.05, tea costs 3.00 or 0.80": (
        "Rolls one twenty each, pies cost twelve oh five, tea costs three or eighty cents"
    ),
    "Prices: coffee 2.50, tea 3.00, cake 4.75.": "Prices: coffee two fifty, tea three, cake four seventy five.",
    "Margherita 9.50, Funghi 10.50": "Margherita nine fifty, Funghi ten fifty",
    "Pi is 3.14, the rating is 4.8.": "Pi is three point one four, the rating is four point eight.",
    "$9.5": "nine dollars and fifty cents",
    "50c, 50\u00a2, 99p, 1p": "fifty cents, fifty cents, ninety nine pence, one penny",
    "1080p, Apt 5c": "one zero eight zero p, Apartment five c",
    "Mo\u2013Fr, Sa 10-14": "Monday to Friday, Saturday ten in the morning to two in the afternoon",
    "We open at 9. We 9-17. Mo is here.": (
        "We open at nine. Wednesday nine in the morning to five in the evening. Mo is here."
    ),
    "7 days a week, 24/7/365": "seven days a week, twenty four hours a day, seven days a week, all year",
    "1st-3rd": "first to third",
    "10%-20%, 10-20%": "ten to twenty percent, ten to twenty percent",
    "2-for-1, 3-in-1": "two for one, three in one",
    "9 a.m. to 5 p.m. daily": "nine in the morning to five in the evening daily",
    "12:30-14:30": "twelve thirty in the afternoon to two thirty in the afternoon",
    "a 10k run, 50k miles, 2.5k": "a ten k run, fifty thousand miles, two thousand five hundred",
    "1.200 \u20ac, \u20ac1.200,50": "one thousand two hundred euros, one thousand two hundred euros and fifty cents",
    "4\u20ac, EUR 4, 5\u20ac50, $.99": "four euros, four euros, five euros and fifty cents, ninety nine cents",
    "5\u20ac-10\u20ac, $4.50-$5.50, 10-15 dollars": (
        "five to ten euros, four dollars and fifty cents to five dollars and fifty cents, ten to fifteen dollars"
    ),
    "a $5 menu, $5 a person, a 5 pound bag": "a five dollar menu, five dollars a person, a five pound bag",
    "+1 555 0134": "plus one, five five five, zero one three four",
    "Call 1-800-FLOWERS or 5550134.": "Call one, eight zero zero, FLOWERS or five five five zero one three four.",
    "A4, B12, COVID-19, 5G, 5 GB": "A four, B twelve, COVID nineteen, five G, five gigabytes",
    "the '90s, 80s music, in his 30s": "the nineties, eighties music, in his thirties",
    "in 2020 was a fire; 2020 seats; founded 1420": (
        "in twenty twenty was a fire; two thousand twenty seats; founded fourteen twenty"
    ),
    "2019-21, 1985-present": "twenty nineteen to twenty one, nineteen eighty five to present",
    "3x, 2 x 4, 10x15 cm": "three times, two by four, ten by fifteen centimeters",
    '5\'10", 6\' tall, a 10" pizza (12")': "five foot ten, six feet tall, a ten inch pizza (twelve inches)",
    'He says "call 911" and "room 12"': 'He says "call nine one one" and "room twelve"',
    "70\u00b0F, 250 ml, 12kg, 1.5 l, 12oz steak": (
        "seventy degrees Fahrenheit, two hundred fifty milliliters, twelve kilograms, one point five "
        "liters, twelve ounce steak"
    ),
    "Route 66, Apt. 4B, Ste. 300": "Route sixty six, Apartment four B, Suite three hundred",
    "closed on 12/24, 12/24-12/26": "closed on December twenty fourth, December twenty fourth to December twenty sixth",
    "closed 24.12. and 31.12.": "closed December twenty fourth and December thirty first",
    "24.12.2026, 2026-12-24, Dec 24th": (
        "December twenty fourth, twenty twenty six, December twenty fourth, twenty twenty six, December twenty fourth"
    ),
    "It is rated 4.5. Call us. It costs 12.10. We like it.": (
        "It is rated four point five. Call us. It costs twelve ten. We like it."
    ),
    "Dec 24-26, Dec 24 - Jan 2, 24-26 Dec 2026": (
        "December twenty fourth to twenty sixth, December twenty fourth to January second, December "
        "twenty fourth to twenty sixth, twenty twenty six"
    ),
    "Apr-Oct 9-17": "April to October, nine in the morning to five in the evening",
    "Everybody over 4 may come. You may 5 times.": "Everybody over four may come. You may five times.",
    "M-F 9-5, M-Th 8am-5pm": (
        "Monday to Friday nine in the morning to five in the evening, Monday to Thursday eight in the "
        "morning to five in the evening"
    ),
    "Mon/Wed/Fri 10-2": "Monday, Wednesday, Friday ten in the morning to two in the afternoon",
    "Open Mon-Fri. Closed Sun.": "Open Monday to Friday. Closed Sunday.",
    "open 1-5, open 5-11, dinner 5-10": (
        "open one in the afternoon to five in the evening, open five to eleven, dinner five in the "
        "evening to ten in the evening"
    ),
    "open 22-6, open 10-10": (
        "open ten in the evening to six in the morning, open ten in the morning to ten in the evening"
    ),
    "from 10:00 to 2:00, at 8:30": "from ten in the morning to two in the afternoon, at eight thirty",
    "9am-late, 9a-5p, 0900-1700 hrs": (
        "nine in the morning to late, nine in the morning to five in the evening, nine in the morning to "
        "five in the evening"
    ),
    "Open 8.30 to 17.30, lunch 10-15 people": (
        "Open eight thirty in the morning to five thirty in the evening, lunch ten to fifteen people"
    ),
    "1/2 lb, 1 1/2 hrs, 3/8 inch": "half a pound, one and a half hours, three eighths inch",
    "1,2,3 or 192.168.1.1": (
        "one, two, three or one hundred ninety two point one hundred sixty eight point one point one"
    ),
    "4/5 stars, 50/50, 5/6, 16:9": "four out of five stars, fifty fifty, five slash six, sixteen to nine",
    "7,- EUR, US$5, 1'000 CHF": "seven euros, five US dollars, one thousand francs",
}
# As people wrote them: values of OpenStreetMap's opening_hours and its documentation, price lists and opening times of
# restaurants, pools, hotels, pubs and clinics, prompts of voice agents, examples of text normalization.
STRANGERS = {
    "Mo-Sa 06:00-22:00": "Monday to Saturday six in the morning to ten in the evening",
    "Mo-Fr 08:00-18:00; Sa 10:00-14:00": (
        "Monday to Friday eight in the morning to six in the evening; Saturday ten in the morning to two "
        "in the afternoon"
    ),
    "Mo-Fr 08:00-18:00; Sa,Su 10:00-20:00": (
        "Monday to Friday eight in the morning to six in the evening; Saturday, Sunday ten in the "
        "morning to eight in the evening"
    ),
    "Mo-Fr 08:00-12:00, We 14:00-18:00": (
        "Monday to Friday eight in the morning to noon, Wednesday two in the afternoon to six in the evening"
    ),
    "Mo-Fr 08:00-12:00, 14:00-18:00": (
        "Monday to Friday eight in the morning to noon, two in the afternoon to six in the evening"
    ),
    "Mo-Fr 08:00-18:00; We off": "Monday to Friday eight in the morning to six in the evening; Wednesday off",
    "Mo-Fr 10:00-20:00; PH off": "Monday to Friday ten in the morning to eight in the evening; public holidays off",
    "Mo,Tu,Th,Fr 12:00-18:00; Sa,PH 12:00-17:00": (
        "Monday, Tuesday, Thursday, Friday noon to six in the evening; Saturday, public holidays noon to "
        "five in the evening"
    ),
    "Mo 10:00-12:00,12:30-15:00; Tu-Fr 08:00-12:00,12:30-15:00": (
        "Monday ten in the morning to noon, twelve thirty in the afternoon to three in the afternoon; "
        "Tuesday to Friday eight in the morning to noon, twelve thirty in the afternoon to three in the "
        "afternoon"
    ),
    "Mo-We,Fr 09:00-13:30,14:00-18:30": (
        "Monday to Wednesday, Friday nine in the morning to one thirty in the afternoon, two in the "
        "afternoon to six thirty in the evening"
    ),
    "Mo-Su 10:00-19:00; Jun off; Dec 25 off": (
        "Monday to Sunday ten in the morning to seven in the evening; Jun off; December twenty fifth off"
    ),
    "Mo-Fr 17:00-03:00, Sa-Su 18:00+": (
        "Monday to Friday five in the evening to three in the morning, Saturday to Sunday six in the evening or later"
    ),
    "Mo-fr 07:00-22:00; Sa-Su,PH 07:00-21:00": (
        "Monday to Friday seven in the morning to ten in the evening; Saturday to Sunday, public "
        "holidays seven in the morning to nine in the evening"
    ),
    "Fr-Sa 18:00-06:00; PH off": "Friday to Saturday six in the evening to six in the morning; public holidays off",
    "Sa 18:00-22:00+": "Saturday six in the evening to ten in the evening or later",
    "Mon \u2013 Fri: 8am to 7.15pm*.": "Monday to Friday: eight in the morning to seven fifteen in the evening*.",
    "Sat: 10am to 7.15pm (last meal booking 6.15pm, last Afternoon Tea 5.30pm)": (
        "Saturday: ten in the morning to seven fifteen in the evening (last meal booking six fifteen in "
        "the evening, last Afternoon Tea five thirty in the evening)"
    ),
    "we will only require a \u00a35 per head deposit only refundable if cancelled 7 days prior.": (
        "we will only require a five pounds per head deposit only refundable if cancelled seven days prior."
    ),
    "Chicken Benjal (\u00a34.95)": "Chicken Benjal (four pounds and ninety five pence)",
    "Dips from \u00a32.50": "Dips from two pounds and fifty pence",
    "Specials: 10% discount on orders over \u00a312 collected.": (
        "Specials: ten percent discount on orders over twelve pounds collected."
    ),
    "The hours are 8 AM to 5PM daily, but they are closed on Sundays.": (
        "The hours are eight in the morning to five in the evening daily, but they are closed on Sundays."
    ),
    "located at 123 North Face Place, Anaheim, California.": (
        "located at one hundred twenty three North Face Place, Anaheim, California."
    ),
    "245 Maple Avenue, Suite 300, Springfield, IL 62704": (
        "two hundred forty five Maple Avenue, Suite three hundred, Springfield, IL six two seven zero four"
    ),
    "(217) 555-0198": "two one seven, five five five, zero one nine eight",
    "**Saturday:** 9:00 AM \u2013 1:00 PM": "**Saturday:** nine in the morning to one in the afternoon",
    "**Lunch Break:** 12:30 PM \u2013 1:30 PM (Weekdays only)": (
        "**Lunch Break:** twelve thirty in the afternoon to one thirty in the afternoon (Weekdays only)"
    ),
    "- **Cavity Filling:** $150 \u2013 $250 (depending on size)": (
        "- **Cavity Filling:** one hundred fifty to two hundred fifty dollars (depending on size)"
    ),
    "Monday-Friday: 8:00 AM - 5:00 PM": "Monday to Friday: eight in the morning to five in the evening",
    "(555) 123-CARE": "five five five, one two three-CARE",
    "Hours: Monday to Saturday, 9 AM to 7 PM": "Hours: Monday to Saturday, nine in the morning to seven in the evening",
    "10:00 a.m. \u2013 2:00 p.m.": "ten in the morning to two in the afternoon.",
    "4:00 \u2013 8:00 p.m.": "four in the afternoon to eight in the evening.",
    "| Small | 10 inches | $8.99 |": "| Small | ten inches | eight dollars and ninety nine cents |",
    "| Stuffed Crust | +$2.00 (M-XL) |": "| Stuffed Crust | plus two dollars (M-XL) |",
    '| Gluten-Free | 10" only; made with rice flour |': "| Gluten-Free | ten inches only; made with rice flour |",
    'Small (10")': "Small (ten inches)",
    "sm: $10 + $1/topping; md: $14 + $1/topping; lg: $18 + $1/topping;": (
        "sm: ten dollars + one dollar a topping; md: fourteen dollars + one dollar a topping; lg: "
        "eighteen dollars + one dollar a topping;"
    ),
    "cheese pizzas ($6)": "cheese pizzas (six dollars)",
    "\u20ac 3.50": "three euros and fifty cents",
    "Discount for groups: 10% (from 15 people)": "Discount for groups: ten percent (from fifteen people)",
    "youths & children from the age of 4 - 17": "youths & children from the age of four to seventeen",
    "max. 10,- EUR": "max. ten euros",
    "9.- EUR": "nine euros",
    "0,50 EUR": "fifty cents",
    "4,50 EUR": "four euros and fifty cents",
    "The Boiler House, 18.45-20.00 hours": "The Boiler House, six forty five in the evening to eight in the evening",
    "from 11 a.m. to 1 p.m.": "from eleven in the morning to one in the afternoon.",
    "Daily ticket 2 euros": "Daily ticket two euros",
    "Mushy peas 60p": "Mushy peas sixty pence",
    "Fish n chips locally between \u00a33.50 and \u00a35 a person.": (
        "Fish n chips locally between three pounds and fifty pence and five pounds a person."
    ),
    "add between 6p and 20p to their price": "add between six pence and twenty pence to their price",
    "One pub added 82.5p": "One pub added eighty two point five pence",
    "just 7p a portion": "just seven pence a portion",
    "only about 10 - 20% up on yours": "only about ten to twenty percent up on yours",
    "a 1.6-2kg cod": "a one point six to two kilograms cod",
    "$30/pet/night plus a $200 refundable damage deposit": (
        "thirty dollars a pet a night plus a two hundred dollar refundable damage deposit"
    ),
    "Sheets and towels are washed at 60\u00b0C/140\u00b0F or hotter": (
        "Sheets and towels are washed at sixty degrees Celsius/one hundred forty degrees Fahrenheit or hotter"
    ),
    "\u2022 Check-in time starts at: 3 PM": "\u2022 Check-in time starts at: three in the afternoon",
    "There will be a $20 fee for extra guests beyond 2 people.": (
        "There will be a twenty dollar fee for extra guests beyond two people."
    ),
    "Check-In 3:00pm": "Check-In three in the afternoon",
    "There will be a 150$ cleaning fee": "There will be a one hundred fifty dollars cleaning fee",
    "A refundable deposit of $20 USD per stay": "A refundable deposit of twenty dollars per stay",
    "Arrivals between 9:00 am and 12:00 pm can be accepted": (
        "Arrivals between nine in the morning and noon can be accepted"
    ),
    "it may take 3-5 business days to return to your card": (
        "it may take three to five business days to return to your card"
    ),
    "from 8 a.m. to 5:30 p.m. On Saturdays, the clinic is open 8 a.m. to noon.": (
        "from eight in the morning to five thirty in the evening. On Saturdays, the clinic is open eight "
        "in the morning to noon."
    ),
    "Monday \u2013 Friday 9 am-12 pm and 1 pm-4 pm. Weekends 12 pm-3 pm.": (
        "Monday to Friday nine in the morning to noon and one in the afternoon to four in the afternoon. "
        "Weekends noon to three in the afternoon."
    ),
    "(Mondays 10:30am - 4:30pm and Tuesday-Friday, 10:00am-5:30pm)": (
        "(Mondays ten thirty in the morning to four thirty in the afternoon and Tuesday to Friday, ten "
        "in the morning to five thirty in the evening)"
    ),
    "Each vehicle camp space measures approximately 30\u2019 X 30\u2019.": (
        "Each vehicle camp space measures approximately thirty by thirty feet."
    ),
    "Check-In 9/27 at 9 a.m. (CST)": "Check-In September twenty seventh at nine in the morning (CST)",
    "11am \u2013 11pm Thursday, October 26": (
        "eleven in the morning to eleven in the evening Thursday, October twenty sixth"
    ),
    "Operating hours are 9 AM to 5 PM daily": "Operating hours are nine in the morning to five in the evening daily",
    "direct them to call 911": "direct them to call nine one one",
    "on Jul 5th, 2024 for the $24.12 payment": (
        "on July fifth, twenty twenty four for the twenty four dollars and twelve cents payment"
    ),
    "call my number 2137112342": "call my number two one three seven one one two three four two",
    "I bought 3 items for \u20ac50.99 on 01/15/2024.": (
        "I bought three items for fifty euros and ninety nine cents on January fifteenth, twenty twenty four."
    ),
    "50,99\u20ac": "fifty euros and ninety nine cents",
    "1-800-444-4141": "one, eight zero zero, four four four, four one four one",
    "It costs $3.50 for 2 kg, e.g. in 1984.": (
        "It costs three dollars and fifty cents for two kilograms, e.g. in nineteen eighty four."
    ),
    "1,234 points": "one thousand two hundred thirty four points",
    "3.14, -5, 007": "three point one four, minus five, zero zero seven",
    "1st, 23rd, 50%, 1/2 cup": "first, twenty third, fifty percent, half cup",
    "in 1984, the 1990s": "in nineteen eighty four, the nineteen nineties",
    "1999-2000": "nineteen ninety nine to two thousand",
    "a fine of up to $1,000": "a fine of up to one thousand dollars",
    "99p a pint": "ninety nine pence a pint",
    "\u00a32.95 and a pint costing \u00a34.25": (
        "two pounds and ninety five pence and a pint costing four pounds and twenty five pence"
    ),
    "Dog Fee = $25 per pet per stay + tax": "Dog Fee = twenty five dollars per pet per stay + tax",
    "123 Main Street, Suite 100, Anytown, ST 12345": (
        "one hundred twenty three Main Street, Suite one hundred, Anytown, ST one two three four five"
    ),
    "operating seven days a week from 9am to 5pm.": (
        "operating seven days a week from nine in the morning to five in the evening."
    ),
}


@pytest.mark.parametrize(("written", "said"), [*WRITTEN.items(), *STRANGERS.items()])
def test_numbers_are_written_as_one_says_them(written: str, said: str) -> None:
    assert spell_numbers(written) == said
    assert spell_numbers(said) == said
    assert spell_numbers(f"Hello there.\n{written}\nBye now.") == f"Hello there.\n{said}\nBye now."


@pytest.mark.parametrize(
    "hostile",
    ["1,", '1"', "Mo, ", "open 9-5, ", "costs 1"],
)
def test_a_hostile_text_of_20000_characters_is_spelled_at_once(hostile: str) -> None:
    spelled = spell_numbers((hostile * 20_000)[:20_000])  # backtracking would take hours
    assert not re.search(r"\d", spelled)


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


def test_the_built_in_model_reads_no_hyphens_inside_words() -> None:
    nano = Checkpoint.read(NANO)
    spelling, plain = SentencePieceTokenizer(nano.tokenizer, nano.spell), SentencePieceTokenizer(nano.tokenizer)
    written = "A tune-up - $65 - or e\u2011bikes, Tue-Sat."
    assert list(spelling.prompt(written)) == list(
        plain.prompt("A tune up - sixty five dollars - or e bikes, Tuesday to Saturday.")
    )
    assert spelling.words("A well-known check-up.") == plain.words("A well known check up.")
