"""The whole service with many callers on one machine: `python -m benchmarks.many_callers FOLDER`.

Writes a checkpoint of full size with random weights into FOLDER, where there is none yet (15.6 GiB), starts
`personaplex serve` with it, and calls from processes on the same machine, which send 20 ms a message as browsers do.
With `--nano` it needs no GPU.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from moshi.models.loaders import MOSHI_NAME

from benchmarks.process_tree import lines, processes
from benchmarks.server_process import PROBE
from core.client.connection import CallOptions
from core.client.load_test import BenchReport, Load, run_load
from core.client.load_test_audio import synthetic_speech
from core.media.sound_files import write_wav

CALLERS = (1, 24, 64, 96)
START_S = 5.0
"""All callers have started after this time."""
ROOM_S = 8.0
"""What a call may last beyond `--seconds`: the first callers wait for the last, and the end is waited for."""
BOOT_S = 420.0
WARM_UP_S = 5.0
COLUMNS = ("callers", "held", "p50", "p99 ms", "gaps", "drops", "cores", "MiB", "loop p99", "loop most", "gen. cores")


@dataclass(frozen=True)
class Run:
    """One number of callers."""

    report: BenchReport
    cores: float
    """CPU seconds a second of the server's processes."""
    memory: int
    """Bytes of the server's processes, in the middle of the run."""
    loop_lag_p99_ms: float
    """How late the event loop wakes; of one process, where several hold the sockets."""
    loop_lag_max_ms: float
    tree: list[str]


def write_settings(folder: Path, options: argparse.Namespace) -> Path:
    """A config.yaml with a persona whose voice is a recording, since random weights come without voices."""
    for name in ("plugins", "voices", "personas"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "plugins" / "probe.py").write_text(PROBE)
    write_wav(folder / "voices" / "bench.wav", synthetic_speech(10)[None])
    persona = {"name": "Bench", "voice": "bench", "prompt": "You enjoy having a good conversation."}
    (folder / "personas" / "bench.yaml").write_text(yaml.safe_dump(persona))
    engine: dict[str, Any] = {"slots": options.slots or "auto"}
    engine |= {"name": "nano", "device": "cpu"} if options.nano else {"checkpoint": str(folder / "checkpoint")}
    settings = {
        "server": {"port": 0} | ({} if options.workers is None else {"workers": options.workers}),
        "engine": engine,
        "voices": {"allow": ["bench"]},
        "session": {"max_s": options.seconds + ROOM_S, "max_ahead_s": 5, "warn_s": 0},
        "log": {"level": "warning"},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@contextmanager
def serve(config: Path) -> Iterator[tuple[int, str]]:
    """`personaplex serve`, its process and address. It ends with the context."""
    command = [sys.executable, "-c", "from core.cli.main import main; main()", "serve", "--config", str(config)]
    log = config.parent / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(  # noqa: S603 - our own command
            command, stdout=output, stderr=output, cwd=Path(__file__).parent.parent
        ) as process,
    ):
        try:
            until = time.monotonic() + BOOT_S
            while not (rest := log.read_text().partition("serves at ")[2].split()):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"The server did not start:\n{log.read_text()}")
                time.sleep(0.2)
            yield process.pid, rest[0]
        finally:
            process.terminate()


async def measure(pid: int, address: str, callers: int, seconds: float) -> Run:
    """Call with so many callers."""

    def probe() -> dict[str, Any]:
        with urllib.request.urlopen(f"{address}/probe", timeout=30) as response:  # noqa: S310 - our own server
            found: dict[str, Any] = json.load(response)
            return found

    await asyncio.to_thread(probe)
    load = Load(callers, seconds, stagger_s=START_S / callers)
    before, begun = processes(pid), time.monotonic()
    calling = asyncio.create_task(run_load(address, synthetic_speech(10), load, CallOptions({})))
    await asyncio.wait([calling], timeout=START_S + seconds / 2)
    amid = await asyncio.to_thread(processes, pid)
    report = await calling
    after, passed = processes(pid), time.monotonic() - begun
    late = await asyncio.to_thread(probe)
    return Run(
        report=report,
        cores=(sum(one.cpu_s for one in after) - sum(one.cpu_s for one in before)) / passed,
        memory=sum(one.memory for one in amid),
        loop_lag_p99_ms=late["loop_lag_p99_ms"],
        loop_lag_max_ms=late["loop_lag_max_ms"],
        tree=lines(amid),
    )


def row(run: Run) -> list[str]:
    """A line of the table."""
    report, delay = run.report, run.report.delay_ms
    return [
        str(report.callers),
        str(report.held),
        *([f"{delay.p50:.1f}", f"{delay.p99:.1f}"] if delay else ["-"] * 2),
        str(report.gaps),
        str(report.dropped),
        f"{run.cores:.2f}",
        f"{run.memory / 2**20:.0f}",
        f"{run.loop_lag_p99_ms:.1f}",
        f"{run.loop_lag_max_ms:.1f}",
        f"{report.own_cpu:.2f}",
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--callers", type=int, nargs="+", default=CALLERS)
    parser.add_argument("--seconds", type=float, default=60, help="how long all talk at once")
    parser.add_argument("--wait", type=float, default=5.0, help="how long it serves, encoding voices, before a call")
    parser.add_argument("--workers", help="server.workers: auto or a number; without it the setting's default")
    parser.add_argument("--slots", type=int, help="engine.slots; without it auto")
    parser.add_argument("--nano", action="store_true", help="the tiny model that comes along, on the CPU")
    parser.add_argument("--json", type=Path, help="write everything there; default: FOLDER/many_callers.json")
    options = parser.parse_args()
    options.folder = options.folder.absolute()
    if options.workers is not None and options.workers != "auto":
        options.workers = int(options.workers)
    if not options.nano and not (options.folder / "checkpoint" / MOSHI_NAME).exists():
        command = "from benchmarks.loading import write_checkpoint; from pathlib import Path; import sys; "
        command += "write_checkpoint(Path(sys.argv[1]))"  # in a process of its own, which gives the card back
        subprocess.run([sys.executable, "-c", command, str(options.folder / "checkpoint")], check=True)  # noqa: S603
    runs: list[Run] = []
    with serve(write_settings(options.folder, options)) as (pid, address):
        time.sleep(options.wait)
        first = asyncio.run(measure(pid, address, 1, WARM_UP_S)).report  # its prompt is read as no later one is
        took = f"{first.handshake_ms.max:.0f} ms" if first.handshake_ms else "none"
        print(f"first handshake, {options.wait:g} s after the start: {took}")
        print(" ".join(f"{name:>10}" for name in COLUMNS), flush=True)
        for callers in options.callers:
            runs.append(asyncio.run(measure(pid, address, callers, options.seconds)))
            print(" ".join(f"{cell:>10}" for cell in row(runs[-1])), flush=True)
            for problem, count in runs[-1].report.errors.items():
                print(f"           {count} failed: {problem}")
        print("\nThe server's processes with the most callers:", *runs[-1].tree, sep="\n")
    target = options.json or options.folder / "many_callers.json"
    target.write_text(json.dumps([asdict(run) for run in runs], indent=1))


if __name__ == "__main__":
    main()
