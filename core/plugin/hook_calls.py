"""Call the plugins' implementations of a hook one by one, and report what any of them does wrong.

An `async` implementation, and one of a hook that must not be async, runs on the event loop, which waits for it together
with every call; one that keeps it waiting is named in the log. A plain function that implements a hook which may be
async may block, so it runs in a thread of its plugin.
"""

import asyncio
import inspect
import math
import traceback
from collections.abc import Awaitable, Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from types import coroutine
from typing import Any

import pluggy
from pluggy import HookImpl

from core.errors import PersonaplexError
from core.events import PluginFailed
from core.plugin.foreign_code import foreign_code, original
from core.plugin.worker_threads import HangingError, Job, WorkerThreads
from core.settings.log import get_logger

SLOW_S = 0.1
"""An implementation that runs on the event loop and takes longer in one go makes a frame of every call late."""
THREADS_PER_PLUGIN = 16
LIMIT_S = 10.0
"""How long an implementation may take, unless callers wait for longer (`session.auth_s`)."""
SHUTDOWN_LIMIT_S = 12.0
"""The same for `shutdown`, which may have files to write."""
LIMITS_S = {"startup": math.inf, "shutdown": SHUTDOWN_LIMIT_S}
"""The limits of hooks that have one of their own. Whoever starts a service sees that it does not start."""


def describe_error(error: BaseException) -> str:
    """The text of an error: one of this project speaks for itself, any other is preceded by its type."""
    error = original(error)
    return str(error) if isinstance(error, PersonaplexError) else f"{type(error).__name__}: {error}"


class PluginThreads:
    """The threads of each plugin, and which plugins hang. Hosts that share plugins share them too.

    Each plugin has threads of its own, so that one that hangs takes none from the others.
    """

    def __init__(self) -> None:
        self._threads: dict[str, WorkerThreads] = {}
        self._hanging: list[tuple[str, str, Job[Any]]] = []
        """Plugin, what hangs in it, and the work that has not returned."""

    def of(self, plugin: str) -> WorkerThreads:
        """The threads of a plugin."""
        return self._threads.setdefault(plugin, WorkerThreads(f"plugin {plugin}", THREADS_PER_PLUGIN))

    async def run(self, plugin: str, what: str, work: Callable[[], Any], limit_s: float) -> Any:
        """What `work` returns, the plugin's hook or method `what`, in a thread of that plugin.

        Raises HangingError when it has not returned within its limit, or when every thread of the plugin hangs.
        """
        hanging = self.hanging(plugin)
        if hanging >= THREADS_PER_PLUGIN:
            raise HangingError(f"is not called, since {hanging} calls of this plugin have not returned")
        return await self.of(plugin).run(work, limit_s, partial(self.report_hanging, plugin, what))

    def report_hanging(self, plugin: str, what: str, job: Job[Any]) -> None:
        """Log that a plugin's hook, or the `process` of its transform, has not returned, and remember it."""
        self._hanging.append((plugin, what, job))
        get_logger("plugins").error("plugin hangs", plugin=plugin, hook=what, seconds=round(job.seconds))

    def hanging(self, plugin: str, what: str = "") -> int:
        """How many calls of a plugin's hooks hang now, or of `what` alone where that is given.

        A hanging `process` holds a thread of the session's and none of the plugin's own, so it is no hook.
        """
        hanging = [one[1] for one in self._now_hanging() if one[0] == plugin]
        return len([one for one in hanging if (one == what if what else one != "process")])

    def problems(self) -> list[str]:
        """A sentence about each hook that hangs now."""
        jobs: dict[tuple[str, str], list[Job[Any]]] = {}
        for plugin, what, job in self._now_hanging():
            jobs.setdefault((plugin, what), []).append(job)
        return [
            f"The plugin {plugin} hangs: {what} has not returned for {max(job.seconds for job in stuck):.0f} s, in "
            f"{len(stuck)} {'call' if len(stuck) == 1 else 'calls'}. Correct the plugin and restart the service."
            for (plugin, what), stuck in jobs.items()
        ]

    def _now_hanging(self) -> list[tuple[str, str, Job[Any]]]:
        self._hanging = [one for one in self._hanging if not one[2].finished]
        return self._hanging


