"""Call the plugins' implementations of a hook one by one, and report what any of them raises."""

import inspect
import traceback
from pathlib import Path
from typing import Any

import pluggy
from pluggy import HookImpl

from core.errors import PersonaplexError
from core.events import PluginFailed
from core.settings.log import get_logger

PLUGIN_ERRORS = (Exception, SystemExit)
"""What a plugin may raise without ending the service. Cancellation is not the plugin's doing and passes through."""


def call_sync(hook: HookImpl, **arguments: Any) -> Any:
    """Call an implementation that must not be async, with those of `arguments` that it names.

    Raises TypeError when it is async, and whatever the plugin raises.
    """
    result = _call(hook, arguments)
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError("this hook cannot be async")
    return result


async def call_async(hook: HookImpl, **arguments: Any) -> Any:
    """Call an implementation that may be async, with those of `arguments` that it names, and await an awaitable result.

    Raises whatever the plugin raises.
    """
    result = _call(hook, arguments)
    return await result if inspect.isawaitable(result) else result


def describe_error(error: BaseException) -> str:
    """The text of an error: one of this project speaks for itself, any other is preceded by its type."""
    return str(error) if isinstance(error, PersonaplexError) else f"{type(error).__name__}: {error}"


class HookCaller:
    """The plugins' implementations of each hook, and one place to report their failures.

    A failure is logged, and every plugin learns of it by a PluginFailed event.
    """

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._manager = manager
        self._reported: set[tuple[str, ...]] = set()
        self._log = get_logger("plugins")

    def implementations(self, hook_name: str) -> list[HookImpl]:
        """The implementations of a hook in the order in which they are called."""
        return list(reversed(getattr(self._manager.hook, hook_name).get_hookimpls()))

    def notify(self, hook_name: str, **arguments: Any) -> None:
        """Call every implementation of an event hook. What one raises is logged the first time it happens.

        A failure inside `service_event` sends no further PluginFailed event, which could fail in the same way and
        never end.
        """
        for hook in self.implementations(hook_name):
            try:
                call_sync(hook, **arguments)
            except PLUGIN_ERRORS as error:
                event = type(arguments["event"]).__name__
                if self._is_first(hook.plugin_name, hook_name, event, type(error).__name__):
                    self.log_failure(hook, error)
                if hook_name != "service_event":
                    self._send_plugin_failed(hook, error)

    def collect_sentences(self, hook_name: str) -> list[str]:
        """The sentences of all implementations of `notices` or `problems`. An implementation that fails is skipped."""
        sentences: list[str] = []
        for hook in self.implementations(hook_name):
            try:
                result = call_sync(hook)
                if isinstance(result, str):
                    raise TypeError("returned one text, not a list of sentences")
                sentences.extend(str(sentence) for sentence in result)
            except PLUGIN_ERRORS as error:
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

    def log_failure(self, hook: HookImpl, error: BaseException, *, hide_text: bool = False) -> None:
        """Log what an implementation raised; with `hide_text` only its type and line, since it may hold a password."""
        text = type(error).__name__ if hide_text else describe_error(error)
        self._log.error("plugin failed", plugin=hook.plugin_name, hook=_hook_name(hook), error=text, at=_line_of(error))

    def _send_plugin_failed(self, hook: HookImpl, error: BaseException) -> None:
        self.notify("service_event", event=PluginFailed(hook.plugin_name, _hook_name(hook), type(error).__name__))

    def _is_first(self, *failure: str) -> bool:
        """Whether this failure has not been reported before; from then on it has."""
        if failure in self._reported:
            return False
        self._reported.add(failure)
        return True


def _call(hook: HookImpl, arguments: dict[str, Any]) -> Any:
    return hook.function(*(arguments[name] for name in hook.argnames))


def _hook_name(hook: HookImpl) -> str:
    return str(getattr(hook.function, "__name__", "?"))


def _line_of(error: BaseException) -> str:
    """The file and line where an error was raised, such as `gain.py:7`."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
