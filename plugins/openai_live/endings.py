"""What the end of a call means to a client of the Live API."""

from typing import Literal

from core import CallEnded, RefusedError

from .events import ErrorDetail, ErrorType

ClosedReason = Literal["close_requested", "expired", "content", "remote_hangup", "connection_lost"]
CLOSED_REASONS: dict[str, ClosedReason] = {
    "left": "close_requested",
    "time": "expired",
    "idle": "expired",
    "no_audio": "expired",
    "plugin": "remote_hangup",
}
"""By the reason in the service's log; every other one is `connection_lost`."""
ERRORS: dict[str, ErrorType] = {
    "bad_message": "invalid_request_error",
    "too_fast": "rate_limit_error",
    "slow": "rate_limit_error",
    "busy": "rate_limit_error",
    "too_many_calls": "rate_limit_error",
    "prompt": "server_error",
    "engine": "server_error",
    "fault": "server_error",
}
"""Ends that are errors. The others are what a limit, a plugin or the operator meant to happen, and come as `info`."""
TRY_AGAIN = 1013
INTERNAL = 1011
POLICY = 1008
"""Close codes of a session that was refused (RFC 6455, 7.4.1). OpenAI's clients reconnect after the first two alone."""


def closed_reason(ended: CallEnded) -> ClosedReason:
    """The reason in `session.closed`."""
    return CLOSED_REASONS.get(ended.reason, "connection_lost")


def explain_end(ended: CallEnded) -> ErrorDetail | tuple[str, str] | None:
    """The event before `session.closed`: an error, the code and message of a notice, or nothing."""
    if not ended.message:
        return None
    if kind := ERRORS.get(ended.reason):
        return ErrorDetail(kind, ended.reason, ended.message)
    return ended.reason, ended.message


def explain_refusal(refusal: RefusedError, event_id: str | None) -> tuple[ErrorDetail, int]:
    """The error of a start that the service refuses, and the code with which the socket closes."""
    code, message = str(refusal.reason), str(refusal)
    match refusal.status:
        case 401:
            return ErrorDetail("authentication_error", code, message, None, event_id), POLICY
        case 403:
            return ErrorDetail("permission_error", code, message, None, event_id), POLICY
        case 429:
            return ErrorDetail("rate_limit_error", code, message, None, event_id), TRY_AGAIN
        case status if status >= 500:
            closes = TRY_AGAIN if status == 503 else INTERNAL
            return ErrorDetail("server_error", code, message, None, event_id), closes
        case _:
            return ErrorDetail("invalid_request_error", code, message, "session", event_id), POLICY
