"""From the records of calls to figures, each with what it should be."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.engine.call import FRAME_S
from core.evaluation.evaluate import spoken
from core.evaluation.figures import Figure, share
from core.evaluation.speech import activity, answer_delay, is_talked_over
from core.evaluation.voices import told_apart
from core.evaluation.whisper import Whisper
from core.evaluation.words import WordErrors, mentions
from training.calls import CallRecord

PROMPT_S = 1.2
"""An answer that begins within this time is prompt."""


@dataclass(frozen=True)
class Heard:
    """What the agent's text says in the parts of a call, and what the judge hears there."""

    said: tuple[str, ...]
    heard: tuple[str, ...]


def hear(record: CallRecord, judge: Whisper) -> Heard:
    """Have the judge listen to a call, part by part."""
    parts = record.parts()
    return Heard(
        tuple(record.said(part).strip() for part in parts),
        tuple(judge.hear(sound) if len(sound := spoken(record.agent, *part)) else "" for part in parts),
    )


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
