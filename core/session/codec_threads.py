"""The threads that code audio and run transforms for all calls of a service, and what it means where one hangs."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from core.errors import EngineError
from core.plugin.host import PluginHost
from core.plugin.transforms import Chain
from core.plugin.worker_threads import HangingError, Job, WorkerThreads
from core.settings.log import get_logger

CODING_S = 1.0
"""A thread that codes and transforms a frame for longer than this is lost; another takes its place."""
HANGING_S = 10.0
"""A frame whose coding and transforms take longer than this will not come; an engine's step has as long."""

_Result = TypeVar("_Result")
_log = get_logger("session")


class CodecThreads:
    """Runs what would block the event loop. To decode a packet of 20 ms takes 30 us, less than the hop to a thread; a
    frame's transforms and its encoding take from half a millisecond on, and one hop serves for both."""

    def __init__(self) -> None:
        self._threads = WorkerThreads("audio", min(8, os.cpu_count() or 1), replace_s=CODING_S)

    async def run(self, work: Callable[..., _Result], *arguments: Any) -> _Result:
        """What `work` returns. Raises what it raises, and EngineError when it does not return."""
        return await self._run(partial(work, *arguments), lambda _job: _log.error("the audio codec hangs"), str)

    async def run_chain(self, chain: Chain, host: PluginHost, work: Callable[..., _Result], *arguments: Any) -> _Result:
        """The same for work in which `chain` runs: where it is a transform that hangs, `host` is told whose."""

        def report(job: Job[Any]) -> None:
            if chain.running:
                host.report_hanging(chain.running, job)
            else:
                _log.error("the audio codec hangs")

        return await self._run(partial(work, *arguments), report, lambda: chain.running)

    async def _run(
        self, work: Callable[[], _Result], report: Callable[[Job[Any]], None], running: Callable[[], str]
    ) -> _Result:
        try:
            return await self._threads.run(work, HANGING_S, report)
        except HangingError:
            culprit = f"the plugin {running()}" if running() else "the audio codec"
            raise EngineError(f"The call cannot go on: {culprit} does not answer. Call again.") from None
