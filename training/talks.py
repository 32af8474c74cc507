"""Open conversations, emergencies and teachers: roles without a company."""

import random
from dataclasses import replace

from training import names
from training.catalogue import any_goods
from training.episodes import Episode, Exchange
from training.facts import Fact, hours, place
from training.goods import article
from training.persons import Telling, traits
from training.phrases import Groups, answer, chosen, feelings, garbled, phrases, pick, small_talk, wordings
from training.pricing import goods_and_prices
from training.prompts import Style, fillers, opening, style, written
from training.texts import choices, table

_ANSWER_WORDS = 52
_THIRD_PERSON = 0.25
"""The share of prompts that tell of their person in the third person."""
_SELLING, _ALSO = 0.4, 0.6
"""The share of people, of those who are told of in the second person, who sell something, and of those who then also
tell when, or where."""
_ENJOYS = "You enjoy having a good conversation."


def talk(rng: random.Random, held_out: bool = False) -> Episode:
    """Somebody who enjoys a good conversation, now and then with no more in the prompt than that."""
    if rng.random() < 0.06:
        return _plain(rng, held_out)
    talks = table("talks")
    person = names.person(rng, held_out)
    job, topic = rng.choice(talks["jobs"]), rng.choice(talks["topics"])
    nature = rng.choice(choices(talks["natures"]))
    manner = pick(rng, talks["manners"])
    chosen_style = style(rng)
    pronoun = rng.choice(("she", "he")) if rng.random() < _THIRD_PERSON else ""
    told, others = traits(
        rng, Telling(chosen_style.labelled, person.first, pronoun), job, held_out, count=rng.randint(2, 6)
    )
    begin, late = opening(
        rng,
        "talk_openings_third" if pronoun else "talk_openings",
        held_out,
        name=person.name,
        first=person.first,
        job=job,
        nature=nature,
        topic=topic,
        work=f"{article(job)} {job}",
        a_job=f"{article(nature)} {nature} {job}",
        about=f"{manner} {topic}",
        About=f"{manner[0].upper()}{manner[1:]} {topic}",
    )
    more = fillers(rng, "talk_instructions")
    work = [] if pronoun else _work(rng, chosen_style, held_out)
    told = told[: 2 if work else None]
    statements = [trait.told for trait in told] + [fact.told for fact in work]
    rng.shuffle(statements)
    prompt = written(rng, chosen_style, begin, late, statements, more)
    fields = {"name": person.name, "first": person.first}
    groups: Groups = [group for fact in work for group in fact.groups]
    groups += [(2.5, (trait.exchange,)) for trait in told]
    groups += [
        (0.8, (replace(trait.exchange, kind="no_fact", answer=pick(rng, talks["no_fact"])),)) for trait in others
    ]
    topic_answer = pick(rng, talks["topic_answers"], topic=topic)
    if topic in prompt:
        groups.append((1.5, (Exchange("topic", wordings(talks["topic_asks"], held_out), topic_answer),)))
    if job in f"{begin} {late}":
        answers = [one for one in choices(talks["job_answers"]) if nature in begin or "{nature}" not in one]
        job_answer = pick(rng, answers, work=f"{article(job)} {job}", job=job, nature=nature, a=article(nature))
        groups.append((1.5, (Exchange("job", wordings(talks["job_asks"], held_out), job_answer),)))
    greeting = pick(rng, talks["greetings"], **fields)
    return person_episode(rng, "talk", prompt, person, greeting, groups, held_out, talks["help"])


def _work(rng: random.Random, style: Style, held_out: bool) -> list[Fact]:
    """What a prompt tells of what somebody sells, when and where; mostly nothing."""
    if rng.random() >= _SELLING:
        return []
    goods = any_goods(rng, rng.choice((1, 2, 2, 3)), "dollars", held_out)
    facts = [goods_and_prices(rng, style, goods, rng.choice(("have", "sell")), held_out)]
    return facts + [fact(rng, style, held_out) for fact in (hours, place) if rng.random() < _ALSO]


