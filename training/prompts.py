"""Prompts as people write them: how they begin, how they list what one should know, and what else they say.

A prompt is written as people write, half of them with digits, and then spelled as the engine spells it for the model.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase

from core.engine.spoken_numbers import number_in_words, spell_numbers
from training import names
from training.goods import article
from training.phrases import is_held_out
from training.texts import choices, table

LISTINGS = {
    "prose": 0.36,
    "dashes": 0.07,
    "stars": 0.05,
    "dots": 0.03,
    "numbers": 0.04,
    "letters": 0.02,
    "lines": 0.06,
    "semicolons": 0.06,
    "headings": 0.05,
    "questions": 0.08,
    "topics": 0.07,
    "labels": 0.11,
}
"""Ways of listing facts, and their shares. Lines, too, are one line in the end."""
_MARKS = {"dashes": "-", "stars": "*", "dots": "\u2022", "headings": "#"}
_LABELLED = {"labels": 1.0, "prose": 0.1, "questions": 0.0, "topics": 0.0}
"""How often facts stand under labels (`Hours: 9-17`) instead of in sentences; in the other listings, half of them."""
_TO_THE_AGENT = re.compile(
    r"(?:^|\. )(?:If|When|Tell|Give|Quote|Say|Ask|Take|Offer|Charge|Remember|Note|Please note)\b"
)
"""How sentences begin that no agent says to a caller."""
_FILLERS = {0: 0.34, 1: 0.28, 2: 0.2, 3: 0.1, 5: 0.08}
"""How many sentences that no caller asks about stand between the facts: many in a chatty prompt."""
_JOINED, _MOST_JOINED = 0.25, 24
"""How often a statement goes on in the sentence of the one before it, and the most words of such a sentence."""
_JOINS = (", and ", ", and ", " and ", "; ", ", but ", ", while ")
"""What stands between the two; the first, which is what most people write, comes twice as often as each other."""
MOST_WORDS = 72
"""A prompt with as many words gets no sentences besides: it takes half of a short training conversation."""


@dataclass(frozen=True)
class Style:
    """How a prompt is written: a listing out of LISTINGS, facts under labels or in sentences, with digits or words."""

    listing: str
    labelled: bool
    digits: bool


@dataclass(frozen=True)
class Told:
    """What a prompt tells, with its full stop. `topic`, what it is about (`our hours`), is empty where nothing says."""

    text: str
    topic: str = ""


def told_about(topic: str, text: str) -> Told:
    """What is told under a topic, unless it is told to the agent: `If asked about ..., say: If ...` is no English."""
    return Told(text, "" if _TO_THE_AGENT.search(text) else topic)


def style(rng: random.Random) -> Style:
    """One way of writing."""
    (listing,) = rng.choices(tuple(LISTINGS), tuple(LISTINGS.values()))
    return Style(listing, rng.random() < _LABELLED.get(listing, 0.5), rng.random() < 0.5)


def opening(rng: random.Random, kind: str, held_out: bool, /, **fields: str) -> tuple[str, str]:
    """How a prompt begins, and what it tells later, if anything; `kind` as in `texts/prompts.yaml`.

    One opening in ten is for evaluation only. A kind that has none of those begins like any other.
    """
    openings = table("prompts")[kind]
    fitting = [text for text in openings if is_held_out(text) == held_out] or openings
    begin, _, late = rng.choice(fitting).format(**fields).partition(" | ")
    return begin, late


def role(rng: random.Random, kind: str) -> dict[str, str]:
    """What somebody is called who answers the phone of a company of this kind: `role`, and with an article `a_role`."""
    roles = table("prompts")["roles"]
    called = rng.choice(choices(roles.get(kind, roles["any"])))
    return {"role": called, "a_role": f"{article(called)} {called}"}


def fillers(rng: random.Random, kind: str = "instructions", asides: str = "") -> list[Told]:
    """Sentences that answer no question: `kind` tells which instructions; `asides` of what kind, or "" for none."""
    (count,) = rng.choices(tuple(_FILLERS), tuple(_FILLERS.values()))
    texts = list(choices(table("prompts")[kind]))
    if asides:
        texts += choices(table("prompts")[asides])
    fields = {"year": str(rng.randint(1890, 2022)), "count": str(rng.randint(2, 40)), "town": names.town(rng)}
    return [Told(text.format(**fields)) for text in rng.sample(texts, count)]


def written(rng: random.Random, style: Style, begin: str, late: str, told: Sequence[Told], more: list[Told]) -> str:
    """The whole prompt, spelled: the beginning, what it tells with `more` in between, and what comes `late`."""
    entries = list(told)
    room = MOST_WORDS - sum(len(text.split()) for text in (begin, late, *(one.text for one in told)))
    room -= 3 * sum(len(re.findall(r"\d+", one.text)) for one in told)
    for filler in more:
        room -= len(filler.text.split()) + 1
        if room < 0:
            break
        entries.insert(rng.randint(0, len(entries)), filler)
    if style.listing not in ("questions", "topics"):
        entries = _joined(rng, entries)
    if late and style.listing in ("prose", "semicolons", "questions") and rng.random() < 0.5:
        entries.insert(rng.randint(0, len(entries)), Told(late))
        late = ""
    lead = ""
    if entries and not begin.endswith(("Information:", "Information", "know:")) and style.listing != "prose":
        lead = rng.choice(("", *choices(table("prompts")["leads"])))
    parts = (begin, lead, _listed(rng, style.listing, entries), late)
    # Each line is spelled by itself; then the breaks go, since the tokenizer has none.
    return " ".join(spell_numbers(" ".join(filter(None, parts))).split())


def _joined(rng: random.Random, entries: list[Told]) -> list[Told]:
    """The entries, some neighbours joined into one sentence, of which a caller wants to know one half."""
    kept: list[Told] = []
    for entry in entries:
        if kept and _go_together(kept[-1].text, entry.text) and rng.random() < _JOINED:
            first = kept.pop().text.removesuffix(".")
            entry = Told(f"{first}{rng.choice(_JOINS)}{entry.text[0].lower()}{entry.text[1:]}")
        kept.append(entry)
    return kept


def _go_together(first: str, second: str) -> bool:
    """Whether both are short statements, each a sentence by itself, and the second may begin with a small letter."""
    both = f"{first} {second}"
    return (
        len(both.split()) <= _MOST_JOINED
        and all(text.endswith(".") and not re.search(r"[:;\n]|[.!?] ", text) for text in (first, second))
        and not _TO_THE_AGENT.search(both)
        and second.split()[0] in choices(table("prompts")["statements"])
    )


def _listed(rng: random.Random, listing: str, entries: list[Told]) -> str:
    texts = [entry.text for entry in entries]
    bare = [text.removesuffix(".") for text in texts]
    if listing in _MARKS:
        return " ".join(f"{_MARKS[listing]} {text}" for text in (bare if listing == "dashes" else texts))
    if listing == "numbers":
        mark = rng.choice(("{}.", "{})", "({})", "Fact {}:", "{} -"))
        # In words, since `Jan. 2` would be a day.
        counted = ((number_in_words(str(number)), text) for number, text in enumerate(texts, 1))
        return " ".join(f"{mark.format(number)} {text}" for number, text in counted)
    if listing == "letters":
        mark = rng.choice(("{}.", "{})", "({})"))
        return " ".join(f"{mark.format(letter)} {text}" for letter, text in zip(ascii_lowercase, texts, strict=False))
    if listing == "lines":
        return "\n".join(("", *bare, ""))
    if listing == "semicolons" and bare:
        return f"{'; '.join(bare)}."
    if listing == "questions":
        ask = rng.choice(table("prompts")["topic_asks"])
        return " ".join(
            ask.format(topic=entry.topic, told=entry.text) if entry.topic else entry.text for entry in entries
        )
    if listing == "topics":
        head = rng.choice(table("prompts")["topic_heads"])
        return " ".join(_headed(head, entry) for entry in entries)
    return " ".join(texts)


def _headed(head: str, entry: Told) -> str:
    """What is told under its heading, if it has a topic and no label of its own."""
    if not entry.topic or ": " in entry.text:
        return entry.text
    topic = entry.topic.removeprefix("our ")
    return head.format(topic=topic, Topic=topic.capitalize(), TOPIC=topic.upper(), told=entry.text)
