"""Personas that no model has been trained on, and what their callers ask.

Names, companies and prices are drawn at random, so that a right answer has been read in the prompt. Prompts are in the
form on which PersonaPlex was trained: `You work for COMPANY which is a KIND and your name is NAME. Information: ...`.
"""

import random
from dataclasses import dataclass


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_FIRST = _words(
    "Adele Ansel Beatrix Bodil Caspian Cosima Dashiell Delphine Emeric Esme Fabian Fleur Gideon Greta Hollis Ione "
    "Jasper Juno Kestrel Lavinia Leopold Maren Magnus Nadia Nico Octavia Orson Petra Quentin Rosalind Rufus Saskia "
    "Silas Tamsin Tobias Ursula Viggo Wilma Xavier Yvette Zadie Zeno"
)
_LAST = _words(
    "Abbott Brandt Castellan Devereux Eastwick Farrow Galloway Hawthorne Ingram Jessop Kimball Lockhart Merriweather "
    "Northcott Osgood Pemberton Quimby Redfern Sinclair Thackeray Underhill Vance Whitlock Yarrow"
)
_KINDS = {
    "a bakery": {"sourdough loaf": (4, 9), "cinnamon roll": (2, 6), "birthday cake": (25, 60)},
    "a hotel": {"single room": (70, 150), "parking space": (5, 25), "late checkout": (15, 40)},
    "a bicycle shop": {"bicycle lock": (15, 50), "new tire": (20, 60), "bicycle helmet": (30, 90)},
    "a garden center": {"rose bush": (12, 35), "bag of soil": (5, 15), "watering can": (10, 30)},
    "a pet store": {"dog leash": (8, 25), "bag of cat food": (12, 40), "fish tank": (40, 120)},
    "a cinema": {"child ticket": (5, 12), "box of popcorn": (4, 10), "evening ticket": (9, 20)},
    "a hair salon": {"haircut": (20, 60), "beard trim": (10, 25), "hair coloring": (50, 120)},
    "a museum": {"guided tour": (10, 30), "family ticket": (25, 60), "audio guide": (4, 12)},
}
_COMPANY = _words(
    "Amber Beacon Copper Driftwood Evergreen Fern Granite Harvest Ivory Juniper Kingfisher Lantern Meadow Northwind "
    "Orchard Pebble Quarry Riverbend Saffron Thistle Umber Violet Willow Zephyr"
)

NAME = (
    "Sorry, who am I speaking with?",
    "What was your name again?",
    "Could you tell me your name, please?",
    "And who is this?",
)
COMPANY = (
    "Which company is this?",
    "Where do you work?",
    "What is the name of your place?",
    "Sorry, what's the company called?",
)
PRICE = (
    "How much is a {thing}?",
    "What would a {thing} cost me?",
    "Could you tell me the price of a {thing}?",
    "Um, a {thing}, how much would that be?",
)
PAUSED = (("I wanted to ask you", "what you charge for a {thing}."), ("My sister told me that", "you have a {thing}."))
"""Turns with a pause inside, in which the caller has not finished."""
LONG = "Can you tell me everything about your prices?"
SMALL_TALK = (
    "Thank you, that is good to know.",
    "It is a lovely day today.",
    "I have never been to your place before.",
    "Do many people call you on a day like this?",
    "My brother may come with me.",
    "Let me think about that for a moment.",
    "I read about you in the newspaper.",
    "We are looking forward to it.",
)


@dataclass(frozen=True)
class Subject:
    """A persona, and the facts in its prompt that callers ask for."""

    prompt: str
    name: str
    """The first name."""
    company: str
    prices: tuple[tuple[str, str], ...]
    """Things, each with its price in words, such as `twelve dollars`."""


def subject(number: int) -> Subject:
    """Persona number n; the same one always."""
    rng = random.Random(f"subject {number}")
    first, last = rng.choice(_FIRST), rng.choice(_LAST)
    kind = rng.choice(sorted(_KINDS))
    company = f"{rng.choice(_COMPANY)} {kind.split(' ', 1)[1].title()}"
    prices = {thing: rng.randint(*between) for thing, between in _KINDS[kind].items()}
    told = ", ".join(f"a {thing} costs {price} dollars" for thing, price in prices.items())
    prompt = (
        f"You work for {company} which is {kind} and your name is {first} {last}. Information: {told.capitalize()}."
    )
    return Subject(prompt, first, company, tuple((thing, str(price)) for thing, price in prices.items()))
