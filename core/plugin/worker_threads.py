"""Threads for work that blocks, of which one that never returns costs one thread, and neither the others nor the exit.

The standard library's pools lose a thread for good to work that hangs, and join it when the process ends. These are
daemon threads, made when there is work and gone when there is none, so a pool needs no closing.
"""

import asyncio
import contextlib
import contextvars
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from core.errors import PluginError
from core.plugin.foreign_code import foreign_code

IDLE_S = 10.0
"""A thread that has had no work for this long ends."""

_Result = TypeVar("_Result")


class HangingError(PluginError):
    """Work has not returned in the time that it may take at most. Its thread may still be running it."""


@dataclass(eq=False)
class Job(Generic[_Result]):
    """One piece of work on its way through a pool."""

    work: Callable[[], _Result]
    limit_s: float
    on_hanging: "Callable[[Job[Any]], None]"
    outcome: asyncio.Future[_Result]
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    began: float = 0.0
    """When a thread began it, by `time.monotonic`; 0 before."""
    finished: bool = False
    replaced: bool = False
    """Whether another thread has taken the place of the one that runs it."""
    timer: asyncio.TimerHandle | None = None

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.began if self.began else 0.0


class WorkerThreads:
    """At most `size` threads. One whose work takes longer than `replace_s` no longer counts: another takes its place.

    `run` belongs to event loops; threads of one pool may serve several.
    """

    def __init__(self, name: str, size: int, replace_s: float = math.inf) -> None:
        self._name, self._size, self._replace_s = name, size, replace_s
        self._jobs: SimpleQueue[Job[Any]] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        """Those that count, without the replaced ones."""
        self._spare = 0
        """Threads without work less jobs without a thread."""

    async def run(
        self,
        work: Callable[[], _Result],
        limit_s: float = math.inf,
        on_hanging: Callable[[Job[Any]], None] = lambda _: None,
    ) -> _Result:
        """What `work` returns, which sees the context variables of its caller.

        Raises the Exception that it raises, CrashError in place of anything else, and HangingError when it has been
        running for `limit_s` seconds. `on_hanging` is called then, also where the caller has been cancelled meanwhile.
        """
        outcome: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        job = Job(work, limit_s, on_hanging, outcome)
        with self._lock:
            self._jobs.put(job)
            self._spare -= 1
            self._add_threads()
        self._watch(job)
        return await outcome

    def _add_threads(self) -> None:
        """Start a thread for each job that has none. Called with the lock held."""
        while self._spare < 0 and self._threads < self._size:
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()
            self._threads += 1
            self._spare += 1

    def _serve(self) -> None:
        """What each thread does."""
        while True:
            try:
                job = self._jobs.get(timeout=IDLE_S)
            except Empty:
                with self._lock:
                    if self._spare > 0:  # no job is on its way to this thread
                        self._spare -= 1
                        self._threads -= 1
                        return
                continue
            if not job.outcome.cancelled():
                _run(job)
            with self._lock:
                if job.replaced:
                    return
                self._spare += 1
            del job  # what it holds must not live on until the next one comes

    def _watch(self, job: Job[Any]) -> None:
        """Look after a job when the next of its times is up."""
        left = [at - job.seconds for at in (self._replace_s, job.limit_s) if job.seconds < at < math.inf]
        if left:
            job.timer = job.outcome.get_loop().call_later(min(left), self._look_after, job)

    def _look_after(self, job: Job[Any]) -> None:
        with self._lock:
            if job.finished or (job.outcome.cancelled() and not job.began):
                return
            if job.seconds >= self._replace_s and not job.replaced:
                job.replaced = True
                self._threads -= 1
                self._add_threads()
        if job.seconds >= job.limit_s:
            job.on_hanging(job)
            if not job.outcome.done():
                job.outcome.set_exception(HangingError(f"has not returned for {job.seconds:.0f} s"))
        self._watch(job)


def _run(job: Job[Any]) -> None:
    """Do the work, and hand its outcome to the event loop, if that still runs."""
    job.began = time.monotonic()
    result, error = None, None
    try:
        with foreign_code():
            result = job.context.run(job.work)
    except Exception as raised:
        error = raised
    job.finished = True
    with contextlib.suppress(RuntimeError):  # the event loop has been closed
        job.outcome.get_loop().call_soon_threadsafe(_settle, job, result, error)


def _settle(job: Job[Any], result: Any, error: Exception | None) -> None:
    if job.timer is not None:
        job.timer.cancel()
    if job.outcome.done():
        return
    if error is None:
        job.outcome.set_result(result)
    else:
        job.outcome.set_exception(error)
