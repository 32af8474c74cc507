"""Hold the calls of an evaluation, and measure them."""

import asyncio
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from core.engine.call import FRAME_S, FRAME_SAMPLES, Engine
from core.engine.prompt import Prompt
from core.engine.sampling import Sampling
from core.evaluation.callers import Callers, Line
from core.evaluation.calls import Recording, hold_call
from core.evaluation.figures import Figure, share
from core.evaluation.personas import Subject, subject
from core.evaluation.script import MARKS_MIN, ScriptedCaller, Turn
from core.evaluation.speech import Samples, activity, levels, stretches
from core.evaluation.turn_taking import turn_taking
from core.evaluation.voices import told_apart
from core.evaluation.whisper import Whisper
from core.evaluation.words import WordErrors, mentions

AROUND = 2
"""Frames around what the agent says that Whisper hears too."""
NOISE_FLOOR = 0.001
"""Root mean square of an agent at rest: what detectors of speech by loudness take for silence."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class EvaluatedCall:
    """A call that was held."""

    subject: Subject
    voice: str
    recording: Recording
    turns: tuple[Turn, ...]
    silent_from: int

    def parts(self) -> list[tuple[int, int]]:
        """Frames (begin, end) of the greeting, and of what follows each begin of the caller's turns."""
        begins = [0, *(turn.begin for turn in self.turns)]
        return list(zip(begins, [*begins[1:], len(self.recording.text)], strict=True))


@dataclass(frozen=True)
class Plan:
    """What is evaluated: so many personas, each in a call that goes on for at least so many minutes."""

    personas: int = 8
    minutes: float = 1.0
    sampling: Sampling = field(default_factory=Sampling)


class Evaluation(msgspec.Struct, frozen=True):
    """What was measured."""

    engine: str
    device: str
    figures: tuple[Figure, ...]

    @property
    def passed(self) -> bool:
        """Whether no figure misses its bounds."""
        return all(figure.verdict != "missed" for figure in self.figures)


async def hold_calls(
    engine: Engine, plan: Plan, callers: Callers | None, recordings: Sequence[Line], report: Report
) -> list[EvaluatedCall]:
    """One call for each persona, over all voices in turn, as many at once as there are slots.

    `callers` asks for facts; with `recordings` alone there is nobody to ask, and only these are played. They are dealt
    out among the calls. Raises what the engine raises.
    """
    free = asyncio.Semaphore(engine.info.slots)
    voices = engine.voices() or ("",)

    async def hold(number: int) -> EvaluatedCall:
        persona, voice = subject(number), voices[number % len(voices)]
        caller = ScriptedCaller(persona, callers, recordings[number :: plan.personas], number, plan.minutes)
        prompt = Prompt(persona.prompt, engine.voice(voice) if voice else None)
        async with free:
            recording = await hold_call(engine, prompt, caller.frames(), replace(plan.sampling, seed=number))
        report(f"call {number + 1} of {plan.personas}, {voice}: {len(recording.text) * FRAME_S:.0f} s")
        return EvaluatedCall(persona, voice, recording, tuple(caller.turns), caller.silent_from)

    return await asyncio.gather(*(hold(number) for number in range(plan.personas)))


def measure(engine: Engine, calls: Sequence[EvaluatedCall], whisper: Whisper | None, report: Report) -> Evaluation:
    """All figures of these calls. `whisper` None leaves out what is heard of the agent's speech."""
    steps = [ms for call in calls for ms in call.recording.step_ms]
    broken = sum(call.recording.broken for call in calls)
    heard = word_errors(calls, whisper, report) if whisper is not None else None
    ready = [call.recording.ready_s for call in calls]
    agents = [call.recording.agent for call in calls]
    voices = told_apart([call.voice for call in calls], agents)
    figures = [
        *recall(calls),
        *turn_taking([(call.recording, call.turns) for call in calls]),
        *at_rest(calls),
        _speech_level(agents),
        *([Figure("Words that Whisper hears otherwise", heard.rate, heard.words, most=0.25)] if heard else []),
        Figure("Recordings nearest to their own voice", voices, len(calls), least=0.9),
        Figure("Frames with samples that are no numbers", broken, len(steps), most=0, unit=""),
        Figure("Time of a frame's step, median", _percentile(steps, 50), len(steps), most=80.0, unit="ms"),
        Figure("Time of a frame's step, 99th percentile", _percentile(steps, 99), len(steps), most=80.0, unit="ms"),
        Figure("Longest preparation of a voice and prompt", max(ready, default=None), len(ready), unit="s"),
        *memory(engine),
    ]
    return Evaluation(engine.info.name, engine.info.device, tuple(figures))


