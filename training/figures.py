"""From the records of calls to figures, each with what it should be."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from core.engine.call import FRAME_S, FRAME_SAMPLES
from training.calls import CallRecord
from training.judge import Judge, WordErrors
from training.measures import activity, answer_delay, is_talked_over, mentions, stretches, told_apart
from training.teachers import Samples

PROMPT_S = 1.2
"""An answer that begins within this time is prompt."""
AROUND = 2
"""Frames around what the agent says that the judge hears too."""


class Figure(msgspec.Struct, frozen=True):
    """A share or a rate, over so many cases, and the bounds it should lie in; `value` is None without any case."""

    name: str
    value: float | None
    cases: int
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool:
        """Whether it lies within its bounds."""
        if self.value is None:
            return False
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    def row(self) -> str:
        """A line of the table."""
        shown = "-" if self.value is None else f"{self.value:.1%}"
        bounds = [f"at least {self.least:.0%}"] if self.least is not None else []
        bounds += [f"at most {self.most:.0%}"] if self.most is not None else []
        verdict = ("met" if self.met else "missed") if bounds else ""
        return f"{self.name:<52} {shown:>7} {self.cases:>7}   {' and '.join(bounds):<14} {verdict}".rstrip()


@dataclass(frozen=True)
class Heard:
    """What the agent's text says in the parts of a call, and what the judge hears there."""

    said: tuple[str, ...]
    heard: tuple[str, ...]


def hear(record: CallRecord, judge: Judge) -> Heard:
    """Have the judge listen to a call, part by part."""
    parts = record.parts()
    return Heard(
        tuple(record.said(part).strip() for part in parts),
        tuple(judge.hear(sound) if len(sound := spoken(record, part)) else "" for part in parts),
    )


def spoken(record: CallRecord, part: tuple[int, int]) -> Samples:
    """The agent's sound from where it begins to speak to where it ends, or nothing."""
    begin, end = part
    sound = record.agent[begin * FRAME_SAMPLES : end * FRAME_SAMPLES]
    whole = stretches(activity(sound), gap_s=float("inf"))
    if not whole:
        return sound[:0]
    first, last = whole[0]
    return sound[max(0, first - AROUND) * FRAME_SAMPLES : (last + AROUND) * FRAME_SAMPLES]


def figures_of(records: Sequence[CallRecord], heard: Sequence[Heard]) -> list[Figure]:
    """All figures of these calls."""
    errors = WordErrors()
    for call in heard:
        for said, understood in zip(call.said, call.heard, strict=True):
            errors.add(said, understood)
    greetings = [(record.episode, record.said(record.parts()[0])) for record in records]
    names = [mentions(greeting, episode.first) for episode, greeting in greetings if episode.first]
    companies = [
        mentions(greeting, episode.company.removeprefix("The ")) for episode, greeting in greetings if episode.company
    ]
    voices = [record.voice for record in records]
    return [
        Figure("Word error rate of the agent's speech, by Whisper", errors.rate, errors.words, most=0.25),
        share("Greetings with the persona's first name", names, least=0.9),
        share("Greetings with the persona's company", companies),
        *conduct(records),
        Figure("Recordings nearest to their own voice", told_apart(voices, [r.agent for r in records]), len(records)),
    ]


def conduct(records: Sequence[CallRecord]) -> list[Figure]:
    """How the agent takes turns."""
    prompt, quiet, silence, real = [], [], [], []
    for record in records:
        active = activity(record.agent)
        for turn, (_, until) in zip(record.turns, record.parts()[1:], strict=True):
            delay = answer_delay(active, turn.end, until)
            prompt.append(delay is not None and delay <= PROMPT_S)
            quiet.append(not is_talked_over(active, turn.begin, turn.end))
            if turn.line.kind == "recording":
                real.append(prompt[-1] and quiet[-1])
        silence += (~active[record.silent_from :]).tolist()
    return [
        share(f"Answers that begin within {PROMPT_S} s", prompt),
        share("Turns of the caller that are not talked over", quiet, least=0.95),
        share("Turns of the recording listened to, then answered", real),
        Figure("Silence kept in a silent stretch", share("", silence).value, round(len(silence) * FRAME_S)),
    ]


def share(name: str, cases: Sequence[bool], least: float | None = None) -> Figure:
    """In how many of the cases something is so."""
    return Figure(name, sum(cases) / len(cases) if cases else None, len(cases), least=least)
