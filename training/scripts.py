"""What is said in training: personas, conversations with them, and the phrases of callers.

Everything is drawn from a `random.Random`: the same seed gives the same scripts. The agent answers with facts of its
prompt, word for word, so that a model learns to read its prompt; names and companies are drawn from many thousands
(`training.names`), one in twenty of which is left for evaluation.
"""

import random
from dataclasses import replace
from pathlib import Path

import yaml

from core.engine.tokenizer import spelled
from training.episodes import Episode, Exchange, Turn
from training.goods import all_goods
from training.phrases import FEELINGS, feelings, garbled, good_phrases, loose, phrases, unrelated
from training.portraits import portrait
from training.services import service
from training.talks import crisis, talk, teacher
from training.texts import choices, table

__all__ = [
    "KINDS",
    "Episode",
    "Exchange",
    "Turn",
    "caller_phrases",
    "conversation",
    "episode",
    "greeting_episode",
    "loose_phrases",
    "shipped_episodes",
]

KINDS = {"service": 0.24, "playful": 0.03, "talk": 0.1, "portrait": 0.57, "teacher": 0.03, "crisis": 0.03}
"""The kinds of episodes and their shares."""
SHIPPED_PERSONAS = Path(__file__).parents[1] / "personas"
"""The personas that come with the service."""
_REPEAT_SHARE = 0.06
_GOODBYE_SHARE = 0.4
_SELDOM = {
    "garbled": 0.2,
    "hello": 0.5,
    "thanks": 0.5,
    "yes": 0.7,
    "no": 0.7,
    "jest": 0.4,
    "question": 0.3,
    "request": 0.3,
    "neutral": 0.8,
    "compliment": 0.5,
    "glad": 0.7,
    **dict.fromkeys(("no_fact", "no_good", "no_hours", "no_where", "no_phone", "no_special"), 0.15),
}
"""How often such exchanges come beside those about the prompt, 1.0. The more refusals are trained, the more often what
is not understood is refused."""


def episode(rng: random.Random, kind: str | None = None, held_out: bool = False) -> Episode:
    """A persona drawn at random, of a `kind` out of KINDS if one is given.

    With `held_out` its name and company are such as never occur without. Raises ValueError for an unknown kind.
    """
    kind = kind or rng.choices(tuple(KINDS), tuple(KINDS.values()))[0]
    if kind == "service":
        return service(rng, held_out)
    if kind == "playful":
        return service(rng, held_out, playful=True)
    makers = {"talk": talk, "portrait": portrait, "teacher": teacher, "crisis": crisis}
    if kind not in makers:
        raise ValueError(f"There is no kind {kind!r} of episode; choose one of {', '.join(KINDS)}.")
    return makers[kind](rng, held_out)


def greeting_episode(rng: random.Random, kind: str | None = None, held_out: bool = False) -> Episode:
    """A persona that says no more than its greeting and its name: cheap to speak, so that many names are heard."""
    whole = episode(rng, kind, held_out)
    while all(exchange.kind != "name" for exchange in whole.exchanges):
        whole = episode(rng, kind, held_out)
    return replace(whole, exchanges=tuple(exchange for exchange in whole.exchanges if exchange.kind == "name"))


def shipped_episodes(rng: random.Random) -> tuple[Episode, ...]:
    """The personas of the folder `personas`, ordered by file name. Only the callers' wordings are drawn."""
    return tuple(_shipped(rng, path) for path in sorted(SHIPPED_PERSONAS.glob("*.yaml")))


