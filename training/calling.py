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

from training.episodes import Episode
from training.manners import pause, said
from training.scripts import episode, loose_phrases, shipped_episodes
from training.voices import Speaker, caller

EPISODES = 24
"""Personas whose callers speak in a shard, and one that comes with the service."""
ANYTHING = "*"
"""The wish of a line that wishes for nothing."""
RAMBLING, SALAD = 0.3, 0.5
"""The share of such lines, and how many of them are words in no order."""
IN_A_ROW = {"kokoro": 5}
"""Lines that one caller says: of Kokoro's several, which are spoken in a breath."""
SALAD_WORDS = (3, 9)
"""Words in one of those, at least and at most."""
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
    # Evenly drawn, a kind of few wordings would have each a hundred times, and the price of each good hardly once.
    weights = [len(wishes) ** 0.5 for wishes in kinds]
    for number, wishes in enumerate(rng.choices(kinds, weights, k=count)):
        if number % IN_A_ROW.get(teacher, 1) == 0:
            speaker = caller(rng, teacher)
        if rng.random() < RAMBLING:
            wish, text = ANYTHING, _salad(rng, sentences) if rng.random() < SALAD else rng.choice(sentences)
        else:
            wish = rng.choice(wishes)
            text = said(rng, wish)
        yield Call(wish, text, speaker, pause(rng, text))


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
            found[exchange.kind].update(dict.fromkeys(exchange.asks))
        found["sorry"].update(dict.fromkeys(persona.repeats))
    for kind, wishes in loose_phrases().items():
        found[kind].update(dict.fromkeys(wishes))
    return {kind: wishes for kind, wishes in found.items() if wishes}
