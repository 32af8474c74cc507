"""How an agent takes turns, as Full-Duplex-Bench measures it (Lin et al. 2025, arXiv 2503.04721).

An agent takes the turn that speaks for a second or says more than three words; less is a backchannel. The benchmark's
latency counts an answer that begins before the caller's end as no latency at all, so the share of such answers is given
beside it. The greeting is not counted. Times come from the level of the sound, frame by frame, and words from the
agent's own text stream, where the benchmark has a recogniser write both down.
"""

from collections.abc import Sequence

from core.engine.call import FRAME_S
from core.evaluation.calls import Recording
from core.evaluation.figures import Figure, mean, share
from core.evaluation.script import BEGINS_S, Turn
from core.evaluation.speech import Activity, activity, answer_delay, is_talked_over, stretches

TAKES_S = 1.0
"""Speech of this length takes the turn, however few words it has."""
TAKES_WORDS = 3
"""More words than these take the turn, however short."""
STOPS_S = 1.5
"""An agent that is interrupted stops within this time."""
MOSHI, PERSONAPLEX = "Moshi", "PersonaPlex"
_PUBLISHED = {
    "pause": {MOSHI: 0.985},
    "turn": {MOSHI: 0.941, PERSONAPLEX: 0.908},
    "turn latency": {MOSHI: 0.265, PERSONAPLEX: 0.170},
    "interruption": {MOSHI: 1.0, PERSONAPLEX: 0.950},
    "interruption latency": {MOSHI: 0.257, PERSONAPLEX: 0.240},
}
"""Moshi's from the benchmark's paper (Table 1, synthetic pauses), PersonaPlex's from NVIDIA's model card. Their callers
are the benchmark's recordings, so that they show the range and not what these calls should give."""


def takes_turn(recording: Recording, active: Activity, begin: int, end: int) -> bool:
    """Whether the agent takes the turn in frames `begin` to `end`."""
    speech = float(active[begin:end].sum()) * FRAME_S
    return speech >= TAKES_S or (speech > 0 and len(recording.said(begin, end).split()) > TAKES_WORDS)


def turn_taking(calls: Sequence[tuple[Recording, Sequence[Turn]]]) -> list[Figure]:
    """The figures of these calls' turns."""
    taken, delays, early, quiet, silent = [], [], [], [], []
    paused, interrupted, stops, answers = [], [], [], []
    for recording, turns in calls:
        active = activity(recording.agent)
        for turn, until in zip(turns, _until(turns, len(active)), strict=True):
            if turn.kind == "pause":
                paused.append(takes_turn(recording, active, turn.begin, turn.end))
                continue
            delay = answer_delay(active, turn.end, until)
            took = takes_turn(recording, active, turn.end, until)
            if turn.kind == "interruption":
                if turn.spoke:
                    interrupted.append(took)
                    stops.append(_stops_after(active, turn.begin))
                    answers += [max(0.0, delay)] if took and delay is not None else []
                continue
            taken.append(took)
            quiet.append(not is_talked_over(active, turn.begin, turn.end))
            silent.append(not active[turn.end : turn.end + round(BEGINS_S / FRAME_S)].any())
            if took and delay is not None:
                delays.append(max(0.0, delay))
                early.append(delay < 0)
    return [
        _with(share("Turns of the caller that the agent answers", taken, least=0.85), "turn"),
        _with(mean("Time to its answer", delays, "s", most=1.2), "turn latency"),
        share("Answers that begin before the caller's end", early),
        share("Turns of the caller without a sound within 4 s", silent, most=0.1),
        share("Turns of the caller that are not talked over", quiet, least=0.9),
        _with(share("Pauses in a turn that the agent takes for its end", paused, most=0.5), "pause"),
        _with(share("Interruptions that the agent answers", interrupted, least=0.85), "interruption"),
        _with(mean("Time to its answer to an interruption", answers, "s", most=1.5), "interruption latency"),
        share(f"Interruptions at which it stops within {STOPS_S} s", [stop <= STOPS_S for stop in stops], least=0.7),
    ]


def _until(turns: Sequence[Turn], frames: int) -> list[int]:
    """Where the answer to each turn must have begun: at the next turn."""
    return [*(turn.begin for turn in turns[1:]), frames]


def _stops_after(active: Activity, begin: int) -> float:
    """Seconds from an interruption until the agent is silent."""
    stretch = next((end for start, end in stretches(active, 0.3) if start <= begin < end), begin)
    return (stretch - begin) * FRAME_S


def _with(figure: Figure, published: str) -> Figure:
    return Figure(
        figure.name, figure.value, figure.cases, figure.least, figure.most, figure.unit, _PUBLISHED[published]
    )
