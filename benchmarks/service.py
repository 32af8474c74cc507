"""How many callers the service carries, and what each costs: `python -m benchmarks.service [nano] [echo]`.

Starts the real server in a process of its own, with nano and then with an engine that only echoes frames, calls it over
the wire with more and more callers, and holds the most of them for a minute. At last it opens and drops calls in every
phase. The load generator is a process on the same machine, and says what it took itself: when that is near one core, it
is the generator that is measured.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from benchmarks.dropping import drop_calls
from benchmarks.server_process import EngineName, ServerProcess, State, serve
from core.client.climb import climb, served_well
from core.client.connection import CallOptions
from core.client.load_test import BenchReport, Load, run_load
from core.client.load_test_audio import synthetic_speech
from core.engine.call import FRAME_S
from core.http.protocols import LAST_BYTES_S
from core.media.audio_codecs import Samples
from core.media.sound_files import read_sound

MOST_CALLERS = 512
STAGGER_S = 0.053
"""Between the starts of two callers: many are there soon, and their frames come spread over a frame's 80 ms."""
ROUNDS = 3
"""Of dropped calls. What the first leaves is kept for later, as the others show."""
COLUMNS = (
    *("callers", "seconds", "delay p50", "p95", "p99 ms", "first p99", "drops", "gaps", "held", "CPU/call", "MiB/call"),
    *("loop p99", "most ms", "gen. CPU", "gen. p99", ""),
)


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

    def served_well(self) -> bool:
        """Whether all were served in time."""
        return served_well(self.report)


async def measure(server: ServerProcess, callers: int, seconds: float, message_ms: int, sound: Samples) -> Run:
    """Make `callers` calls at once, in which everybody says `sound`."""
    load = Load(callers, seconds, STAGGER_S, message_ms)
    before = await asyncio.to_thread(server.state)
    calling = asyncio.create_task(run_load(server.address, sound, load, CallOptions({})))
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


async def leaks(server: ServerProcess, calls: int, show: Callable[[int, State], None]) -> list[State]:
    """How the process is before and after each round of dropped calls."""
    states: list[State] = []
    for index in range(ROUNDS + 1):
        if index:
            await drop_calls(f"{server.address.replace('http', 'ws', 1)}/ws/chat", calls)
        await asyncio.sleep(LAST_BYTES_S + 1)
        states.append(await asyncio.to_thread(server.state, "/probe?tidy"))
        show(index * calls, states[-1])
    return states


def row(run: Run) -> list[str]:
    """A line of the table of runs."""
    report, delay, first, own = run.report, run.report.delay_ms, run.report.first_audio_ms, run.report.own_lag_ms
    return [
        str(report.callers),
        f"{report.seconds:g}",
        *([f"{delay.p50:.1f}", f"{delay.p95:.1f}", f"{delay.p99:.1f}"] if delay else ["-"] * 3),
        f"{first.p99:.0f}" if first else "-",
        str(report.dropped),
        str(report.gaps),
        str(report.held),
        f"{run.cpu:.4f}",
        f"{run.memory_mib:.2f}",
        f"{run.loop_lag_p99_ms:.1f}",
        f"{run.loop_lag_max_ms:.1f}",
        f"{report.own_cpu:.0%}",
        f"{own.p99:.1f}" if own else "-",
        "good" if run.served_well() else "too many",
    ]


def line(cells: Sequence[str]) -> str:
    """A line of a table that grows as the measurement goes on."""
    return " ".join(f"{cell:>9}" for cell in cells).rstrip()


def row_of_state(calls: int, state: State) -> list[str]:
    """A line of the table of dropped calls."""
    memory = [f"{size / 2**20:.1f}" for size in (state.memory, state.in_use)]
    return [str(calls), *memory, str(state.tasks), str(state.threads), str(state.descriptors)]


def examine(engine: EngineName, options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure the service with one engine; everything as JSON."""
    runs: list[Run] = []
    best: Run | None = None
    states: list[State] = []

    async def run(callers: int, seconds: float) -> Run:
        runs.append(await measure(server, callers, seconds, options.packet_ms, sound))
        say(line(row(runs[-1])))
        return runs[-1]

    sound = read_sound(options.sound) if options.sound else synthetic_speech(10)
    plugins = {"transcribe": {"model": options.transcribe}} if options.transcribe else {}
    with serve(engine, options.slots if engine == "nano" else None, plugins) as server:
        say(f"\n{engine}, {server.slots()} slots")
        say(line(COLUMNS))
        if options.callers:
            for callers in options.callers:
                asyncio.run(run(callers, options.hold))
        else:
            most = min(server.slots(), MOST_CALLERS)
            climbing = climb(run, Run.served_well, most, options.seconds, options.hold)
            best = asyncio.run(climbing)
            say(f"most callers held for {options.hold:g} s: {best.report.callers if best else 0}")
        if options.dropped:
            say("\ncalls dropped in every phase")
            say(line(("calls", "MiB", "in use", "tasks", "threads", "files")))
            states = asyncio.run(
                leaks(server, options.dropped, lambda calls, state: say(line(row_of_state(calls, state))))
            )
    return {
        "runs": [asdict(run) for run in runs],
        "most_callers": best.report.callers if best else None,
        "dropped": [asdict(state) for state in states],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", choices=("nano", "echo"), default=("nano", "echo"))
    parser.add_argument("--seconds", type=float, default=5, help="of each step on the way up")
    parser.add_argument("--hold", type=float, default=60, help="seconds for which the most callers are held")
    parser.add_argument("--callers", type=int, nargs="*", help="hold just these numbers of callers instead")
    parser.add_argument("--packet-ms", type=int, choices=(20, 40, 80), default=20, help="sound in each message")
    parser.add_argument("--slots", type=int, help="of nano; without it what it finds fit")
    parser.add_argument("--dropped", type=int, default=500, help="calls that are dropped in each round; 0: none")
    parser.add_argument(
        "--sound", type=Path, metavar="FILE.wav", help="what callers say; without it something like speech"
    )
    parser.add_argument("--transcribe", metavar="MODEL", help="write down what callers say, with this Whisper")
    parser.add_argument("--json", action="store_true", help="on stdout; the tables go to stderr")
    options = parser.parse_args()
    output = sys.stderr if options.json else sys.stdout

    def say(text: str) -> None:
        print(text, file=output, flush=True)

    say(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    results = {engine: examine(engine, options, say) for engine in cast(Sequence[EngineName], options.engines)}
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
