"""A plugin's control of one session: what it asks for is checked, and then done on the event loop."""

import math
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, get_args

import msgspec

from core.engine.speech_queue import check_sentence
from core.errors import ControlError, SayError, SessionOverError
from core.events import CallerText, SessionInfo
from core.plugin.acting import Line, Side
from core.plugin.personas import Persona
from core.plugin.server_messages import PluginMessage
from core.session.token_bucket import TokenBucket

if TYPE_CHECKING:
    from core.session.acting import Acting

MESSAGES_PER_S = 50
"""Messages to the client that one plugin may send in one session."""
MOST_MESSAGES = 100
"""So many may come at once."""
MAX_MESSAGE_BYTES = 16_384
MAX_TEXT = 2000
"""Characters of a caller's words that come together."""
MAX_SENTENCE = 500
"""Characters of what a caller is told when a plugin ends the call."""
WORD = re.compile(r"[a-z0-9_-]{1,64}")
"""What a type of message and a reason are written like."""
LOOP_S = 2.0
"""How long another thread waits for the event loop, which never takes so long unless something is wrong with it."""

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class Control:
    """See `core.plugin.acting.SessionControl`, which documents it."""

    def __init__(self, plugin: str, acting: "Acting") -> None:
        self._plugin = plugin
        self._acting = acting
        self._budget = TokenBucket(MESSAGES_PER_S, MOST_MESSAGES)
        self._state: dict[str, Any] = {}

    @property
    def info(self) -> SessionInfo:
        return self._acting.info

    @property
    def persona(self) -> Persona:
        return self._acting.persona

    @property
    def state(self) -> dict[str, Any]:
        return self._state

    @property
    def transcript(self) -> tuple[Line, ...]:
        return self._on_loop(lambda: self._acting.transcript)

    def say(self, text: str, interrupt: bool = False) -> None:
        check_sentence(text)
        try:
            self._on_loop(self._acting.say, self._plugin, text, bool(interrupt))
        except SessionOverError as error:  # the loop is closed
            raise SayError(str(error)) from None

    def hush(self) -> None:
        self._on_loop(self._acting.hush)

    def mute(self, side: Side, on: bool) -> None:
        if side not in get_args(Side):
            raise ControlError(f"There is no side {side!r}: mute the 'caller' or the 'agent'.")
        self._on_loop(self._acting.mute, self._plugin, side, bool(on))

    def tell(self, type: str, /, **data: Any) -> None:
        _check_word("The type of a message", type)
        if "type" in data:
            raise ControlError("A message has its type already: give the value another name.")
        try:
            encoded = msgspec.json.encode(data)
            data = msgspec.json.decode(encoded)  # as it is now, whatever becomes of the plugin's objects
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise ControlError(f"A message must be JSON: {error}") from None
        if len(encoded) > MAX_MESSAGE_BYTES:
            raise ControlError(f"A message has at most {MAX_MESSAGE_BYTES} bytes; this one has {len(encoded)}.")
        self._on_loop(self._send, PluginMessage(f"{self._plugin}.{type}", data))

    def end(self, reason: str, message: str) -> None:
        _check_word("The reason for an end", reason)
        self._on_loop(self._acting.end, self._plugin, reason, _checked_text("The message", message, MAX_SENTENCE))

    def caller_said(self, text: str, start_ms: float, end_ms: float) -> None:
        text = _checked_text("What the caller said", text, MAX_TEXT)
        try:
            start_ms, end_ms = round(float(start_ms), 1), round(float(end_ms), 1)
        except (TypeError, ValueError, OverflowError):
            raise ControlError("The times of what the caller said are numbers of milliseconds.") from None
        if not 0 <= start_ms <= end_ms < math.inf:
            raise ControlError(f"Nobody can have spoken from {start_ms:g} to {end_ms:g} ms of a call.")
        self._on_loop(self._report, CallerText(text, start_ms, end_ms))

    def forget(self) -> None:
        """Free what the plugin kept of the session."""
        self._state.clear()

    def _send(self, message: PluginMessage) -> None:
        self._spend()
        self._acting.tell(message)

    def _report(self, said: CallerText) -> None:
        self._spend()
        self._acting.caller_said(said)

    def _spend(self) -> None:
        if self._budget.take(1):
            self._budget.take(-1)  # what is not sent costs nothing
            raise ControlError(f"More than {MESSAGES_PER_S} messages a second to one client: put more into each.")

    def _on_loop(
        self, work: Callable[_Parameters, _Result], *arguments: _Parameters.args, **named: _Parameters.kwargs
    ) -> _Result:
        """What `work` returns or raises on the event loop, from whichever thread."""
        if threading.get_ident() == self._acting.thread:
            return work(*arguments, **named)
        outcome: Future[_Result] = Future()

        def run() -> None:
            if outcome.set_running_or_notify_cancel():
                try:
                    outcome.set_result(work(*arguments, **named))
                except Exception as error:
                    outcome.set_exception(error)

        try:
            self._acting.loop.call_soon_threadsafe(run)
        except RuntimeError:  # the loop is closed
            raise SessionOverError("The session is over, and the service with it.") from None
        try:
            return outcome.result(LOOP_S)
        except TimeoutError:
            outcome.cancel()
            raise ControlError("The service is too busy to do that now.") from None


def _check_word(what: str, word: object) -> None:
    if not isinstance(word, str) or not WORD.fullmatch(word):
        raise ControlError(f"{what} is a word of small letters, digits, '-' and '_', not {str(word)[:80]!r}.")


def _checked_text(what: str, text: object, most: int) -> str:
    """The text without space around it. Raises ControlError where that is empty, too long or not text."""
    if not isinstance(text, str) or not text.strip():
        raise ControlError(f"{what} is missing: it must be text.")
    if len(text) > most:
        raise ControlError(f"{what} has at most {most} characters; this has {len(text)}.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ControlError(f"{what} holds half of a surrogate pair, which is no character.") from None
    return text.strip()