class HookCaller:
    """The plugins' implementations of each hook, and one place to report their failures.

    A failure is logged, and every plugin learns of it by a PluginFailed event.
    """

    def __init__(self, manager: pluggy.PluginManager, threads: PluginThreads, patience_s: float = 0.0) -> None:
        """`patience_s` is how long callers wait for implementations; those may take as long, and LIMIT_S at least."""
        self.threads = threads
        self._limit_s = max(LIMIT_S, patience_s)
        self._manager = manager
        self._reported: set[tuple[str, ...]] = set()
        self._log = get_logger("plugins")

    def implementations(self, hook_name: str) -> list[HookImpl]:
        """The implementations of a hook in the order in which they are called."""
        return list(reversed(getattr(self._manager.hook, hook_name).get_hookimpls()))

    def call_on_loop(self, hook: HookImpl, **arguments: Any) -> Any:
        """Call an implementation that must not be async, with those of `arguments` that it names.

        Raises TypeError when it is async, CrashError, and every Exception that the plugin raises.
        """
        began = perf_counter()
        with foreign_code():
            result = _call(hook, arguments)
        self._watch_loop(hook.plugin_name, _hook_name(hook), perf_counter() - began)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise TypeError("this hook cannot be async")
        return result

    async def call(self, hook: HookImpl, **arguments: Any) -> Any:
        """Call an implementation that may be async, with those of `arguments` that it names, and await the result.

        Raises CrashError, HangingError when it has not returned within its limit, and every Exception that the plugin
        raises.
        """
        name, work = _hook_name(hook), partial(_call, hook, arguments)
        limit_s = LIMITS_S.get(name, self._limit_s)
        return await self.run(hook.plugin_name, name, work, inspect.iscoroutinefunction(hook.function), limit_s)

    async def run(self, plugin: str, what: str, work: Callable[[], Any], is_async: bool, limit_s: float) -> Any:
        """Run work of a plugin, its hook or method `what`: on the event loop where that is `async`, else in a thread.

        Raises as `call` does.
        """
        result = work() if is_async else await self.threads.run(plugin, what, work, limit_s)
        if not inspect.isawaitable(result):
            return result
        try:
            async with asyncio.timeout(None if math.isinf(limit_s) else limit_s) as limit:
                with foreign_code():
                    return await _timed(result, partial(self._watch_loop, plugin, what))
        except TimeoutError:
            if not limit.expired():
                raise
            raise HangingError(f"has not returned for {limit_s:.0f} s") from None

    def _watch_loop(self, plugin: str, what: str, seconds: float) -> None:
        """Name a hook or method that has kept the event loop waiting, the first time that it does."""
        if seconds > SLOW_S and self._is_first(plugin, what, "slow"):
            self._log.warning(
                "plugin keeps every call waiting: hand slow work to a thread",
                plugin=plugin,
                hook=what,
                ms=round(seconds * 1000),
            )

    def notify(self, hook_name: str, **arguments: Any) -> None:
        """Call every implementation of an event hook. What one raises is logged the first time it happens.

        A failure inside `service_event` sends no further PluginFailed event, which could fail in the same way and
        never end.
        """
        for hook in self.implementations(hook_name):
            try:
                self.call_on_loop(hook, **arguments)
            except Exception as error:  # whatever a plugin raises
                event = type(arguments["event"]).__name__
                if self._is_first(hook.plugin_name, hook_name, event, type(original(error)).__name__):
                    self.log_failure(hook, error)
                if hook_name != "service_event":
                    self._send_plugin_failed(hook, error)

    def collect_sentences(self, hook_name: str, **arguments: object) -> list[str]:
        """The sentences of all implementations of `notices` or `problems`. An implementation that fails is skipped."""
        sentences: list[str] = []
        for hook in self.implementations(hook_name):
            try:
                result = self.call_on_loop(hook, **arguments)
                if isinstance(result, str):
                    raise TypeError("returned one text, not a list of sentences")
                sentences.extend(str(sentence) for sentence in result)
            except Exception as error:  # whatever a plugin raises
                self.report_failure(hook, error)
        return sentences

    def report_invalid_result(self, hook: HookImpl, problem: str) -> None:
        """Log that an implementation returned something it must not, the first time it happens."""
        name = _hook_name(hook)
        if self._is_first(hook.plugin_name, name, problem):
            self._log.error("plugin returned an invalid result", plugin=hook.plugin_name, hook=name, problem=problem)

    def report_failure(self, hook: HookImpl, error: BaseException, *, hide_text: bool = False) -> None:
        """Log what an implementation raised, and send a PluginFailed event. `hide_text`: as in `log_failure`."""
        self.log_failure(hook, error, hide_text=hide_text)
        self._send_plugin_failed(hook, error)

    def report_first_failure(self, hook: HookImpl, error: BaseException) -> None:
        """As `report_failure`, without the error's text, and only the first of its kind: of a hook that strangers can
        have called as often as they like."""
        if self._is_first(hook.plugin_name, _hook_name(hook), type(original(error)).__name__):
            self.report_failure(hook, error, hide_text=True)

    def log_failure(self, hook: HookImpl, error: BaseException, *, hide_text: bool = False) -> None:
        """Log what an implementation raised; with `hide_text` only its type and line, since it may hold a password."""
        text = type(original(error)).__name__ if hide_text else describe_error(error)
        self._log.error("plugin failed", plugin=hook.plugin_name, hook=_hook_name(hook), error=text, at=line_of(error))

    def _send_plugin_failed(self, hook: HookImpl, error: BaseException) -> None:
        kind = type(original(error)).__name__
        self.notify("service_event", event=PluginFailed(hook.plugin_name, _hook_name(hook), kind))

    def _is_first(self, *failure: str) -> bool:
        """Whether this failure has not been reported before; from then on it has."""
        if failure in self._reported:
            return False
        self._reported.add(failure)
        return True


def _call(hook: HookImpl, arguments: dict[str, Any]) -> Any:
    """What the implementation returns. Items that it computes one by one are computed here, not where they are used."""
    result: Any = hook.function(*(arguments[name] for name in hook.argnames))
    lazy = isinstance(result, Iterator) and not inspect.isawaitable(result)
    return tuple(result) if lazy else result


@coroutine
def _timed(awaitable: Awaitable[Any], watch: Callable[[float], None]) -> Generator[Any, Any, Any]:
    """Await something, and tell `watch` how many seconds each of its steps keeps the event loop."""
    steps = _await(awaitable)
    resume = partial(steps.send, None)
    while True:
        began = perf_counter()
        try:
            waits_for = resume()
        except StopIteration as end:
            return end.value
        finally:
            watch(perf_counter() - began)
        try:
            resume = partial(steps.send, (yield waits_for))
        except BaseException as error:  # such as a cancellation, after which the plugin may have to clean up
            resume = partial(steps.throw, error)


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _hook_name(hook: HookImpl) -> str:
    return str(getattr(hook.function, "__name__", "?"))


def line_of(error: BaseException) -> str:
    """The file and line where an error was raised, such as `gain.py:7`."""
    frames = traceback.extract_tb(original(error).__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
