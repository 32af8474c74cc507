"""What the prompts of service roles tell: hours, place, phone, rules, and other things of goods than prices.

Each is told as the style has it, and answered in the words that the spelled prompt has.
"""

import random
import re
from dataclasses import dataclass
from typing import Any

from core.engine.spoken_numbers import number_in_words, spell_numbers
from training import names
from training.catalogue import other_good
from training.episodes import Exchange
from training.goods import Good, capital, money, with_articles, words_of
from training.nouns import nouns, told_of_good, told_of_nouns
from training.phrases import good_wordings, phrases, pick, wordings
from training.prompts import Style, Told, told_about
from training.texts import choices, table

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_EVERYWHERE = words_of(
    "a the an i you we it he she they my your our me us is are am be was do does did have has can could may will would "
    "there here this that what when where who how which much many long no not and or of in on at to for from with by "
    "as if up out one only all any some more get take come go need want cost pay day today dollars please old new"
)
"""Words that tell nothing about a subject."""
_RULE = 2.8
"""The weight of an exchange about a rule: they are asked for about as often as prices."""
_WHERE = 3.5
"""The weight of where a company is."""
_ADDRESS = "at {number} {road}"
"""The form of a place that is an address without its first word."""
_ADDRESSES = 0.3
"""The share of places that are told so, as most people do."""
_FRAMED = 0.3
"""The share of rules and the like around which people write something: `Please note that ...`."""
_LONG = 11
"""Words of what is told that is long enough as it is."""
_TWICE, _LARGER = 0.2, (10, 12, 14, 15, 18, 20, 24, 25, 30, 35, 40, 45, 48, 50, 60, 90)
"""The share of rules that name two days or times where they may, and numbers that are more than a few."""
_ONCE = re.compile(r"(?i)\b(first|last|next|clos\w*|until|end\w*|born|ready|arrives?|delivery)\b")
"""What happens once, on one day and at one time."""
_COUNTED = re.compile(r"\{number\} (minutes|days|people|guests|persons)\b")
"""What there may be many of."""
_CODE = re.compile(r"(?i)\bcode \{code\}")
_DAYS_IN_PROSE = (
    "Monday to Friday",
    "Tuesday to Sunday",
    "Monday to Saturday",
    "every day",
    "every day",
    "on weekdays",
    "daily",
)
_DAYS_IN_SHORT = (
    "Mon-Fri",
    "Mon\u2013Sat",
    "Tue-Sun",
    "Mon-Sat",
    "Mo-Sa",
    "Mo-Fr",
    "Tue to Sun",
    "daily",
    "every day",
    "Monday-Friday",
    "weekdays",
    "",
)


@dataclass(frozen=True)
class Fact:
    """A statement of the prompt, and what callers may ask because of it: groups of exchanges, each with its weight."""

    told: Told
    groups: tuple[tuple[float, tuple[Exchange, ...]], ...]


def hours(rng: random.Random, style: Style, held_out: bool) -> Fact:
    """When it is open."""
    # A heading such as `Hours:` would turn a sentence's `8 to 8` into times of the day, which its answer does not name.
    if not style.labelled and style.listing != "topics" and rng.random() < 0.45:
        told = _in_a_sentence(rng, style)
        answer = spell_numbers(told)
    else:
        before, when = _open(rng, style)
        told = f"{before} {when}."
        # What stands before decides what `9-17` means, so the words are taken from the whole.
        spelled = spell_numbers(told).removeprefix(f"{before} ")
        answer = rng.choice(("We are open {}", "We are open {}", "You can come {}")).format(spelled)
    exchange = Exchange("hours", phrases("hours", held_out), answer)
    return Fact(Told(told, "our hours"), ((4.0, (exchange,)),))


def _open(rng: random.Random, style: Style) -> tuple[str, str]:
    """What stands before the hours, and the hours."""
    before = rng.choice(table("prompts")["hours_labels" if style.labelled else "hours_before"])
    hours_are = before.endswith(" are")
    days = rng.choice(_DAYS_IN_PROSE)
    if style.labelled:
        days = rng.choice(_DAYS_IN_SHORT if style.digits else _DAYS_IN_PROSE)
    elif before == "Open" and style.digits and rng.random() < 0.5:
        days = rng.choice(_DAYS_IN_SHORT)
    if before == "You can come" or rng.random() < 0.12:
        always = ("day and night", "every day", "at any time", "24/7", "on weekdays")
        return before, rng.choice(("around the clock", "24/7") if hours_are else always)
    if rng.random() < 0.15:
        return before, f"every day until {_clock(rng.randint(18, 23), 0, style.digits)}"
    span = _span(rng, style.digits and not hours_are)
    closed = (
        rng.choice((", closed on {}s", ", except {}s", ", not on {}s", ", closed {}s")).format(rng.choice(DAYS))
        if rng.random() < 0.15
        else ""
    )
    # Where nothing before `9-17` tells that these are times, the days do.
    days_last = rng.random() < 0.15 and " in the " in spell_numbers(f"{before} 9-17.")
    when = f"{span} {days}" if days_last else f"{days} {span}"
    return before, f"{when.strip()}{closed}"