def conversation(rng: random.Random, episode: Episode) -> list[Turn]:
    """The greeting, two to eight exchanges (fewer if the episode has fewer), and now and then a farewell."""
    turns = [Turn("agent", episode.greeting, "greeting")]
    left = [exchange for exchange in episode.exchanges if exchange.kind != "goodbye"]
    for _ in range(rng.randint(2, 8)):
        if turns[-1].kind != "sorry" and rng.random() < _REPEAT_SHARE:
            turns += _asked(rng, Exchange("sorry", episode.repeats, turns[-1].text))
            continue
        fitting = [exchange for exchange in left if _fits(exchange, turns)]
        if not fitting:
            break
        (exchange,) = rng.choices(fitting, [_SELDOM.get(exchange.kind, 1.0) for exchange in fitting])
        left.remove(exchange)
        turns += _asked(rng, exchange)
    for exchange in episode.exchanges:
        if exchange.kind == "goodbye" and rng.random() < _GOODBYE_SHARE:
            turns += _asked(rng, exchange)
    return turns


def caller_phrases() -> dict[str, tuple[str, ...]]:
    """What callers say everyday, by kind: each wording, one question for the price of each good, and `unknown`."""
    kinds = [kind for kind in table("phrases") if not kind.startswith("price_") and kind != "stock"]
    spoken = {kind: phrases(kind) for kind in kinds}
    prices = []
    for index, good in enumerate(all_goods()):
        wordings = good_phrases(f"price_{good.count}", good.word, good.count)
        prices.append(wordings[index % len(wordings)])
    unknown = tuple(ask for feeling in FEELINGS for ask in unrelated(feeling))
    return {**spoken, "price": tuple(dict.fromkeys(prices)), "unknown": unknown}


def loose_phrases(held_out: bool = False) -> dict[str, tuple[str, ...]]:
    """Callers' speech that answers nothing, by kind.

    `backchannel` while they listen, `statement` for monologues, `interruption`, and `garbled`, sentences whose sound is
    to be spoilt: the wordings of the exchange of that kind.
    """
    return {kind: loose(kind, held_out) for kind in table("loose")}


def _asked(rng: random.Random, exchange: Exchange) -> tuple[Turn, Turn]:
    ask = Turn("caller", rng.choice(exchange.asks), exchange.kind)
    return ask, Turn("agent", exchange.answer, exchange.kind)


def _fits(exchange: Exchange, turns: list[Turn]) -> bool:
    """Whether a caller may say this now."""
    if exchange.kind in ("yes", "no"):
        return turns[-1].text.endswith("?")
    if exchange.kind == "hello":
        return len(turns) == 1
    heard = {turn.kind for turn in turns}
    if exchange.kind == "more":
        return "goods" in heard
    if exchange.kind == "thanks":
        return len(turns) > 2 and turns[-1].kind != "hello"
    return True


def _shipped(rng: random.Random, path: Path) -> Episode:
    prompt = spelled(" ".join(yaml.safe_load(path.read_text())["prompt"].split()))
    script = table("shipped")[path.stem]
    company, name = script.get("company", ""), script.get("name", "")
    fields = {"company": company, "help": script["help"], "thing": "the reactor"}
    exchanges = [_exchange(line) for line in script["exchanges"]]
    exchanges += [exchange for _, (exchange,) in feelings(rng, script["manner"], False, **fields)]
    exchanges = [*_asked_once(exchanges), garbled(rng, False)]
    first = script.get("first", name.split(" ")[0])
    farewell = Exchange("goodbye", phrases("goodbye"), script["farewell"])
    return Episode(
        "shipped", prompt, name, first, company, script["greeting"], (*exchanges, farewell), phrases("sorry")
    )


def _asked_once(exchanges: list[Exchange]) -> list[Exchange]:
    """The exchanges, of which the first keeps a wording that several share."""
    heard: set[str] = set()
    kept = []
    for exchange in exchanges:
        kept.append(replace(exchange, asks=tuple(ask for ask in exchange.asks if ask not in heard)))
        heard.update(exchange.asks)
    return [exchange for exchange in kept if exchange.asks]


def _exchange(line: str) -> Exchange:
    kind, answer, *asks = line.split(" | ")
    return Exchange(kind, choices(asks[0]) if asks else phrases(kind), answer)
