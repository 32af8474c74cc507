"""What hears a session on a plugin's behalf: each handler with a queue and a task of its own, beside the call."""

import asyncio
import inspect
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from core.errors import PluginError
from core.events import HandlerFailed, SessionEnded
from core.plugin.acting import SessionControl, SessionHandler
from core.plugin.foreign_code import original
from core.plugin.hook_calls import HookCaller, line_of
from core.plugin.worker_threads import HangingError
from core.settings.log import get_logger

METHODS = ("caller_frame", "agent_frame", "agent_text", "caller_text", "event", "message", "close")
"""What a handler may have, by name; `core.plugin.acting.SessionHandler` documents each."""
MOST_WAITING = 400
"""Calls of one handler that may wait: ten seconds of both sides' frames and of what happens with them."""
MOST_MESSAGES = 50
"""Of these, messages of the client: who sends more must not have the handler left out."""
LIMIT_S = 10.0
"""How long a method may take."""
CLOSE_S = 4.0
"""How long a handler may take for what is left, and for its `close`. A service that stops waits a little longer."""
_log = get_logger("plugins")


class Handler:
    """Calls the methods of one plugin's handler in one session, one after another. A handler that fails hears nothing
    more until its `close`; it fails when a method raises or does not return in time, or when too many calls wait.

    Belongs to the event loop. The log names what a handler raised by its type and line alone: the text may hold what
    was said.
    """

    def __init__(
        self, plugin: str, handler: object, hooks: HookCaller, on_failure: Callable[[HandlerFailed], None]
    ) -> None:
        """Raises PluginError for an object that is no handler. `on_failure` is called at most once."""
        self.plugin = plugin
        self._methods = {name: method for name in METHODS if (method := _method(handler, name)) is not None}
        if not self._methods and not isinstance(handler, SessionHandler):
            kind = type(handler).__name__
            raise PluginError(f"open_session returned {kind}, which has no method of a SessionHandler")
        self._hooks = hooks
        self._on_failure = on_failure
        self._waiting: deque[tuple[str, tuple[Any, ...]]] = deque()
        self._changed = asyncio.Event()
        self._closing = self._failed = False
        self._task = asyncio.create_task(self._run(), name=f"handler of {plugin}")

    def hears(self, method: str) -> bool:
        """Whether `put` does anything for this method."""
        return method in self._methods and not self._closing and not self._failed

    def put(self, method: str, *arguments: Any) -> None:
        """Have a method called, if the handler has it. Never blocks."""
        if not self.hears(method):
            return
        if len(self._waiting) >= MOST_WAITING:
            self._fail(f"fell behind: {MOST_WAITING} calls of its methods were waiting")
            return
        self._waiting.append((method, arguments))
        self._changed.set()

    @property
    def overwhelmed(self) -> bool:
        """Whether so many messages of the client wait that no more may come."""
        return sum(method == "message" for method, _ in self._waiting) >= MOST_MESSAGES

    def close(self, ended: SessionEnded) -> None:
        """Have `close` called, after all that waits; `closed` says when it has returned. A handler that was left out is
        closed too, since it may have begun what only it can end."""
        if "close" in self._methods:
            self._waiting.append(("close", (ended,)))
        self._closing = True
        self._changed.set()
        if self._failed and self._waiting:
            self._task = asyncio.create_task(self._run(), name=self._task.get_name())
        asyncio.get_running_loop().call_later(CLOSE_S, self._give_up)

    async def closed(self) -> None:
        """Return when nothing of the handler runs any more, or when it is given up."""
        await asyncio.wait([self._task], timeout=CLOSE_S)

    async def _run(self) -> None:
        while True:
            while self._waiting:
                name, arguments = self._waiting.popleft()
                try:
                    await self._call(name, arguments)
                except Exception as error:  # whatever a plugin raises ends only its handler
                    self._fail(_reason(name, error))
            if self._closing or self._failed:
                return
            self._changed.clear()
            await self._changed.wait()

    async def _call(self, name: str, arguments: tuple[Any, ...]) -> None:
        method = self._methods[name]
        is_async = inspect.iscoroutinefunction(method)
        result = await self._hooks.run(self.plugin, name, partial(method, *arguments), is_async, LIMIT_S)
        if inspect.isgenerator(result) or inspect.isasyncgen(result):
            raise PluginError(f"{name} is a generator, of which nothing runs")

    def _give_up(self) -> None:
        if not self._task.done():
            self._fail(f"has not closed in {CLOSE_S:g} s")

    def _fail(self, reason: str) -> None:
        _log.error("handler left out", plugin=self.plugin, reason=reason)
        if self._task is not asyncio.current_task():
            self._task.cancel()
        if self._failed:  # it has raised when it was cancelled for the first failure, or has not closed after it
            return
        self._failed = True
        self._waiting = deque(call for call in self._waiting if call[0] == "close")
        self._on_failure(HandlerFailed(self.plugin, reason))


def open_handlers(
    hooks: HookCaller, control: Callable[[str], SessionControl], on_failure: Callable[[HandlerFailed], None]
) -> list[Handler]:
    """The handlers of one session. `control` makes the control of a plugin; `on_failure` is told of each that fails."""
    handlers: list[Handler] = []
    for hook in hooks.implementations("open_session"):
        try:
            handler = hooks.call_on_loop(hook, control=control(hook.plugin_name))
            if handler is not None:
                handlers.append(Handler(hook.plugin_name, handler, hooks, on_failure))
        except Exception as error:  # whatever a plugin raises
            hooks.log_failure(hook, error)
            on_failure(HandlerFailed(hook.plugin_name, _reason("open_session", error)))
    return handlers


def _method(handler: object, name: str) -> Callable[..., Any] | None:
    """A handler's method; None where it has none, or only the empty one of SessionHandler."""
    method = getattr(handler, name, None)
    if method is None or getattr(method, "__func__", None) is getattr(SessionHandler, name):
        return None
    if not callable(method):
        raise PluginError(f"{name} is {type(method).__name__}, not a function")
    return method  # type: ignore[no-any-return] # of any signature


def _reason(name: str, error: Exception) -> str:
    if isinstance(error, HangingError):
        return f"{name} {error}"
    if isinstance(error, PluginError):
        return str(error)
    at = line_of(error)
    return f"{name} raised {type(original(error)).__name__}" + (f" ({at})" if at else "")