def _span(rng: random.Random, digits: bool) -> str:
    begin, end = rng.randint(6, 11), rng.randint(13, 22)
    half = rng.choice((0, 0, 0, 30))
    early, late = _minutes(begin, half), _minutes(end - 12, 0)
    if not digits:
        spans = [f"from {_clock(begin, half, False)} to {_clock(end, 0, False)}"]
        if end - 12 <= begin:
            plain = f"{number_in_words(str(begin))}{' thirty' if half else ''} to {number_in_words(str(end - 12))}"
            spans += [plain, f"from {plain}"]
        return rng.choice(spans)
    spans = [
        f"{early} am to {late} pm",
        f"from {early} am to {late} pm",
        f"{early} am - {late} pm",
        f"{early}am-{late}pm",
        f"{early} AM to {late} PM",
        f"{begin:02}:{half:02}-{end}:00",
        f"{begin}:{half:02} - {end}:00",
        f"from {begin}:{half:02} to {end}:00",
    ]
    if not half:
        spans += [f"{begin}-{end}", f"{begin}-{end}", f"{begin}\u2013{end}"]
        spans += [f"{begin}-{end - 12}", f"from {begin} to {end - 12}"] if end - 12 <= begin else []
    return rng.choice(spans)


def _in_a_sentence(rng: random.Random, style: Style) -> str:
    begin, end = rng.randint(6, 11), rng.randint(2, 9)
    morning, evening = (" am", " pm") if rng.random() < 0.4 else ("", "")
    if not evening:
        # `8 to 9` would be an hour in the morning.
        end = min(end, begin)
    day, day2 = rng.sample(DAYS, 2)
    text = rng.choice(table("prompts")["hours_sentences"]).format(
        early=f"{begin}{morning}", late=f"{end}{evening}", earlier=f"{end - 1}{evening}", day=day, day2=day2
    )
    return text if style.digits else spell_numbers(text)


def _minutes(hour: int, minute: int) -> str:
    return f"{hour}:{minute:02}" if minute else str(hour)


def _clock(hour: int, minute: int, digits: bool) -> str:
    written = f"{_minutes((hour - 1) % 12 + 1, minute)} {'am' if hour < 12 else 'pm'}"
    return written if digits else spell_numbers(written)


def place(rng: random.Random, style: Style, held_out: bool) -> Fact:
    """Where it is."""
    prompts = table("prompts")
    form = _ADDRESS if rng.random() < _ADDRESSES else rng.choice(prompts["places"])
    where = form.format(
        number=rng.randint(1, 199),
        road=names.road(rng),
        road2=names.road(rng),
        landmark=rng.choice(table("places")["landmarks"]),
    )
    answers: tuple[str, ...] = ("We are {}.", "You find us {}.", "Come and see us {}.")
    text = rng.choice(prompts["place_labels" if style.labelled else "place_tells"])
    if style.labelled and form == _ADDRESS:
        where, text = where.removeprefix("at "), rng.choice(prompts["address_labels"])
        answers = ("Our address is {}.", "The address is {}.")
    answer = spell_numbers(rng.choice(answers).format(where))
    exchange = Exchange("where", phrases("where", held_out), answer)
    return Fact(told_about("our address", text.format(where=where)), ((_WHERE, (exchange,)),))


def on_a_road(rng: random.Random, road: str, held_out: bool) -> tuple[float, tuple[Exchange, ...]]:
    """What is asked because a prompt opens with where somebody works, `a bakery on Hill Street`, with its weight."""
    answer = rng.choice(("We are on {}.", "You find us on {}.", "Come and see us on {}.", "Our address is {}."))
    return _WHERE, (Exchange("where", phrases("where", held_out), answer.format(road)),)


def phone(rng: random.Random, style: Style, held_out: bool) -> Fact:
    """The phone number."""
    number = f"555{rng.choice('- ')}{rng.randint(0, 9999):04d}"
    text = rng.choice(table("prompts")["phone_labels" if style.labelled else "phone_tells"])
    answer = spell_numbers(pick(rng, table("answers")["phone"], phone=number))
    exchange = Exchange("phone", phrases("phone", held_out), answer)
    return Fact(told_about("our phone number", text.format(phone=number)), ((3.0, (exchange,)),))


