"""`bench`: many callers at once against a server, and bounds that they must keep to."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from core.cli.options import password_option
from core.client.connection import CallOptions
from core.client.frame_times import Percentiles
from core.client.load_test import BenchReport, Load, run_load
from core.client.load_test_audio import synthetic_speech
from core.media.sound_files import read_sound

SPEECH_S = 10.0
"""The length of the built-in speech, which is said over and over."""


@dataclass(frozen=True)
class Bounds:
    """What must hold for the exit code to be 0. None: no bound."""

    max_p99_ms: float | None
    max_first_audio_ms: float | None
    max_drops: int | None
    max_gaps: int | None
    min_held: int | None

    def violations(self, report: BenchReport) -> Iterator[str]:
        """A sentence for each bound that does not hold. Where nothing could be measured, no bound holds."""
        held = report.callers if self.min_held is None else self.min_held
        if report.held < held:
            yield f"{report.held} of {report.callers} calls were held, {held} must be."
        delay, first = report.delay_ms, report.first_audio_ms
        times = (
            ("p99 of the frame delay", delay.p99 if delay else None, self.max_p99_ms),
            ("first audio of the slowest caller", first.max if first else None, self.max_first_audio_ms),
        )
        for what, measured, bound in times:
            if bound is not None and (measured is None or measured > bound):
                yield f"{what}: {'none' if measured is None else f'{measured:.0f} ms'}, more than {bound:g} ms."
        counts = (("frames dropped", report.dropped, self.max_drops), ("gaps", report.gaps, self.max_gaps))
        for what, count, most in counts:
            if most is not None and count > most:
                yield f"{what}: {count}, more than {most}."


@click.command()
@click.argument("url")
@click.option("--callers", type=click.IntRange(1, 1000), default=1, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(1, 3600),
    default=30.0,
    show_default=True,
    help="How long all of them talk at once.",
)
@click.option(
    "--stagger", type=click.FloatRange(0, 60), default=0.23, show_default=True, help="Seconds between two starts."
)
@click.option(
    "--sound",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="IN.wav",
    help="What every caller says, over and over; without it something like speech.",
)
@click.option("--persona", help="Whom to talk with; without it the server's default persona.")
@click.option("--audio", type=click.Choice(["opus", "pcm"]), default="opus", show_default=True)
@password_option
@click.option("--max-p99-ms", type=click.FloatRange(0), help="Bound: the 99th percentile of the frame delay.")
@click.option("--max-first-audio-ms", type=click.FloatRange(0), help="Bound: the slowest caller's first audio.")
@click.option("--max-drops", type=click.IntRange(0), help="Bound: frames that the server dropped.")
@click.option("--max-gaps", type=click.IntRange(0), help="Bound: gaps in what players with 80 ms of buffer play.")
@click.option("--min-held", type=click.IntRange(0), help="Bound: calls held to the end; without it all of them.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def bench(
    url: str,
    callers: int,
    seconds: float,
    stagger: float,
    sound: Path | None,
    persona: str | None,
    audio: str,
    password: str | None,
    max_p99_ms: float | None,
    max_first_audio_ms: float | None,
    max_drops: int | None,
    max_gaps: int | None,
    min_held: int | None,
    as_json: bool,
) -> None:
    """Call the server at URL with many callers at once, in real time, and print the delays.

    The exit code is 1 when a bound is broken, or a call was not held to the end (see --min-held).
    """
    speech = read_sound(sound) if sound else synthetic_speech(SPEECH_S)
    options = CallOptions({"persona": persona} if persona else {}, "pcm" if audio == "pcm" else "opus", password)
    load = Load(callers, seconds, stagger)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f} of {task.total:.0f} s"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("starting", total=(callers - 1) * stagger + seconds)
        report = asyncio.run(
            run_load(
                url,
                speech,
                load,
                options,
                lambda gone, talking: bar.update(task, description=f"{talking} talking", completed=gone),
            )
        )
    broken = list(Bounds(max_p99_ms, max_first_audio_ms, max_drops, max_gaps, min_held).violations(report))
    if as_json:
        click.echo(json.dumps({**asdict(report), "broken": broken}))
    else:
        _print(report)
    if broken:
        raise click.ClickException("\n".join(broken))


def _print(report: BenchReport) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "p50", "p95", "p99", "most"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, times in {
        "connect": report.connect_ms,
        "handshake (queue and prompt)": report.handshake_ms,
        "first audio": report.first_audio_ms,
        "delay of a frame": report.delay_ms,
        "of it, this generator": report.own_lag_ms,
    }.items():
        table.add_row(name, *_cells(times))
    rows = [
        ("callers held", f"{report.held} of {report.callers}, {report.seconds:g} s all at once"),
        ("frames", f"{report.frames_sent} sent, {report.frames_answered} answered, {report.dropped} dropped"),
        ("gaps (80 ms of buffer)", f"{report.gaps}, {report.gap_ms:.0f} ms in all"),
        ("this generator", f"{report.own_cpu:.0%} of a core"),
        *((f"{count} failed", problem) for problem, count in report.errors.items()),
    ]
    counts = Table(box=None, show_header=False, pad_edge=False)
    for row in rows:
        counts.add_row(*row)
    console = Console()
    console.print(table, markup=False)
    console.print(counts, markup=False)


def _cells(times: Percentiles | None) -> list[str]:
    if times is None:
        return ["none", "", "", ""]
    return [f"{time:.1f} ms" for time in (times.p50, times.p95, times.p99, times.max)]
