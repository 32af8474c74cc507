"""The report of an evaluation: one HTML file with a table and plots, that needs nothing else."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from core.engine.call import FRAME_S
from core.evaluation.evaluate import EvaluatedCall, Evaluation
from core.evaluation.figures import Figure
from core.evaluation.speech import activity, answer_delay, stretches

WIDTH = 880
"""Of a plot, in pixels."""
ROW = 34
"""Height of one call in the plot of calls."""
JOINED_S = 0.3
"""Pauses shorter than this are not drawn."""
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733; max-width: 960px; margin: 32px auto; padding: 0 16px; }
h1 { font-size: 26px; } h2 { font-size: 19px; margin-top: 36px; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: start; padding: 6px 10px; }
tr { border-bottom: 1px solid #dde3ea; } td.number { text-align: end; white-space: nowrap; }
.met { color: #12714a; } .missed { color: #b42318; font-weight: 600; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: #55606e; }
.agent { fill: #2f6fed; } .caller { fill: #e08a1e; } .line { stroke: #dde3ea; }
p.legend { color: #55606e; }
"""


def write_report(path: Path, evaluation: Evaluation, calls: Sequence[EvaluatedCall]) -> None:
    """Write the report. Raises OSError."""
    delays = [delay for call in calls for delay in _delays(call)]
    steps = [ms for call in calls for ms in call.recording.step_ms]
    missed = sum(figure.verdict == "missed" for figure in evaluation.figures)
    verdict = "Every figure lies within its bounds." if not missed else f"{missed} figures miss their bounds."
    seconds = sum(len(call.recording.text) for call in calls) * FRAME_S
    body = f"""<h1>{escape(evaluation.engine)} on {escape(evaluation.device)}</h1>
<p>{len(calls)} calls with as many personas, {seconds / 60:.0f} minutes in all. {verdict}</p>
{_table(evaluation.figures)}
<h2>When answers begin</h2>
<p class="legend">Seconds from the caller's end to the agent's beginning; left of zero it began before that end.</p>
{_histogram(delays, -0.4, 4.0, "s")}
<h2>Time of a frame's step</h2>
<p class="legend">Milliseconds; a frame lasts 80.</p>
{_histogram(steps, 0.0, max(80.0, float(np.percentile(steps, 99.5)) if steps else 80.0), "ms")}
<h2>The calls</h2>
<p class="legend"><span style="color:#2f6fed">■</span> the agent speaks,
<span style="color:#e08a1e">■</span> the caller speaks; first name and voice at the left.</p>
{_timeline(calls)}"""
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Evaluation of {escape(evaluation.engine)}</title>
<style>{STYLE}</style></head><body>{body}</body></html>
"""
    path.write_text(page, encoding="utf-8")


def _table(figures: Iterable[Figure]) -> str:
    rows = []
    for figure in figures:
        published = ", ".join(f"{escape(who)} {figure.show(value)}" for who, value in figure.published.items())
        rows.append(
            f'<tr><td>{escape(figure.name)}</td><td class="number">{figure.show(figure.value)}</td>'
            f'<td class="number">{figure.cases}</td><td>{escape(figure.bounds)}</td>'
            f'<td class="{figure.verdict}">{figure.verdict}</td><td>{published}</td></tr>'
        )
    head = "<tr><th>measured</th><th></th><th>cases</th><th>wanted</th><th></th><th>published of others</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _delays(call: EvaluatedCall) -> list[float]:
    active = activity(call.recording.agent)
    parts = call.parts()[1:]
    found = [answer_delay(active, turn.end, until) for turn, (_, until) in zip(call.turns, parts, strict=True)]
    return [delay for delay in found if delay is not None]


def _histogram(values: Sequence[float], low: float, high: float, unit: str) -> str:
    """How many values lie where; those outside are counted at the ends."""
    if not values:
        return "<p>Nothing was measured.</p>"
    counts, edges = np.histogram(np.clip(values, low, high), bins=44, range=(low, high))
    height, step = 150, WIDTH / len(counts)
    bars = "".join(
        f'<rect class="agent" x="{place * step:.1f}" width="{step - 1:.1f}" y="{height * (1 - share):.1f}" '
        f'height="{height * share:.1f}"><title>{count} from {edges[place]:.2f} {unit}</title></rect>'
        for place, (count, share) in enumerate(zip(counts.tolist(), (counts / counts.max()).tolist(), strict=True))
    )
    marks = "".join(
        f'<text x="{WIDTH * at / 4:.0f}" y="{height + 16}" text-anchor="{anchor}">'
        f"{low + (high - low) * at / 4:.2f} {unit}</text>"
        for at, anchor in enumerate(("start", "middle", "middle", "middle", "end"))
    )
    return f'<svg viewBox="0 0 {WIDTH} {height + 22}" role="img">{bars}{marks}</svg>'


def _timeline(calls: Sequence[EvaluatedCall]) -> str:
    """Who speaks when, a row a call."""
    left = 130
    longest = max((len(call.recording.text) for call in calls), default=1)
    scale = (WIDTH - left) / longest
    rows = []
    for number, call in enumerate(calls):
        top = number * ROW
        rows.append(f'<line class="line" x1="0" x2="{WIDTH}" y1="{top + ROW - 1}" y2="{top + ROW - 1}"/>')
        rows.append(f'<text x="0" y="{top + ROW / 2 + 4:.0f}">{escape(call.subject.name)}, {escape(call.voice)}</text>')
        for side, sound, at in (("agent", call.recording.agent, 4), ("caller", call.recording.caller, ROW / 2 + 1)):
            rows += [
                f'<rect class="{side}" x="{left + begin * scale:.1f}" y="{top + at:.0f}" '
                f'width="{max(1.0, (end - begin) * scale):.1f}" height="{ROW / 2 - 5:.0f}"/>'
                for begin, end in stretches(activity(sound), JOINED_S)
            ]
    return f'<svg viewBox="0 0 {WIDTH} {len(calls) * ROW}" role="img">{"".join(rows)}</svg>'
