"""A stage as processes of a session of its own, with a log, which can be ended with all that they have started."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from training.making.plan import Job

TOLD = 12
"""Lines of a log that are told when its process fails."""
_SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of linux/prctl.h."""


class Running:
    """A job that was started. Its processes are killed when the one that started them dies, however it does."""

    def __init__(self, job: Job, folder: Path, source: Path, minutes: float) -> None:
        """Start it with the packages in `source`; `minutes` is for jobs that learn."""
        self.job = job
        self.log = folder / "logs" / f"{job.name}.log"
        arguments = [sys.executable, "-m", "training", "--folder", str(folder), *job.arguments]
        if job.gives_way:
            arguments = ["nice", "-n", "10", *arguments]
        if job.learns:
            arguments += ["--minutes", f"{minutes:.3f}"]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = surroundings(source) | {"OMP_NUM_THREADS": str(job.threads)}
        if job.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(job.gpus)
        dies_too = death_signal(signal.SIGKILL)
        self._processes: list[subprocess.Popen[bytes]] = []
        port = str(free_port())
        with self.log.open("ab") as log:
            for rank in range(job.ranks):
                # What `torchrun` would set; it gives each process a session that nobody can end as a whole.
                place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": job.ranks, "LOCAL_WORLD_SIZE": job.ranks}
                together = {name: str(value) for name, value in place.items()}
                together |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                self._processes.append(
                    subprocess.Popen(  # noqa: S603
                        arguments,
                        cwd=source,
                        env=environment | (together if job.ranks > 1 else {}),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                        preexec_fn=dies_too,
                    )
                )

    def code(self) -> int | None:
        """None while it runs, else its exit code: that of a process that has failed, if one has."""
        codes = [process.poll() for process in self._processes]
        failed = [code for code in codes if code]
        if failed:
            return failed[0]
        return None if None in codes else 0

    def kill(self) -> None:
        """End its processes and all that these have started, at once."""
        for process in self._processes:
            # A group outlives its leader, whose number is not given away before.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for process in self._processes:
            process.wait()

    def last_lines(self, count: int = TOLD) -> list[str]:
        """The end of its log."""
        return last_lines(self.log, count)


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log that are not empty; none where there is no log."""
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        lines = file.read().decode(errors="replace").splitlines()
    return [line for line in lines if line.strip()][-count:]


def surroundings(source: Path) -> dict[str, str]:
    """This process's environment, with the packages in `source` before all others."""
    others = [str(Path(entry).resolve()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    paths = os.pathsep.join([str(source), *others])
    return dict(os.environ) | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}


def death_signal(number: int) -> Callable[[], None]:
    """What a new process calls to be sent a signal when the one that started it dies (Linux)."""
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_SET_DEATH_SIGNAL, number)

    return ask


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it becomes true in so many seconds."""
    end = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < end:
        time.sleep(0.2)
    return true