def crisis(rng: random.Random, held_out: bool = False) -> Episode:
    """Somebody in trouble, who asks for help."""
    talks = table("talks")
    person = names.person(rng, held_out)
    place, thing, role, trouble = rng.choice(talks["crises"])
    prompt, late = opening(
        rng,
        "crisis_openings",
        held_out,
        name=person.name,
        thing=thing,
        place=f"{_preposition(place)} {place}",
        role=role,
        trouble=trouble,
    )
    prompt = " ".join(filter(None, (prompt, late)))
    what = Exchange("trouble", wordings(talks["crisis_asks"], held_out), f"{trouble[0].upper()}{trouble[1:]}.")
    where = Exchange("where", wordings(talks["crisis_where"], held_out), f"I am {_preposition(place)} {place}.")
    advice = Exchange("advice", wordings(talks["crisis_advice"], held_out), pick(rng, talks["crisis_answers"]))
    job = Exchange("job", wordings(talks["job_asks"], held_out), f"I am {role}.")
    groups: Groups = [(3.0, (what,)), (2.0, (where,)), (3.0, (advice,)), (1.0, (job,))]
    greeting = pick(rng, talks["crisis_greetings"], first=person.first, trouble=trouble)
    return person_episode(
        rng,
        "crisis",
        prompt,
        person,
        greeting,
        groups,
        held_out,
        "",
        thing if thing.startswith("the ") else thing.replace("a ", "the ", 1),
    )


def teacher(rng: random.Random, held_out: bool = False) -> Episode:
    """A teacher: the prompt of the training word for word, or with a name."""
    talks = table("talks")
    person, prompt = names.Person("", ""), talks["teacher_prompt"]
    greeting, name = pick(rng, talks["teacher_greetings"]), pick(rng, talks["teacher_names"])
    if rng.random() < 0.4:
        person = names.person(rng, held_out)
        prompt = f"{prompt} Your name is {person.name}."
        greeting = f"Hello, I am {person.first}. What would you like to learn?"
        name = pick(rng, talks["teacher_named"], name=person.name, first=person.first)
    lessons = [lesson.split(" | ") for lesson in rng.sample(talks["lessons"], 4)]
    groups: Groups = [(2.0, (Exchange("lesson", wordings(ask, held_out), told),)) for ask, told in lessons]
    groups.append((6.0, (Exchange("name", phrases("name", held_out), name),)))
    return person_episode(
        rng,
        "teacher",
        prompt,
        person,
        greeting,
        groups,
        held_out,
        "What is your question? / What would you like to learn?",
    )


def _plain(rng: random.Random, held_out: bool) -> Episode:
    talks = table("talks")
    name = Exchange("name", phrases("name", held_out), pick(rng, talks["no_name"]))
    greeting = pick(rng, talks["greetings_no_name"])
    return person_episode(
        rng, "talk", _ENJOYS, names.Person("", ""), greeting, [(3.0, (name,))], held_out, talks["help"]
    )


def person_episode(
    rng: random.Random,
    kind: str,
    prompt: str,
    person: names.Person,
    greeting: str,
    groups: Groups,
    held_out: bool,
    help_offers: str,
    thing: str = "",
) -> Episode:
    """An episode with somebody who works for no company: some of `groups`, and what anybody is asked.

    `help_offers` are ways to offer help, or to go on talking, and `thing` is what somebody in trouble is near.
    """
    if all(exchange.kind != "name" for _, group in groups for exchange in group):
        name = answer(rng, "name", "talk", name=person.name, first=person.first)
        groups = [*groups, (6.0, (Exchange("name", phrases("name", held_out), name),))]
    manner = "crisis" if kind == "crisis" else "talk"
    known = {ask for _, group in groups for exchange in group for ask in exchange.asks}
    for weight, (feeling,) in feelings(rng, manner, held_out, thing=thing):
        asks = tuple(ask for ask in feeling.asks if ask not in known)
        groups = [*groups, (weight, (replace(feeling, asks=asks),))]
    groups += [(0.5, (exchange,)) for exchange in small_talk(rng, manner, held_out, help=help_offers)]
    goodbye = Exchange("goodbye", phrases("goodbye", held_out), answer(rng, "goodbye", manner))
    exchanges = (*chosen(rng, groups, _ANSWER_WORDS), garbled(rng, held_out), goodbye)
    return Episode(kind, prompt, person.name, person.first, "", greeting, exchanges, phrases("sorry", held_out))


def _preposition(place: str) -> str:
    return (
        "in" if any(word in place for word in ("castle", "theater", "lighthouse", "plant", "zoo", "balloon")) else "on"
    )