def rule(
    rng: random.Random, style: Style, told: dict[str, Any], held_out: bool, currency: str, foreign: bool = False
) -> Fact:
    """Something of `texts/trades.yaml`. Of a `foreign` trade it is asked for by its words alone, not by its context."""
    tell, answer = told_and_answered(rng, style.labelled, told, held_out, currency)
    asks, subject = wordings(told["asks"], held_out), words_of(tell) - _EVERYWHERE
    return _asked(rng, (tell, answer), tuple(ask for ask in asks if not foreign or words_of(ask) & subject))


def about(rng: random.Random, style: Style, goods: tuple[Good, ...], held_out: bool, currency: str) -> Fact:
    """Something of `texts/about.yaml`, of a good that is none of these."""
    good = other_good(rng, goods, set())
    told = rng.choice(told_of_good(good.word))
    fields = {"plural": good.plural, "Plural": capital(good.plural)}
    told_of_it = told_and_answered(rng, style.labelled, told, held_out, currency, **fields)
    return _asked(rng, told_of_it, good_wordings(told["asks"], good.word, good.count, held_out))


def amenity(rng: random.Random, style: Style, held_out: bool, currency: str) -> Fact:
    """Something of what there is at the company's place: `The coat check closes at nine.`"""
    noun, told = rng.choice(nouns("thing")), rng.choice(told_of_nouns("thing"))
    told_of_it = told_and_answered(rng, style.labelled, told, held_out, currency, **noun.fields)
    return _asked(rng, told_of_it, noun.asks(told, held_out))


def framed(rng: random.Random, told: str) -> str:
    """What is told, now and then as people put it who write more than the fact: `Please note that ...`.

    What stands under a label has none of it, and what may begin with a name or may be told to the agent has little.
    """
    if rng.random() >= _FRAMED or ": " in told or len(told.split()) > _LONG:
        return told
    prompts = table("prompts")
    states = told.split()[0] in choices(prompts["statements"])
    frame: str = rng.choice(prompts["frames"] + (prompts["frames_of_statements"] if states else []))
    return frame.format(Told=told, told=f"{told[0].lower()}{told[1:]}")


def _asked(rng: random.Random, told: tuple[str, str], asks: tuple[str, ...]) -> Fact:
    """What is told and answered, when it is asked for."""
    return Fact(Told(framed(rng, told[0])), ((_RULE, (Exchange("fact", asks, told[1]),)),))


def told_and_answered(
    rng: random.Random, labelled: bool, told: dict[str, Any], held_out: bool, currency: str, **fields: str
) -> tuple[str, str]:
    """A telling of a kind of fact and the answer that goes with it, what is drawn anew for each filled in."""
    text = rng.choice(choices(told["labels"] if labelled and "labels" in told else told["tells"]))
    included = pick(rng, table("trades")[-1]["included"])
    if " | " not in text and not _ONCE.search(text) and rng.random() < _TWICE:
        text = text.replace("on {day}", "on {day} and {day2}").replace("at {evening}", "at {evening} and {night}")
    evening = rng.randint(6, 10)
    day, day2 = rng.sample(DAYS, 2)
    code = str(rng.randint(1000, 9999))
    if len(_CODE.findall(text)) < text.count("{code}"):  # Without that word it would be read as a number.
        code = " ".join(number_in_words(digit) for digit in code)
    many = _COUNTED.search(text) is not None and rng.random() < 0.5
    fields |= {
        "number": str(rng.choice(_LARGER) if many else rng.randint(2, 9)),
        "time": f"{rng.choice((8, 9, 10, 11))}{rng.choice(('', '', ':30', ':15'))} am",
        "morning": f"{rng.randint(6, 10)}{rng.choice(('', '', ':30'))} am",
        "evening": f"{evening}{rng.choice(('', '', ':30'))} pm",
        "night": f"{rng.randint(evening + 1, 11)} pm",
        "day": "the weekend" if "on {day}" not in text and rng.random() < 0.12 else day,
        "day2": day2,
        "money": money(rng, currency),
        "first": names.first_name(rng, held_out),
        "surname": names.surname(rng, held_out),
        "town": names.town(rng),
        "boat": names.pair(rng, held_out),
        "color": pick(rng, table("persons")["words"]["color"]),
        "password": rng.choice(table("places")["nouns"].split()).lower(),
        "phone": f"{rng.randint(200, 499)} {rng.randint(1000, 9999)}",
        "code": code,
        "included": included,
        "Included": capital(included),
    }
    if rng.random() < 0.5:
        fields["time"] = f"{rng.randint(1, 5)}{rng.choice(('', '', ':30', ':45'))} pm"
    filled = with_articles(text.format(**fields).replace("every the weekend", "every weekend"))
    tell, *answer = filled.split(" | ")
    return tell, spell_numbers(answer[0] if answer else tell)
