"""What the prompts of service roles tell: goods and prices, hours, place, phone, special offers and rules.

Each is told as the style has it, and answered in the words that the spelled prompt has.
"""

import random
from dataclasses import dataclass
from typing import Any

from core.engine.spoken_numbers import number_in_words, spell_numbers
from training import names
from training.catalogue import other_good, part_name, short_name
from training.episodes import Exchange
from training.goods import Good, capital, money, words_of
from training.numbers import written_price
from training.phrases import Groups, good_phrases, good_wordings, phrases, pick, wordings
from training.prompts import Style, Told
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
_SHORT = 0.4
"""How often one of the goods may be called by its last word, if it is the only one with it."""
_LEFT = {"one": "one", "many": "a few", "some": "a little"}
_PLACES = (
    "at {number} {road}",
    "at {number} {road}",
    "at {number} {road}",
    "on {road}, next to {landmark}",
    "on the corner of {road} and {road2}",
    "opposite {landmark}",
    "behind {landmark}",
)
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
    if not style.labelled and rng.random() < 0.45:
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
    before = rng.choice(("Open", "We are open", "We're open", "It is open", "You can come", "Opening hours are"))
    days = rng.choice(_DAYS_IN_PROSE)
    if style.labelled:
        before = rng.choice(("Hours:", "Opening hours:", "Open:", "Business hours:", "Opening times:", "We're open:"))
        days = rng.choice(_DAYS_IN_SHORT if style.digits else _DAYS_IN_PROSE)
    elif before == "Open" and style.digits and rng.random() < 0.5:
        days = rng.choice(_DAYS_IN_SHORT)
    if before == "You can come" or rng.random() < 0.12:
        return before, rng.choice(("day and night", "every day", "at any time", "24/7", "on weekdays"))
    if rng.random() < 0.15:
        return before, f"every day until {_clock(rng.randint(18, 23), 0, style.digits)}"
    span = _span(rng, style.digits and before != "Opening hours are")
    closed = (
        rng.choice((", closed on {}s", ", except {}s", ", not on {}s", ", closed {}s")).format(rng.choice(DAYS))
        if rng.random() < 0.15
        else ""
    )
    when = f"{span} {days}" if rng.random() < 0.15 else f"{days} {span}"
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
    landmark = rng.choice(table("places")["landmarks"])
    where = rng.choice(_PLACES).format(
        number=rng.randint(1, 199), road=names.road(rng), road2=names.road(rng), landmark=landmark
    )
    answers: tuple[str, ...] = ("We are {}.", "You find us {}.", "Come and see us {}.")
    text = rng.choice(("You find us {}.", "We are {}.", "It is {}.", "The place is {}."))
    if style.labelled:
        text = rng.choice(("Location: {}.", "Where: {}."))
        if where.startswith("at "):
            where, text = where.removeprefix("at "), rng.choice(("Address: {}.", "Our address: {}."))
            answers = ("Our address is {}.", "The address is {}.")
    answer = spell_numbers(rng.choice(answers).format(where))
    exchange = Exchange("where", phrases("where", held_out), answer)
    return Fact(Told(text.format(where), "our address"), ((3.5, (exchange,)),))


def phone(rng: random.Random, style: Style, held_out: bool) -> Fact:
    """The phone number."""
    number = f"555{rng.choice('- ')}{rng.randint(0, 9999):04d}"
    text = rng.choice(("The phone number is {}.", "Our number is {}.", "People can call us at {}."))
    if style.labelled:
        text = rng.choice(("Phone: {}.", "Tel: {}.", "Phone number: {}."))
    answer = spell_numbers(pick(rng, table("answers")["phone"], phone=number))
    exchange = Exchange("phone", phrases("phone", held_out), answer)
    return Fact(Told(text.format(number), "our phone number"), ((3.0, (exchange,)),))


