"""Call the plugins' implementations of a hook, one by one, and say what one raised."""

import inspect
import traceback
from pathlib import Path
from typing import Any

import pluggy
from pluggy import HookImpl

from core.errors import PersonaplexError
from core.events import PluginFailed
from core.settings.log import get_logger

FAULTS = (Exception, SystemExit)
"""What a plugin may raise without ending the service. Being cancelled is not the plugin's doing and goes through."""


def call(hook: HookImpl, **arguments: Any) -> Any:
    """What the implementation gives, called with those of `arguments` that it names; perhaps awaitable."""
    return hook.function(*(arguments[name] for name in hook.argnames))


def call_sync(hook: HookImpl, **arguments: Any) -> Any:
    """The same for hooks that cannot be async; raises TypeError when this one is."""
    answer = call(hook, **arguments)
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError("this hook cannot be async")
    return answer


async def ask(hook: HookImpl, **arguments: Any) -> Any:
    """The same for hooks that may be async: what it gives is awaited when that must be."""
    answer = call(hook, **arguments)
    return await answer if inspect.isawaitable(answer) else answer


def hook_name(hook: HookImpl) -> str:
    """The hook that this is an implementation of."""
    return str(getattr(hook.function, "__name__", "?"))


def describe(error: BaseException) -> str:
    """An error as a person may read it."""
    return str(error) if isinstance(error, PersonaplexError) else f"{type(error).__name__}: {error}"


def place(error: BaseException) -> str:
    """The file and line where an error was raised, such as `gain.py:7`."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


class Hooks:
    """The plugins' implementations of each hook, in the order in which they are asked, and what is wrong with them."""

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self.manager = manager
        self._reported: set[tuple[str, ...]] = set()
        self._log = get_logger("plugins")

    def of(self, name: str) -> list[HookImpl]:
        """The implementations of a hook, the first to be asked first."""
        return list(reversed(getattr(self.manager.hook, name).get_hookimpls()))

    def tell(self, name: str, **arguments: Any) -> None:
        """Call every implementation of a hook that only listens. What one raises is logged, the first time."""
        for hook in self.of(name):
            try:
                call_sync(hook, **arguments)
            except FAULTS as error:
                if self._first(hook.plugin_name, name, type(arguments["event"]).__name__, type(error).__name__):
                    self.log_fault(hook, error)
                if name != "service_event":  # whoever listens badly is not told of it without end
                    self._tell_of(hook, error)

    def sentences(self, name: str) -> list[str]:
        """What every implementation of a hook has to say. One that fails is left out."""
        found: list[str] = []
        for hook in self.of(name):
            try:
                given = call_sync(hook)
                if isinstance(given, str):
                    raise TypeError("gave one text, not a list of sentences")
                found.extend(str(sentence) for sentence in given)
            except FAULTS as error:
                self.fault(hook, error)
        return found

    def report(self, hook: HookImpl, problem: str) -> None:
        """Log what is wrong with an answer, the first time."""
        name = hook_name(hook)
        if self._first(hook.plugin_name, name, problem):
            self._log.error("plugin answered wrongly", plugin=hook.plugin_name, hook=name, problem=problem)

    def fault(self, hook: HookImpl, error: BaseException, secret: bool = False) -> str:
        """Log what a plugin raised, and tell the plugins; its name. `secret`: as in `log_fault`."""
        self.log_fault(hook, error, secret)
        self._tell_of(hook, error)
        return hook.plugin_name

    def log_fault(self, hook: HookImpl, error: BaseException, secret: bool = False) -> None:
        """Log what a plugin raised; with `secret` only its type and place, since its text may hold a password."""
        what = type(error).__name__ if secret else describe(error)
        self._log.error("plugin failed", plugin=hook.plugin_name, hook=hook_name(hook), error=what, at=place(error))

    def _tell_of(self, hook: HookImpl, error: BaseException) -> None:
        self.tell("service_event", event=PluginFailed(hook.plugin_name, hook_name(hook), type(error).__name__))

    def _first(self, *what: str) -> bool:
        if what in self._reported:
            return False
        self._reported.add(what)
        return True