def recall(calls: Sequence[EvaluatedCall]) -> list[Figure]:
    """What the agent's text says of what its prompt knows: at the beginning, and after minutes of talk."""
    greetings = [mentions(call.recording.said(*call.parts()[0]), call.subject.name) for call in calls]
    figures = [share("Greetings with the persona's name", greetings, least=0.85)]
    for mark in (0.0, *MARKS_MIN):
        for kind, least in (("name", 0.85), ("company", 0.75), ("price", 0.7)):
            right = [
                mentions(call.recording.said(turn.begin, until), turn.wanted)
                for call in calls
                for turn, (_, until) in zip(call.turns, call.parts()[1:], strict=True)
                if turn.kind == kind and turn.after_min == mark
            ]
            if right:
                when = f"after {mark:g} min" if mark else "at the beginning"
                figures.append(share(f"Answers with the right {kind}, {when}", right, least=least))
    return figures


def at_rest(calls: Sequence[EvaluatedCall]) -> list[Figure]:
    """What is heard of an agent to whom nobody speaks, in the silence at the end."""
    floors, still = [], []
    for call in calls:
        sound = call.recording.agent[call.silent_from * FRAME_SAMPLES :]
        speaks = activity(sound)
        still += (~speaks).tolist()
        floors += levels(sound)[~speaks].tolist()
    return [
        Figure("Silence kept in a silent stretch", share("", still).value, round(len(still) * FRAME_S), least=0.9),
        Figure("Level of that silence, median", _percentile(floors, 50), len(floors), most=NOISE_FLOOR, unit="RMS"),
    ]


def word_errors(calls: Sequence[EvaluatedCall], whisper: Whisper, report: Report) -> WordErrors:
    """How Whisper understands the agents, against their own text."""
    report("Whisper listens")
    errors = WordErrors()
    for call in calls:
        for begin, end in call.parts():
            said = call.recording.said(begin, end).strip()
            sound = spoken(call.recording.agent, begin, end)
            errors.add(said, whisper.hear(sound) if len(sound) else "")
    return errors


def spoken(agent: Samples, begin: int, end: int) -> Samples:
    """The agent's sound in some frames, from where it begins to speak to where it ends, or nothing."""
    sound = agent[begin * FRAME_SAMPLES : end * FRAME_SAMPLES]
    whole = stretches(activity(sound), gap_s=float("inf"))
    if not whole:
        return sound[:0]
    first, last = whole[0]
    return sound[max(0, first - AROUND) * FRAME_SAMPLES : (last + AROUND) * FRAME_SAMPLES]


def memory(engine: Engine) -> list[Figure]:
    """What this process and the engine's devices hold now, and held at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    figures = [Figure("Memory of this process, at most", peak, 1, unit="MiB")]
    for device in engine.devices():
        if "reserved" in device.memory:
            figures.append(Figure(f"Memory of {device.device}", device.memory["reserved"] / 2**20, 1, unit="MiB"))
    return figures


def _speech_level(agents: Sequence[Samples]) -> Figure:
    loud = [level for sound in agents for level in levels(sound)[activity(sound)].tolist()]
    level = 20 * np.log10(np.sqrt(np.mean(np.square(loud)))) if loud else None
    return Figure("Level of its speech", level if level is None else float(level), len(loud), -36.0, -12.0, "dB")


def _percentile(values: Sequence[float], percent: int) -> float | None:
    return float(np.percentile(values, percent)) if values else None
