"""How many callers the service carries, and what each costs: `python -m benchmarks.service [nano] [echo]`.

Starts the real server in a process of its own, with nano and then with an engine that only echoes frames, calls it over
the wire with more and more callers, and holds the most of them for a minute. The load generator runs on the same
machine and is part of what is measured. At last it opens and drops calls in every phase.
"""

import argparse
import asyncio
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import cast

from rich.console import Console
from rich.table import Table

from benchmarks.dropping import drop_calls
from benchmarks.server_process import EngineName, ServerProcess, State, serve
from core.audio import FRAME_S
from core.bench import BenchReport, Load, run_load
from core.client import CallOptions
from core.load import synthetic_speech

MOST_P99_MS = 80.0
"""A frame's own length: later answers pile up."""
MOST_CALLERS = 512
DROPPED = 500
"""Calls opened and dropped, in each of two rounds: what the first leaves is kept on purpose, as the second shows."""


@dataclass(frozen=True)
class Run:
    """One number of callers for one time."""

    report: BenchReport
    cpu: float
    """Seconds of CPU that the server took for each second of each session."""
    memory_mib: float
    """Resident memory for each caller, over that of the idle server."""
    loop_lag_p99_ms: float
    loop_lag_max_ms: float

    @property
    def good(self) -> bool:
        """Whether all were served in time."""
        delay = self.report.delay_ms
        whole = self.report.held == self.report.callers and self.report.dropped == 0
        return whole and delay is not None and delay.p99 < MOST_P99_MS


async def measure(server: ServerProcess, callers: int, seconds: float) -> Run:
    """Call with so many callers."""
    load = Load(callers, seconds)
    before = await asyncio.to_thread(server.state)
    calling = asyncio.create_task(run_load(server.address, synthetic_speech(10), load, CallOptions({})))
    await asyncio.wait([calling], timeout=callers * load.stagger_s + seconds / 2)
    amid = await asyncio.to_thread(server.state)
    report = await calling
    after = await asyncio.to_thread(server.state)
    return Run(
        report=report,
        cpu=(after.cpu_s - before.cpu_s) / max(report.frames_sent * FRAME_S, FRAME_S),
        memory_mib=(amid.memory - before.memory) / callers / 2**20,
        loop_lag_p99_ms=max(amid.loop_lag_p99_ms, after.loop_lag_p99_ms),
        loop_lag_max_ms=max(amid.loop_lag_max_ms, after.loop_lag_max_ms),
    )


async def climb(server: ServerProcess, seconds: float, hold_s: float, show: Callable[[Run], None]) -> Run | None:
    """The most callers that are served well for `hold_s`, found by doubling, then halving the step."""
    most = min(server.slots(), MOST_CALLERS)
    good, bad = 0, most + 1
    while bad - good > max(1, good // 8):
        callers = min(max(2 * good, 1), most) if bad > most else (good + bad) // 2
        run = await measure(server, callers, seconds)
        show(run)
        good, bad = (callers, bad) if run.good else (good, callers)
    while good > 0:
        run = await measure(server, good, hold_s)
        show(run)
        if run.good:
            return run
        good -= max(1, good // 8)
    return None


async def leaks(server: ServerProcess) -> list[State]:
    """How the process is before and after each round of dropped calls."""
    states = [await asyncio.to_thread(server.state)]
    for _ in range(2):
        await drop_calls(f"{server.address.replace('http', 'ws', 1)}/ws/chat", DROPPED)
        await asyncio.sleep(12)  # ended connections are kept for the time in which another request might come
        states.append(await asyncio.to_thread(server.state))
    return states


def table_of_runs(engine: EngineName) -> Table:
    """The head of the table."""
    table = Table(title=f"{engine}: callers at once, over the wire", title_justify="left")
    for heading in ("callers", "s", "delay p50", "p95", "p99 ms", "first audio p99", "drops", "gaps", "held"):
        table.add_column(heading, justify="right")
    for heading in ("CPU s per s of call", "MiB per call", "loop lag p99", "most ms", "generator", ""):
        table.add_column(heading, justify="right")
    return table


def row(run: Run) -> list[str]:
    """A line of it."""
    report, delay, first = run.report, run.report.delay_ms, run.report.first_audio_ms
    return [
        str(report.callers),
        f"{report.seconds:g}",
        *([f"{delay.p50:.1f}", f"{delay.p95:.1f}", f"{delay.p99:.1f}"] if delay else ["-"] * 3),
        f"{first.p99:.0f} ms" if first else "-",
        str(report.dropped),
        str(report.gaps),
        str(report.held),
        f"{run.cpu:.4f}",
        f"{run.memory_mib:.2f}",
        f"{run.loop_lag_p99_ms:.1f}",
        f"{run.loop_lag_max_ms:.1f}",
        f"{report.own_cpu:.0%} CPU",
        "good" if run.good else "too many",
    ]


def table_of_states(states: Sequence[State]) -> Table:
    """What was left of the dropped calls."""
    table = Table(title="calls dropped in every phase", title_justify="left")
    for heading in ("calls", "memory MiB", "tasks", "threads", "descriptors"):
        table.add_column(heading, justify="right")
    for index, state in enumerate(states):
        numbers = (state.tasks, state.threads, state.descriptors)
        table.add_row(str(index * DROPPED), f"{state.memory / 2**20:.1f}", *(str(number) for number in numbers))
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", choices=("nano", "echo"), default=("nano", "echo"))
    parser.add_argument("--seconds", type=float, default=10, help="of each step on the way up")
    parser.add_argument("--hold", type=float, default=60, help="seconds for which the most callers are held")
    parser.add_argument("--slots", type=int, help="of nano; without it what it finds fit")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    console = Console(stderr=options.json, width=160)
    console.print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    results = {}
    for engine in cast(Sequence[EngineName], options.engines):
        runs: list[Run] = []
        with serve(engine, options.slots if engine == "nano" else None) as server:
            console.print(f"{engine}: {server.slots()} slots")
            best = asyncio.run(climb(server, options.seconds, options.hold, runs.append))
            states = asyncio.run(leaks(server))
        table = table_of_runs(engine)
        for run in runs:
            table.add_row(*row(run))
        console.print(table)
        console.print(f"most callers held for {options.hold:g} s: {best.report.callers if best else 0}")
        console.print(table_of_states(states))
        results[engine] = {
            "runs": [asdict(run) for run in runs],
            "most_callers": best.report.callers if best else 0,
            "dropped": [asdict(state) for state in states],
        }
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
