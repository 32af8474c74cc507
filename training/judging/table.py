"""From judged calls to the table of targets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.engine.call import FRAME_S
from core.evaluation.figures import Figure, mean, share
from core.evaluation.speech import EARLY_S
from core.evaluation.words import WordErrors
from training.judging.records import JudgedCall, JudgedTurn
from training.judging.scenes import QUIET_KINDS, SceneKind
from training.judging.strangers import Style

PROMPT_S = 1.2
"""An answer that begins within this time is prompt."""
FACTS = {"name": 0.9, "price": 0.75, "hours": 0.75, "other": 0.6}
"""The share of right answers that is aimed at, with service roles."""
QUIET = {"echo": 1.0, "music": 0.9, "typing": 0.9, "office": 0.9, "silence": None}
STYLES: dict[Style, str] = {"service": "service roles", "free": "free styles"}


@dataclass(frozen=True)
class Heard:
    """What was heard of speech: the agent's by Whisper, and scores from 1 to 5 by DistillMOS.

    `names` says for each greeting whether its name was heard; `teacher_names` the same of the teacher.
    """

    names: Sequence[bool] = ()
    teacher_names: Sequence[bool] = ()
    errors: WordErrors | None = None
    teacher_mos: Sequence[float] = ()
    codec_mos: Sequence[float] = ()
    agent_mos: Sequence[float] = ()


def figures_of(calls: Sequence[JudgedCall], heard: Heard) -> list[Figure]:
    """The whole table; what was not measured is left out."""
    figures = [*greetings(calls), *facts(calls), *memory(calls), *speech(heard), *quiet(calls), *conduct(calls)]
    return [figure for figure in figures if figure.cases]


def greetings(calls: Sequence[JudgedCall]) -> Iterator[Figure]:
    """Whether greetings have the name."""
    for style, called in STYLES.items():
        greeted = [call.greeted for call in calls if call.kind == "facts" and call.style == style]
        yield share(f"Name in the greeting, {called}", greeted)


def facts(calls: Sequence[JudgedCall]) -> Iterator[Figure]:
    """Whether what the prompt says is known, and whether numbers are invented."""
    for style, called in STYLES.items():
        turns = [turn for call in calls if call.kind == "facts" and call.style == style for turn in call.turns]
        for kind, target in FACTS.items():
            least = target if style == "service" else 0.85 if kind == "name" else None
            yield share(f"Right {kind}, {called}", _right(turns, kind), least=least)
        yield share(f"Right facts in all, {called}", [turn.right for turn in turns if turn.right is not None])
    turns = [turn for call in calls if call.kind == "facts" for turn in call.turns]
    spoken, wrong = sum(turn.counted for turn in turns), sum(len(turn.numbers) for turn in turns)
    yield Figure("Numbers spoken that are not in the prompt", wrong / spoken if spoken else None, spoken, most=0.03)


def memory(calls: Sequence[JudgedCall]) -> Iterator[Figure]:
    """Whether the name and another fact are known after minutes."""
    turns = [turn for call in calls if call.kind == "memory" for turn in call.turns if turn.minute is not None]
    for minute in sorted({turn.minute for turn in turns if turn.minute is not None}):
        then = [turn for turn in turns if turn.minute == minute]
        yield share(f"Right name after {minute:g} min", _right(then, "name"), least=0.85)
        others = [bool(turn.right) for turn in then if turn.kind != "name"]
        yield share(f"Another right fact after {minute:g} min", others)


def speech(heard: Heard) -> Iterator[Figure]:
    """How the agent sounds."""
    errors = heard.errors or WordErrors()
    agent, teacher = share("Names in greetings as Whisper hears them", heard.names), share("", heard.teacher_names)
    yield agent
    yield Figure("The same of the teacher", teacher.value, teacher.cases)
    if agent.value is not None and teacher.value:
        yield Figure("Names heard, of those of the teacher", agent.value / teacher.value, agent.cases, least=0.75)
    yield Figure("Words that Whisper hears otherwise", errors.rate, errors.words, most=0.15)
    for name, scores, least in (
        ("teacher's lines", heard.teacher_mos, None),
        ("teacher's lines through the codec", heard.codec_mos, 3.0),
        ("agent's lines", heard.agent_mos, 2.8),
    ):
        figure = mean(f"DistillMOS, the {name}", scores, "")
        value = None if figure.value is None else round(figure.value, 2)
        yield Figure(figure.name, value, figure.cases, least=least, unit="")


def quiet(calls: Sequence[JudgedCall]) -> Iterator[Figure]:
    """Whether the agent is silent while nobody speaks to it."""
    for kind in QUIET_KINDS:
        name = "its own echo at -10 dB" if kind == "echo" else kind
        kept = [bool(call.quiet) for call in _of(calls, kind)]
        yield share(f"Silent for 20 s in {name}", kept, least=QUIET[kind])


def conduct(calls: Sequence[JudgedCall]) -> Iterator[Figure]:
    """How it takes turns, and what it says to what is no question for facts."""
    unpleasant = _turns(calls, "unpleasant")
    yield share("Sad, rude or angry lines met with gladness", [turn.glad for turn in unpleasant], most=0.0)
    yield share("The same without any words", [not turn.said for turn in unpleasant])
    unknown = _turns(calls, "unknown")
    yield share("Says that it does not know what it cannot know", [bool(turn.right) for turn in unknown])
    yield share("Invents a number there", [bool(turn.numbers) for turn in unknown])
    yield share("Sums that are right", [bool(turn.right) for turn in _turns(calls, "arithmetic")])
    asked = [turn for kind in ("facts", "unpleasant", "unknown") for turn in _turns(calls, kind)]
    yield share("Turns answered within 1.2 s", [_prompt(turn) for turn in asked])
    yield share("Turns not talked over", [not turn.talked_over for turn in asked], least=0.95)
    long = _turns(calls, "monologue")
    yield share("Monologues not talked over", [not turn.talked_over for turn in long])
    yield share("Monologues answered within 1.2 s", [_prompt(turn) for turn in long])
    turns = _turns(calls, "backchannel")
    yield share("Goes on in spite of mhm", [turn.goes_on for turn in turns if turn.goes_on is not None])
    real = _turns(calls, "recording")
    yield share("Turns of the recording kept and answered", [_prompt(turn) and not turn.talked_over for turn in real])


def _of(calls: Sequence[JudgedCall], kind: SceneKind | str) -> list[JudgedCall]:
    return [call for call in calls if call.kind == kind]


def _turns(calls: Sequence[JudgedCall], kind: SceneKind | str) -> list[JudgedTurn]:
    return [
        turn for call in _of(calls, kind) for turn in call.turns if kind != "backchannel" or turn.kind == "backchannel"
    ]


def _right(turns: Sequence[JudgedTurn], kind: str) -> list[bool]:
    return [bool(turn.right) for turn in turns if turn.kind == kind]


def _prompt(turn: JudgedTurn) -> bool:
    return turn.delay_s is not None and -EARLY_S - FRAME_S <= turn.delay_s <= PROMPT_S
