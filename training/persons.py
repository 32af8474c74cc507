"""What open conversations tell of somebody's life: told to the agent, of it in the third person, or under labels."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.engine.spoken_numbers import spell_numbers
from training import names
from training.episodes import Exchange
from training.facts import told_and_answered
from training.goods import with_articles, words_of
from training.nouns import Noun, nouns, told_of_nouns
from training.phrases import pick, wordings
from training.prompts import Told
from training.texts import choices, table

_SUBJECT = re.compile(r"\b[Yy]ou ((?:always|never|just|once) )?(\w+)")
_THIRD_PERSON = {"are": "is", "were": "was", "have": "has", "do": "does"}
"""Irregular verbs; those of the past and those that help others stay as they are."""
_OF_NOUNS = 0.35
"""The share of what is told in the second person that is of somebody near, or of something that is owned."""
_ABOUT = {"relation": "family", "belonging": ""}
"""What traits of such a noun are about."""
_WORK = ("job", "old_job", "employer", "boss")
"""Fields of what is told of somebody's work."""
_UNCHANGED = ("can", "cannot", "could", "will", "would", "became", "grew", "went", "had")


@dataclass(frozen=True)
class Trait:
    """Something that the prompt tells of a person, and what may be asked because of it.

    Of traits that are `about` the same, such as home or family, none is unknown when another is told.
    """

    told: Told
    exchange: Exchange
    about: str


@dataclass(frozen=True)
class Telling:
    """How a prompt tells of its person: under labels, and in the third person, whose pronoun (`she`) is then given."""

    labelled: bool
    first: str
    pronoun: str = ""


def traits(rng: random.Random, telling: Telling, job: str, held_out: bool, count: int) -> tuple[list[Trait], ...]:
    """So many traits of somebody, and two more that the prompt does not tell.

    Nothing is told of work where no `job` is given.
    """
    facts = [fact for fact in table("persons")["facts"] if job or not _is_of_work(fact)]
    fields = _fields(rng, job, held_out)
    order = rng.sample(facts, len(facts))
    drawn = [_trait(rng, fact, telling, fields, held_out) for fact in order[:count]]
    if not telling.pronoun:
        those = rng.sample((*nouns("relation"), *nouns("belonging")), count)
        drawn = [
            _of_noun(rng, noun, telling, held_out) if rng.random() < _OF_NOUNS and not _asked_of(noun, drawn) else trait
            for trait, noun in zip(drawn, those, strict=True)
        ]
    asked = {ask for trait in drawn for ask in trait.exchange.asks}
    abouts = {trait.about for trait in drawn if trait.about}
    others = [_trait(rng, fact, telling, fields, held_out) for fact in order[count : count + 8]]
    others = [
        trait
        for trait in others
        if trait.exchange.asks and trait.about not in abouts and asked.isdisjoint(trait.exchange.asks)
    ]
    return drawn, others[:2]


def _is_of_work(fact: dict[str, Any]) -> bool:
    return any(f"{{{field}}}" in str(fact) for field in _WORK)


def _trait(
    rng: random.Random, fact: dict[str, Any], telling: Telling, fields: Mapping[str, str], held_out: bool
) -> Trait:
    texts = choices(fact["labels"] if telling.labelled and "labels" in fact else fact["tells"])
    tell, *own = rng.choice(texts).split(" | ")
    answer = own[0] if own else rng.choice(choices(fact["answers"]))
    if telling.pronoun:
        tell = in_third_person(tell, rng.choice((telling.pronoun, telling.pronoun, telling.first)), telling.pronoun)
    elif rng.random() < 0.25:
        tell = tell.replace("You are ", "You're ")
    exchange = Exchange("fact", wordings(fact["asks"], held_out), _filled(answer, fields))
    return Trait(Told(_filled(tell, fields)), exchange, fact.get("about", ""))


def _of_noun(rng: random.Random, noun: Noun, telling: Telling, held_out: bool) -> Trait:
    told = rng.choice(told_of_nouns(noun.field))
    tell, answer = told_and_answered(rng, telling.labelled, told, held_out, "dollars", **noun.fields)
    return Trait(Told(tell), Exchange("fact", noun.asks(told, held_out), answer), _ABOUT[noun.field])


def _asked_of(noun: Noun, told: Sequence[Trait]) -> bool:
    """Whether callers who ask for something that is told may mean this noun: `Who is your best friend?`"""
    word = noun.word.split()[-1]
    return any(word in words_of(ask) for trait in told for ask in trait.exchange.asks)


def in_third_person(text: str, subject: str, pronoun: str) -> str:
    """What is told of `you`, told of somebody: `You have a dog.` of `Ann`, `she`, becomes `Ann has a dog.`"""
    own = {"she": "her", "he": "his"}[pronoun]
    text = _SUBJECT.sub(lambda found: f"{subject} {found[1] or ''}{_verb(found[2])}", text)
    text = re.sub(r"\b[Yy]our\b", own, text)
    return f"{text[0].upper()}{text[1:]}"


def _verb(verb: str) -> str:
    """A verb of the second person in the third."""
    if verb.endswith("ed") or verb in _UNCHANGED:
        return verb
    if verb in _THIRD_PERSON:
        return _THIRD_PERSON[verb]
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return f"{verb[:-1]}ies"
    return f"{verb}es" if verb.endswith(("s", "sh", "ch", "x", "o")) else f"{verb}s"


def _filled(text: str, fields: Mapping[str, str]) -> str:
    """The text with its {fields}, its articles right and its numbers in words."""
    return spell_numbers(with_articles(text.format(**fields)))


def _fields(rng: random.Random, job: str, held_out: bool) -> dict[str, str]:
    """A life: all that facts are filled in with."""
    drawn = {key: pick(rng, value) for key, value in table("persons")["words"].items()}
    towns = rng.sample(table("places")["towns"].split(), 3)
    trade = rng.choice(table("trades")[:-1])
    roles = ["partner", "child", "twin", "friend", "teacher"] + ["pet_name"] * (rng.random() < 0.5)
    return {
        **drawn,
        **{role: names.first_name(rng, held_out) for role in roles},
        **dict(zip(("town", "town2", "town3"), towns, strict=True)),
        "job": job,
        "old_job": rng.choice([other for other in table("talks")["jobs"] if other != job]),
        "boss": names.person(rng, held_out).name,
        "employer": names.company(rng, rng.choice(trade["companies"].split(", ")), held_out),
        "age": str(rng.randint(18, 89)),
        "year": str(rng.randint(1940, 1999)),
        "number": str(rng.randint(2, 6)),
        "years": str(rng.randint(2, 9)),
        "tens": str(rng.randint(5, 45)),
        "day": str(rng.randint(1, 28)),
        "lucky": str(rng.randint(3, 99)),
        "height": str(rng.randint(150, 199)),
        "feet": rng.choice(("5", "6")),
        "morning": f"{rng.randint(4, 10)}{rng.choice(('', '', ':30'))} am",
        "evening": f"{rng.randint(8, 11)}{rng.choice(('', '', ':30'))} pm",
    }
