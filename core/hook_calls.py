"""Call one plugin's implementation of a hook, and say what it raised."""

import inspect
import traceback
from pathlib import Path
from typing import Any

from pluggy import HookImpl

from core.errors import PersonaplexError

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
