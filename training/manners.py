"""How callers really say what they want: with greetings, hesitations, restarts, reasons and politeness around it."""

import random
import re
from collections.abc import Callable
from functools import cache

from training.names import person
from training.phrases import is_held_out
from training.texts import choices, table

PLAIN = 0.5
"""The share of lines that are said as they stand."""
PAUSED = 0.2
"""The share of lines with a pause inside."""
PAUSE_S = (0.1, 0.45)
_REQUEST = re.compile(r"(?i)(tell|give|say|make|explain|show|help|let|read|i would like|i'd like|i want|i need)\b")
_SPEAKING = r"(?:\b[A-Z][a-z]+ )+(?:here|speaking)\b"
_NAMED = re.compile(rf"\b(?:I'm|I am|[Nn]ame is|[Nn]ame's|[Tt]his is|[Ii]t's|[Cc]all me) [A-Z]|{_SPEAKING}")
"""Words by which somebody gives a name."""
_ALONE = re.compile(rf"I\b|{_SPEAKING}")
"""What begins with a capital wherever it stands."""
_END = re.compile(r"[.?!]+$")
_HESITATIONS = ("um", "uh", "er", "erm", "hmm", "so", "well", "like")


def manner(rng: random.Random, wish: str, held_out: bool = False) -> str:
    """The `wish` as somebody may say it, with one to three of the manners around or in it.

    With `held_out` the words put around it (not the wish itself) are such as never occur without.
    """
    if len(wish.split()) < 2 and not wish.endswith("?"):
        return wish
    asks = wish.endswith("?") or _REQUEST.match(wish) is not None
    short = len(wish.split()) < 3
    made: list[Callable[[str], str]] = []
    if not short or asks:
        made += [lambda text: _restarted(rng, text), lambda text: _filled(rng, text, held_out)]
        made += [lambda text: _contracted(rng, text)]
    if asks:
        made += [lambda text: _followed(rng, text, held_out)]
    fronts = ["hesitations"]
    if wish.startswith("And "):
        pass  # It goes on from something, so nobody introduces oneself.
    elif asks:
        fronts += ["hesitations", "greetings", "introductions", "politeness", "reasons"]
    elif not short:
        fronts += ["greetings", "introductions"]
    count = 1 if short else rng.choice((1, 1, 2, 2, 3))
    inside = rng.sample(made, min(len(made), rng.randint(0, count)))
    text = wish
    for change in inside:
        text = change(text)
    before = set(rng.choices(fronts, k=max(1, count - len(inside)) if not inside or rng.random() < 0.5 else 0))
    if _NAMED.search(wish):
        before.discard("introductions")
    if "introductions" in before:
        before.discard("greetings")
    for kind in ("politeness", "reasons", "hesitations", "introductions", "greetings"):
        if kind in before and (frames := _frames(kind, held_out)):
            text = _joined(_named(rng, rng.choice(frames), held_out), text)
    return text


def said(rng: random.Random, wish: str, held_out: bool = False) -> str:
    """The `wish`, plain in PLAIN of all cases."""
    return wish if rng.random() < PLAIN else manner(rng, wish, held_out)


def pause(rng: random.Random, text: str) -> tuple[int, float] | None:
    """Before which word (not the first) the caller thinks for how many seconds; None where nobody does.

    It is after a comma or a hesitation where there is one.
    """
    words = text.split()
    if len(words) < 2 or rng.random() >= PAUSED:
        return None
    places = [
        n + 1 for n, word in enumerate(words[:-1]) if word.endswith(",") or word.lower().rstrip(".,") in _HESITATIONS
    ]
    return rng.choice(places or range(1, len(words))), rng.uniform(*PAUSE_S)


@cache
def _frames(kind: str, held_out: bool) -> tuple[str, ...]:
    return tuple(frame for frame in choices(table("manners")[kind]) if is_held_out(f"manner {frame}") == held_out)


def _named(rng: random.Random, frame: str, held_out: bool) -> str:
    if "{" not in frame:
        return frame
    somebody = person(rng, held_out)
    return frame.format(name=somebody.name, first=somebody.first)


def _joined(front: str, text: str) -> str:
    """Both after another, with capitals where sentences begin."""
    if not _END.search(front) and not _ALONE.match(text):
        text = text[0].lower() + text[1:]
    return f"{front[0].upper()}{front[1:]} {text}"


def _restarted(rng: random.Random, text: str) -> str:
    """`Do you, do you have bread?`"""
    words = text.split()
    fluent = next((n for n, word in enumerate(words) if not word[-1].isalnum()), len(words))
    if fluent < 1 or len(words) < 3:
        return text
    again = " ".join(words[: rng.randint(1, min(3, fluent))])
    return _joined(f"{again},", text)


def _filled(rng: random.Random, text: str, held_out: bool) -> str:
    """`Do you have, um, bread?`"""
    words, fillers = text.split(), _frames("fillers", held_out)
    places = [n for n in range(1, len(words)) if words[n - 1][-1].isalnum()]
    if not places or not fillers:
        return text
    place, filler = rng.choice(places), rng.choice(fillers)
    if rng.random() < 0.7:
        words[place - 1] += ","
        filler += ","
    return " ".join((*words[:place], filler, *words[place:]))


def _followed(rng: random.Random, text: str, held_out: bool) -> str:
    """`Do you have bread, please?`"""
    end, tails = _END.search(text), _frames("tails", held_out)
    if end is None or not tails:
        return text
    tail = rng.choice(tails)
    if any(word in text.lower() for word in tail.split()):
        return text
    return f"{text[: end.start()]}{rng.choice((',', ''))} {tail}{end.group()}"


def _contracted(rng: random.Random, text: str) -> str:
    """`What's that like?` for `What is that like?`, or the other way round."""
    pairs = [tuple(pair.split("=")) for pair in choices(table("manners")["contractions"])]
    fitting = [
        (one, other)
        for long, short in pairs
        for one, other in ((long, short), (short, long))
        if re.search(rf"(?i)\b{one}(?= \w)", text)
    ]
    if not fitting:
        return text
    one, other = rng.choice(fitting)

    def replaced(match: re.Match[str]) -> str:
        capital = match.group()[0].isupper() and other[0].isalpha()
        return other[0].upper() + other[1:] if capital else other

    return re.sub(rf"(?i)\b{one}(?= \w)", replaced, text, count=1)
