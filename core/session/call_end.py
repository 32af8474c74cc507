"""How a conversation ends: what each error and each limit means to the caller."""

from typing import Literal

from core.errors import AudioError, EngineBusyError, EngineError, PromptError, ProtocolError
from core.plugin.doors import CallEnded
from core.session.admission import TooManyCallsError
from core.session.protocol import CloseCode

TimeLimit = Literal["time", "idle"]
"""The limits that end a call by the clock: its longest duration, and the caller's longest silence."""


def from_error(error: Exception) -> CallEnded:
    """The end of a call in which `error` was raised."""
    match error:
        case AudioError() | ProtocolError() | PromptError():
            return CallEnded("bad_message", CloseCode.BAD_MESSAGE, str(error))
        case TooManyCallsError():
            return CallEnded("too_many_calls", CloseCode.BUSY, str(error))
        case EngineBusyError():
            return CallEnded("busy", CloseCode.BUSY, str(error))
        case EngineError():
            return CallEnded("engine", CloseCode.INTERNAL, str(error))
        case _:
            return CallEnded("fault", CloseCode.INTERNAL, "Something failed in the server. Call again.")


def from_time_limit(limit: TimeLimit) -> CallEnded:
    """The end of a call that reached a limit."""
    if limit == "time":
        message = "The call has reached its longest duration. Call again to go on."
        return CallEnded("time", CloseCode.TIME_LIMIT, message)
    return CallEnded("idle", CloseCode.IDLE, "Nothing was heard from you for too long. Call again to go on.")


def from_shutdown() -> CallEnded:
    """The end of a call because the server is stopping."""
    return CallEnded("shutdown", CloseCode.GOING_AWAY, "The server is shutting down. Call again in a minute.")
