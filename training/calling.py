"""What callers say in a shard of their lines: wishes of many personas' callers, in random voices and manners.

They are spoken apart from the agents' lines: a line is heard in any conversation where its wish is asked.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from training.manners import pause, said
from training.scripts import episode, loose_phrases, shipped_episodes
from training.voices import Speaker, caller

EPISODES = 24
"""Personas whose callers speak in a shard, and one that comes with the service."""


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
    kinds = [tuple(wishes) for wishes in _wishes(rng).values()]
    # Evenly drawn, a kind of few wordings would have each a hundred times, and the price of each good hardly once.
    weights = [len(wishes) ** 0.5 for wishes in kinds]
    for wishes in rng.choices(kinds, weights, k=count):
        wish = rng.choice(wishes)
        text = said(rng, wish)
        yield Call(wish, text, caller(rng, teacher), pause(rng, text))


def _wishes(rng: random.Random) -> dict[str, dict[str, None]]:
    """What the callers of some personas may say, by kind, each wording once."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for persona in (*(episode(rng) for _ in range(EPISODES)), rng.choice(shipped_episodes(rng))):
        for exchange in persona.exchanges:
            found[exchange.kind].update(dict.fromkeys(exchange.asks))
        found["sorry"].update(dict.fromkeys(persona.repeats))
    for kind, wishes in loose_phrases().items():
        found[kind].update(dict.fromkeys(wishes))
    return {kind: wishes for kind, wishes in found.items() if wishes}
