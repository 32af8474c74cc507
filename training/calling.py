"""What callers say in a shard of their lines: wishes of many personas' callers, in random voices and manners.

They are spoken apart from the agents' lines: a line is heard in any conversation where its wish is asked. Some lines
wish for nothing: sentences out of prompts and answers, and words in a row that make no sense, so that a model learns to
hear words and not to guess which of a few thousand wordings it is.
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TypeVar

from training.catalogue import askable, part_names
from training.episodes import Episode
from training.manners import pause, said
from training.nouns import nouns, told_of_good, told_of_nouns
from training.phrases import good_wordings, wordings
from training.portraits import portrait_asks
from training.pricing import indirect_asks, price_asks
from training.scripts import episode, loose_phrases, shipped_episodes
from training.texts import table
from training.voices import Speaker, caller

T = TypeVar("T")
EPISODES = 24
"""Personas whose callers speak in a shard, and one that comes with the service."""
ANYTHING = "*"
"""The wish of a line that wishes for nothing."""
RAMBLING, SALAD = 0.3, 0.5
"""The share of such lines, and how many of them are words in no order."""
IN_A_ROW = {"kokoro": 5}
"""Lines that one caller says: of Kokoro's several, which are spoken in a breath."""
PRICES, ABOUT, NOUNS, RULES, LIVES, PORTRAITS = 0.25, 0.07, 0.07, 0.1, 0.04, 0.26
"""The shares of the other lines that ask for prices and for what else is told of goods, each good of all in turn; for
what is told of other nouns, the rules of all trades, facts of lives, and what portraits tell. A persona that is drawn
anew has other ones than those of a shard."""
INDIRECT = 0.35
"""How often the price of a good is asked for in words of its own, where there are some."""
SALAD_WORDS = (3, 9)
"""Words in one of those, at least and at most."""
_OF_GOODS = ("price", "no_price", "no_good")
"""Kinds of exchanges in which goods are asked for."""
_WORD = r"[A-Za-z][A-Za-z'-]*[,.?!;]?"
_PLAIN = re.compile(rf"{_WORD}(?: {_WORD})*")
"""Words with marks behind them, and no mark by itself, which has no sound."""


@dataclass(frozen=True)
class Call:
    """One line to be said: the plain `wish`, and what is said of it. `pause` is as `training.manners.pause` has it."""

    wish: str
    text: str
    speaker: Speaker
    pause: tuple[int, float] | None


def calls(teacher: str, shard: int, count: int) -> Iterator[Call]:
    """A shard's lines, `teacher` being as in `training.voices.caller`: the same on every machine."""
    rng = random.Random(f"callers {teacher} {shard}")
    personas = (*(episode(rng) for _ in range(EPISODES)), rng.choice(shipped_episodes(rng)))
    kinds = [tuple(wishes) for wishes in _wishes(personas).values()]
    sentences = tuple(sentence for persona in personas for sentence in _sentences(persona))
    # Evenly drawn, a kind of few wordings would have each a hundred times, and one of many hardly any.
    weights = [len(wishes) ** 0.5 for wishes in kinds]
    named = (*askable(), *part_names().values())
    prices = _in_turn(teacher, named, shard * round(count * (1 - RAMBLING) * PRICES))
    others = _in_turn(teacher, askable(), shard * round(count * (1 - RAMBLING) * ABOUT))
    portraits = _in_turn(teacher, portrait_asks(), shard * round(count * (1 - RAMBLING) * PORTRAITS))
    rules = [wishes for trade in table("trades") for told in trade["facts"] if (wishes := wordings(told["asks"]))]
    lives = [wishes for told in table("persons")["facts"] if (wishes := wordings(told["asks"]))]
    of_nouns = [(noun, told) for field in table("nouns") for noun in nouns(field) for told in told_of_nouns(field)]
    for number in range(count):
        if number % IN_A_ROW.get(teacher, 1) == 0:
            speaker = caller(rng, teacher)
        draw = rng.random()
        if rng.random() < RAMBLING:
            wish, text = ANYTHING, _salad(rng, sentences) if rng.random() < SALAD else rng.choice(sentences)
        else:
            if draw < PRICES:
                good = next(prices)
                indirect = indirect_asks(good, held_out=False) if rng.random() < INDIRECT else ()
                wishes = indirect or price_asks(good, held_out=False)
            elif draw < PRICES + ABOUT:
                good = next(others)
                wishes = good_wordings(rng.choice(told_of_good(good.word))["asks"], good.word, good.count)
            elif draw < PRICES + ABOUT + NOUNS:
                noun, told = rng.choice(of_nouns)
                wishes = noun.asks(told)
            elif draw < PRICES + ABOUT + NOUNS + RULES:
                wishes = rng.choice(rules)
            elif draw < PRICES + ABOUT + NOUNS + RULES + LIVES:
                wishes = rng.choice(lives)
            elif draw < PRICES + ABOUT + NOUNS + RULES + LIVES + PORTRAITS:
                wishes = next(portraits)
            else:
                (wishes,) = rng.choices(kinds, weights)
            wish = rng.choice(wishes)
            text = said(rng, wish)
        yield Call(wish, text, speaker, pause(rng, text))


def _in_turn(teacher: str, asked: Sequence[T], begin: int) -> Iterator[T]:
    """All that is asked for, again and again in an order of this teacher's: shards in a row ask for each equally."""
    those = random.Random(f"goods {teacher}").sample(asked, len(asked))
    return islice(cycle(those), begin % len(those), None)


def _sentences(persona: Episode) -> list[str]:
    """What the persona's prompt and its agent say, sentence by sentence, where it is plain words."""
    texts = re.split(r"(?<=[.?!;]) ", " ".join((persona.prompt, *persona.lines())))
    return [text for text in texts if _PLAIN.fullmatch(text) and 2 <= len(text.split()) <= 16]


def _salad(rng: random.Random, sentences: Sequence[str]) -> str:
    """Words of several sentences in a row, so that none can be guessed from those before it."""
    words = [rng.choice(rng.choice(sentences).split()).strip(",.?!;-") for _ in range(rng.randint(*SALAD_WORDS))]
    return f"{' '.join(filter(None, words)) or 'Well'}."


def _wishes(personas: Sequence[Episode]) -> dict[str, dict[str, None]]:
    """What the callers of some personas may say, by kind, each wording once."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for persona in personas:
        for exchange in persona.exchanges:
            if exchange.kind in _OF_GOODS:
                continue
            found[exchange.kind].update(dict.fromkeys(exchange.asks))
        found["sorry"].update(dict.fromkeys(persona.repeats))
    for kind, wishes in loose_phrases().items():
        found[kind].update(dict.fromkeys(wishes))
    return {kind: wishes for kind, wishes in found.items() if wishes}
