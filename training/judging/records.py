"""What is kept of a stranger's call, and what it says of the agent, turn by turn."""

import re
from collections.abc import Sequence

import msgspec

from core.engine.call import FRAME_S
from core.evaluation.calls import Recording
from core.evaluation.evaluate import spoken
from core.evaluation.speech import EARLY_S, Activity, Samples, activity, answer_delay, is_talked_over, stretches
from core.evaluation.words import numbers_of
from training.judging.scenes import QUIET_KINDS, Scene, SceneKind, StrangerCaller, Turn, TurnKind
from training.judging.strangers import Stranger, Style, lines

PAUSE_S = 0.8
"""A shorter pause is part of what the agent says."""
TAKES_S = 1.0
"""So much speech of the agent at once takes the turn; less is a backchannel."""
RESUMES_S = 3.0
"""An agent that begins again so soon after its end has been thrown off by a backchannel."""
BREAK_S = 0.4
"""A longer pause inside a sentence breaks it off."""
TEXT_BEHIND = 4
"""Frames after the end of its speech in which the mark at the end of a sentence may still come."""
MARK = re.compile("[.!?]")


class JudgedTurn(msgspec.Struct, frozen=True):
    """Something a caller said, what the agent said to it, and how.

    `right` says whether the answer holds what was asked for, None where there is nothing to be right. `numbers` are
    those it says that neither the prompt nor the caller has said, `counted` how many it says in all; the word `one` is
    left out, which is mostly no number. `delay_s` is from the caller's end to the answer, None without one. `goes_on`
    says whether an agent finishes its sentence in spite of a backchannel, and then does not begin again.
    """

    kind: TurnKind
    asked: str
    said: str
    expected: tuple[str, ...] = ()
    right: bool | None = None
    minute: float | None = None
    numbers: tuple[str, ...] = ()
    counted: int = 0
    glad: bool = False
    delay_s: float | None = None
    talked_over: bool = False
    goes_on: bool | None = None
    heard: str | None = None
    """What Whisper hears of `said`."""


class JudgedCall(msgspec.Struct, frozen=True):
    """A call: `greeting` and `turns` hold the agent's text; `quiet` says whether it is silent where the caller is."""

    kind: SceneKind
    style: Style
    name: str
    voice: str
    caller: str
    seed: int
    greeting: str
    greeted: bool
    """Whether the greeting has the name."""
    turns: tuple[JudgedTurn, ...]
    quiet: bool | None
    transcript: str
    greeting_heard: str | None = None


def parts_of(recording: Recording, turns: Sequence[Turn]) -> list[tuple[int, int]]:
    """Frames (begin, end) of the greeting and of what follows each begin of the caller's turns."""
    begins = [0, *(turn.begin for turn in turns)]
    return list(zip(begins, [*begins[1:], len(recording.text)], strict=True))


def sounds_of(recording: Recording, turns: Sequence[Turn]) -> list[Samples]:
    """The agent's sound in each of these parts, without the silence around it."""
    return [spoken(recording.agent, *part) for part in parts_of(recording, turns)]


def judged(scene: Scene, voice: str, caller: StrangerCaller, recording: Recording) -> JudgedCall:
    """What a call was like."""
    active, parts = activity(recording.agent), parts_of(recording, caller.turns)
    greeting = recording.said(*parts[0]).strip()
    turns = tuple(
        _judged_turn(scene.stranger, turn, recording, active, until)
        for turn, (_, until) in zip(caller.turns, parts[1:], strict=True)
    )
    return JudgedCall(
        kind=scene.kind,
        style=scene.stranger.style,
        name=scene.stranger.name,
        voice=voice,
        caller=caller.voices.speaker(scene.caller).name,
        seed=scene.seed,
        greeting=greeting,
        greeted=scene.stranger.facts[0].right(greeting),
        turns=turns,
        quiet=not active[caller.quiet_from :].any() if scene.kind in QUIET_KINDS else None,
        transcript=transcript(recording, caller.turns),
    )


def _judged_turn(stranger: Stranger, turn: Turn, recording: Recording, active: Activity, until: int) -> JudgedTurn:
    said = recording.said(turn.begin, until).strip()
    expected, right = expectation(stranger, turn, said)
    numbers = [number for number in numbers_of(said) if number != "one"]
    known = {*numbers_of(stranger.prompt), *numbers_of(turn.text)}
    long = turn.kind == "monologue"
    return JudgedTurn(
        kind=turn.kind,
        asked=turn.text,
        said=said,
        expected=expected,
        right=right,
        minute=turn.minute,
        numbers=tuple(number for number in numbers if number not in known),
        counted=len(numbers),
        glad=lines().is_glad(said),
        delay_s=answer_delay(active, turn.end, until),
        talked_over=takes_turn(active, turn) if long else is_talked_over(active, turn.begin, turn.end),
        goes_on=goes_on(recording, active, turn, until) if turn.kind == "backchannel" and turn.spoke else None,
    )


def expectation(stranger: Stranger, turn: Turn, said: str) -> tuple[tuple[str, ...], bool | None]:
    """What an answer should hold, and whether it does."""
    if turn.fact is not None:
        fact = stranger.facts[turn.fact]
        return fact.says, fact.right(said)
    if turn.kind == "unknown":
        return (), lines().does_not_know(said)
    if turn.kind == "arithmetic":
        sum_ = next(each for each in lines().arithmetic if each.ask == turn.text)
        return sum_.says, any(way in " ".join(numbers_of(said)) for way in sum_.says)
    return (), None


def takes_turn(active: Activity, turn: Turn) -> bool:
    """Whether the agent speaks for a second at once while the caller has not finished."""
    end = turn.end - round(EARLY_S / FRAME_S)
    return any((last - first) * FRAME_S >= TAKES_S for first, last in stretches(active[turn.begin : end], 0.3))


def goes_on(recording: Recording, active: Activity, turn: Turn, until: int) -> bool:
    """Whether the agent says its sentence to the end after a turn's begin, and does not begin anew.

    It breaks off when it pauses before the sentence has ended; it begins anew when it greets again or takes leave, or
    when it has fallen silent and soon speaks again.
    """
    end = next((frame for frame in range(turn.begin, until) if MARK.search(recording.text[frame])), None)
    if end is None or lines().begins_anew(recording.said(turn.begin, until)):
        return False
    words = stretches(active[:until], BREAK_S)
    if not any(first <= turn.begin and end <= last + TEXT_BEHIND for first, last in words):
        return False
    speech = stretches(active[:until], PAUSE_S)
    last = next(last for first, last in speech if first <= turn.begin < last)
    return not any(last < first <= last + RESUMES_S / FRAME_S for first, _ in speech)


def transcript(recording: Recording, turns: Sequence[Turn]) -> str:
    """A whole call as text, each side's lines with the second at which they begin."""
    events = [(turn.begin, "caller", turn.text or "(a recording)") for turn in turns]
    begin, text, last = 0, "", 0
    for frame, piece in enumerate(recording.text):
        divided = any(last < turn.begin <= frame for turn in turns) or (frame - last) * FRAME_S > PAUSE_S
        if piece and text and divided:
            events.append((begin, "agent", text))
            text = ""
        if piece:
            begin, last = (begin if text else frame), frame
            text += piece
    events += [(begin, "agent", text)] if text else []
    ordered = sorted(events, key=lambda event: event[0])
    return "\n".join(f"{frame * FRAME_S:6.1f}  {who}: {said.strip()}" for frame, who, said in ordered)