def goods_and_prices(rng: random.Random, style: Style, goods: tuple[Good, ...], verb: str, held_out: bool) -> Fact:
    """What there is, and what it costs."""
    groups: Groups = [
        (3.0, (Exchange("price", _asks(rng, good, goods, held_out), _price_answer(rng, good)),)) for good in goods
    ]
    what = Exchange("goods", phrases("goods", held_out), f"We {verb} {offered(goods)}.")
    more = Exchange("more", phrases("more", held_out), _more(rng, goods, verb))
    groups.append((2.0, (what, more)))
    if len(goods) == 1:
        groups.append((1.0, (Exchange("prices", phrases("prices", held_out), _price_answer(rng, goods[0])),)))
    elif len(goods[0].price.split()) < 4:
        both = f"{capital(goods[0].tell)}, and {goods[1].subject} {goods[1].price}{goods[1].each}."
        groups.append((1.0, (Exchange("prices", phrases("prices", held_out), spell_numbers(both)),)))
    return Fact(Told(_price_list(rng, style, goods, verb), "our prices"), tuple(groups))


def _price_list(rng: random.Random, style: Style, goods: tuple[Good, ...], verb: str) -> str:
    prices = [f"{written_price(rng, good.price, style.digits)}{good.each}" for good in goods]
    pairs = tuple(zip(goods, prices, strict=True))
    if style.labelled or rng.random() < 0.25:
        entry = rng.choice(("{} {}", "{} {}", "{}: {}", "{} ({})", "{} - {}", "{} for {}"))
        entries = [entry.format(good.word, price) for good, price in pairs]
        label = rng.choice(("Prices: ", "Prices: ", "Price list: ", "Costs: ", "Rates: ", f"We {verb} ", ""))
        if entry == "{}: {}" and label.endswith(": "):
            label = ""
        text = rng.choice((", ", ", ", " and ", "; ")).join(entries)
        return f"{label}{text}." if label else f"{capital(text)}."
    form = rng.random()
    if form < 0.15 and len(goods) > 1:
        tells = [f"{goods[0].subject} {goods[0].costs} {prices[0]}"]
        tells += [f"{good.subject} {price}" for good, price in pairs[1:]]
        return f"{capital(', '.join(tells[:-1]))} and {tells[-1]}."
    if form < 0.3:
        return f"We {verb} {' and '.join(f'{good.subject} for {price}' for good, price in pairs)}."
    sentence = rng.choice(table("prompts")["price_sentences"])
    return " ".join(_price_sentence(sentence, good, price) for good, price in pairs)


def _price_sentence(sentence: str, good: Good, price: str) -> str:
    return sentence.format(
        subject=good.subject,
        Subject=capital(good.subject),
        be=good.be,
        costs=good.costs,
        goes="go" if good.count == "many" else "goes",
        price=price,
    )


def offered(goods: tuple[Good, ...]) -> str:
    """What one may name of it in a breath."""
    return " and ".join([good.plural for good in goods][:2])


def _more(rng: random.Random, goods: tuple[Good, ...], verb: str) -> str:
    if len(goods) > 2:
        return spell_numbers(f"We also {verb} {goods[2].plural}. {capital(goods[2].tell)}.")
    return rng.choice(("That is all for now.", "I am sorry, that is all.", "Nothing else today, I am afraid."))


def price_asks(good: Good, held_out: bool) -> tuple[str, ...]:
    """All ways to ask for one of the goods and its price."""
    return tuple(
        ask for kind in (f"price_{good.count}", "stock") for ask in good_phrases(kind, good.word, good.count, held_out)
    )


def indirect_asks(good: Good, held_out: bool) -> tuple[str, ...]:
    """What somebody says who needs one of the goods, of `texts/wanted.yaml`: nothing for most goods."""
    wanted = table("wanted")
    return wordings(wanted[good.word], held_out) if good.word in wanted else ()


def _asks(rng: random.Random, good: Good, goods: tuple[Good, ...], held_out: bool) -> tuple[str, ...]:
    """The same, and as people put it who do not name it; now and then by its last word or its first, where no other of
    the goods has it."""
    names = [short_name(good, goods) if rng.random() < _SHORT else None, part_name(good, goods)]
    shorter = (ask for name in names if name for ask in price_asks(name, held_out))
    return (*price_asks(good, held_out), *indirect_asks(good, held_out), *shorter)


