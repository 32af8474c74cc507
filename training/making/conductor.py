"""Starts what is planned, tells how it goes, packs what there is again and again, and leaves nothing running."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from training.bank_folder import is_mixed
from training.making.packed import pack_all
from training.making.plan import Job, Machine, Need, Request, is_there, plan
from training.making.processes import Running, last_lines
from training.shards import hours_in, teacher_of

TOLD_EVERY = 20.0
"""Seconds between two accounts of how it goes."""
LOOKED_EVERY = 0.3
"""Seconds between two looks at the processes."""
MAIN = "lm"
"""The job without which a run has failed."""

Report = Callable[[str], None]


class Conductor:
    """One run. `stopped` says whether it is to end before its time."""

    def __init__(
        self, folder: Path, request: Request, machine: Machine, report: Report, stopped: Callable[[], bool]
    ) -> None:
        self._folder, self._request, self._report, self._stopped = folder, request, report, stopped
        self._waiting = list(plan(machine, request))
        self._running: list[Running] = []
        self._ended: dict[str, int] = {}
        self._told, self._packed = 0.0, 0.0

    def run(self) -> int:
        """Make it; returns the exit code: 0 when the language model has learned to the end."""
        try:
            while not self._is_over():
                self._start_what_is_due()
                self._look()
                self._leave_room()
                now = self._now()
                if now >= self._told + TOLD_EVERY:
                    self._told = now
                    self._tell(now)
                if now >= self._packed + self._request.packed_every:
                    self._packed = now
                    self._pack()
                time.sleep(LOOKED_EVERY)
            self._look()
        finally:
            for running in list(self._running):
                self._end(running)
            self._tell(self._now())
            self._pack()
        if MAIN not in self._ended:
            self._report("FAILED: the language model has not learned to the end.")
        elif self._ended[MAIN] != 0:
            self._report("FAILED: the language model.")
        return int(self._ended.get(MAIN) != 0)

    def _now(self) -> float:
        return time.monotonic() - self._request.began

    def _is_over(self) -> bool:
        """When there is no time left, or nobody learns any more; at once when the language model has failed or never
        can begin."""
        if self._stopped() or self._now() >= self._request.latest or self._ended.get(MAIN):
            return True
        jobs = [*self._waiting, *(running.job for running in self._running)]
        if any(job.needs == "banks" for job in self._waiting) and not self._may_have("banks", jobs):
            self._report("Nobody makes banks any more, and the language model waits for some.")
            return True
        return not any(job.learns for job in jobs)

    def _may_have(self, need: Need, jobs: list[Job]) -> bool:
        """Whether something is there, or some of the jobs that are left will make it out of what there may be."""
        made = any(job.makes == need and (not job.needs or self._may_have(job.needs, jobs)) for job in jobs)
        return made or is_there(need, self._folder, self._request)

    def _start_what_is_due(self) -> None:
        now = self._now()
        due = [job for job in self._waiting if now >= job.begins]
        there = {need: is_there(need, self._folder, self._request) for need in {job.needs for job in due}}
        for job in due:
            if not there[job.needs]:
                continue
            self._waiting.remove(job)
            minutes = self._request.minutes(now)
            if now < job.ends and (minutes > 0 or not job.learns):
                self._running.append(Running(job, self._folder, self._folder / "source", minutes))
                where = f" on {', '.join(job.gpus)}" if job.gpus else ""
                self._report(f"{now:5.0f} s  {job.name} begins{where}")

    def _look(self) -> None:
        """What has ended is told of, with the end of its log if it has failed; what has had its time is ended."""
        now = self._now()
        for running in list(self._running):
            job, code = running.job, running.code()
            if code is not None:
                running.kill()  # Others of its processes, and what it may have left.
                self._running.remove(running)
                first = job.name not in self._ended
                self._ended[job.name] = code
                if code:
                    self._report(f"{now:5.0f} s  FAILED: {job.name}, exit code {code}; the end of {running.log}:")
                    for line in running.last_lines():
                        self._report(f"        | {line}")
                    if first and job.makes:
                        # It goes on with what is not made yet, and on a GPU that was full there may be room by now.
                        self._waiting.append(job)
                else:
                    self._report(f"{now:5.0f} s  {job.name} is done")
            elif now >= job.ends:
                self._end(running)

    def _leave_room(self) -> None:
        """End what speaks when the disk fills up: there is speech enough by then, and weights must be written."""
        free = shutil.disk_usage(self._folder).free
        if free >= self._request.least_free:
            return
        self._waiting = [job for job in self._waiting if job.makes != "speech"]
        for running in [running for running in self._running if running.job.makes == "speech"]:
            self._end(running, f": {free / 1e9:.1f} GB of the disk are left")

    def _end(self, running: Running, why: str = "") -> None:
        """Kill a job, and tell of it."""
        running.kill()
        self._running.remove(running)
        self._report(f"{self._now():5.0f} s  {running.job.name} was ended{why}")

    def _tell(self, now: float) -> None:
        banks = [is_mixed(path) for path in (self._folder / "banks").glob("*.pt")]
        spoken = ", ".join(f"{kind} {hours:.2f} h" for kind, hours in sorted(hours_of(self._folder / "speech").items()))
        self._report(f"{now:5.0f} s  {len(banks)} banks, {sum(banks)} mixed; speech: {spoken or 'none yet'}")
        for name in ("lm", "codec"):
            for line in last_lines(self._folder / "logs" / f"{name}.log", 1):
                self._report(f"         {name}: {line[:200]}")

    def _pack(self) -> None:
        """A failure is told of and is not the end: the next time it may be well."""
        try:
            packed = pack_all(self._folder, Path(self._request.into))
            self._report(f"{self._now():5.0f} s  packed: {packed} in {self._request.into}")
        except Exception as error:
            self._report(f"{self._now():5.0f} s  FAILED: packing ({error!r})")


def hours_of(folder: Path) -> dict[str, float]:
    """Hours of speech in a folder of whole shards, by teacher."""
    found: dict[str, float] = {}
    for path in folder.glob("*.json"):
        teacher = teacher_of(path)
        found[teacher] = found.get(teacher, 0.0) + hours_in(path)
    return found
