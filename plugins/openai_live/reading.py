"""Reads client events, and says what is wrong with one in the way of OpenAI's errors."""

import re

import msgspec

from .events import ErrorDetail, KnownEvent

UNSUPPORTED = {
    "session.output_audio.fixture.play": "Recordings are not played here.",
    "response.create": "No Responses model works for this service.",
    "response.item.create": "No Responses model works for this service.",
    "decision.create": "There are no Decisions here.",
    "decision.item.create": "There are no Decisions here.",
    "decision.item.delete": "There are no Decisions here.",
    "transport.dtmf.send": "This session is no telephone call.",
}
"""Events of OpenAI's that this service does not have, and why."""
_decoder: msgspec.json.Decoder[KnownEvent] = msgspec.json.Decoder(KnownEvent)
_AT = re.compile(r"^(?P<problem>.*?)(?: - at `\$?\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_FIELD = re.compile(r"field `(?P<field>[^`]*)`")


class _Envelope(msgspec.Struct):
    """What every event has, to say which one an error is about."""

    type: str = ""
    event_id: str | None = None


class EventError(Exception):
    """An event that cannot be obeyed. `detail` is for the client, `kind` the event's type where that can be read."""

    def __init__(self, detail: ErrorDetail, kind: str = "") -> None:
        self.detail = detail
        self.kind = kind
        super().__init__(detail.message)


def invalid(code: str, message: str, param: str | None = None, client_event_id: str | None = None) -> EventError:
    """The error of a client that asked for something impossible."""
    return EventError(ErrorDetail("invalid_request_error", code, message, param, client_event_id))


def read_event(message: str | bytes) -> KnownEvent:
    """The event in one message. Raises EventError."""
    try:
        return _decoder.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _explain(message, error) from None


def _explain(message: str | bytes, error: Exception) -> EventError:
    """What is wrong with a message that could not be decoded."""
    try:
        envelope = msgspec.json.decode(message, type=_Envelope)
    except msgspec.ValidationError:
        return invalid("invalid_event", "An event is a JSON object with a type, and its event_id is text.")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return invalid("invalid_json", "An event is a JSON object in UTF-8, and this message is none.")
    kind, event_id = envelope.type, envelope.event_id
    if reason := UNSUPPORTED.get(kind):
        return invalid("unsupported_event", f"{kind} is not supported. {reason}", "type", event_id)
    found = _AT.match(str(error))
    problem, path = (found["problem"], found["path"] or "") if found else (str(error), "")
    if not kind:
        return invalid("missing_required_parameter", "An event needs a type.", "type", event_id)
    if path == "type":
        return invalid("unknown_event", f"There is no event {kind[:80]!r}.", "type", event_id)
    code = "invalid_value"
    if field := _FIELD.search(problem):
        path = f"{path}.{field['field']}".strip(".")
        code = "unknown_parameter" if "unknown" in problem else "missing_required_parameter"
    detail = ErrorDetail("invalid_request_error", code, f"{kind}: {problem}.", path or None, event_id)
    return EventError(detail, kind)