def _price_answer(rng: random.Random, good: Good) -> str:
    plain = f"{capital(good.subject)} {good.be} {good.price}{good.each}."
    answer = rng.choice(
        (
            f"{capital(good.tell)}.",
            f"{capital(good.tell)}.",
            plain,
            f"The {good.word} {good.costs} {good.price}{good.each}.",
            f"The {good.word} {good.be} {good.price}{good.each}.",
            f"Sure, {good.tell}.",
        )
    )
    return spell_numbers(answer)


def special(rng: random.Random, goods: tuple[Good, ...], held_out: bool) -> Fact:
    """What is special about one of the goods."""
    good = goods[-1]
    tell = rng.choice(
        (
            f"This week {good.subject} {good.be} half price.",
            f"Today {good.subject} {good.be} half price.",
            f"{capital(good.subject)} {good.be} very popular.",
            f"{capital(good.subject)} {good.be} the special today.",
            f"There {good.be} only {_LEFT[good.count]} {good.word} left today.",
        )
    )
    if "half price" in tell:
        answer = rng.choice((tell, f"Yes. {tell}", f"Good question. {tell}"))
    else:
        answer = rng.choice((tell, f"Well, {tell[0].lower()}{tell[1:]}"))
    return Fact(Told(tell), ((2.0, (Exchange("special", phrases("special", held_out), answer),)),))


def rule(
    rng: random.Random, style: Style, told: dict[str, Any], held_out: bool, currency: str, foreign: bool = False
) -> Fact:
    """Something of `texts/trades.yaml`. Of a `foreign` trade it is asked for by its words alone, not by its context."""
    tell, answer = _told(rng, style, told, held_out, currency)
    asks, subject = wordings(told["asks"], held_out), words_of(tell) - _EVERYWHERE
    return _asked((tell, answer), tuple(ask for ask in asks if not foreign or words_of(ask) & subject))


def about(rng: random.Random, style: Style, goods: tuple[Good, ...], held_out: bool, currency: str) -> Fact:
    """Something of `texts/about.yaml`, of a good that is none of these."""
    told, good = rng.choice(table("about")), other_good(rng, goods, set())
    fields = {"plural": good.plural, "Plural": capital(good.plural)}
    told_of_it = _told(rng, style, told, held_out, currency, **fields)
    return _asked(told_of_it, good_wordings(told["asks"], good.word, good.count, held_out))


def _asked(told: tuple[str, str], asks: tuple[str, ...]) -> Fact:
    """What is told and answered, when it is asked for."""
    return Fact(Told(told[0]), ((_RULE, (Exchange("fact", asks, told[1]),)),))


def _told(
    rng: random.Random, style: Style, told: dict[str, Any], held_out: bool, currency: str, **fields: str
) -> tuple[str, str]:
    """A telling and the answer that goes with it, what is drawn anew for each filled in."""
    text = rng.choice(choices(told["labels"] if style.labelled and "labels" in told else told["tells"]))
    included = pick(rng, table("trades")[-1]["included"])
    fields |= {
        "number": str(rng.randint(2, 9)),
        "time": f"{rng.choice((8, 9, 10, 11))}{rng.choice(('', '', ':30', ':15'))} am",
        "morning": f"{rng.randint(6, 10)}{rng.choice(('', '', ':30'))} am",
        "evening": f"{rng.randint(6, 10)}{rng.choice(('', '', ':30'))} pm",
        "day": rng.choice((*DAYS, "the weekend") if " on {day}" not in text else DAYS),
        "money": money(rng, currency),
        "first": names.first_name(rng, held_out),
        "surname": names.surname(rng, held_out),
        "town": names.town(rng),
        "boat": names.pair(rng, held_out),
        "color": pick(rng, table("persons")["words"]["color"]),
        "password": rng.choice(table("places")["nouns"].split()).lower(),
        "phone": f"{rng.randint(200, 499)} {rng.randint(1000, 9999)}",
        "code": str(rng.randint(1000, 9999)),
        "included": included,
        "Included": capital(included),
    }
    if rng.random() < 0.5:
        fields["time"] = f"{rng.randint(1, 5)}{rng.choice(('', '', ':30', ':45'))} pm"
    tell, *answer = text.format(**fields).split(" | ")
    return tell, spell_numbers(answer[0] if answer else tell)
