"""The events of OpenAI's Live API that this service knows, field by field as in `openai/types/live/` of the package
`openai`, version 3.57.

Client events are strict, as OpenAI's are: a field that they do not have is an error that names it.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0)]
ErrorType = Literal[
    "invalid_request_error", "authentication_error", "permission_error", "rate_limit_error", "server_error"
]


class _Part(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of an event."""


class AudioFormat(_Part, frozen=True):
    """How sound is coded, in both directions."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
    """Signed 16-bit little-endian PCM, or G.711 mu-law or A-law; all mono."""
    rate: int
    """24000 or 16000 Hz for PCM, 8000 for G.711."""


class VoiceId(_Part, frozen=True):
    """A voice by its id; the same as the plain name."""

    id: str


class AudioOutput(_Part, frozen=True):
    """How the agent sounds."""

    voice: str | VoiceId | None = None


class Audio(_Part, frozen=True):
    """The audio of a session."""

    format: AudioFormat | None = None
    output: AudioOutput | None = None


class Delegation(_Part, frozen=True):
    """Who does the work that the model hands over. `null` is `client`."""

    type: Literal["client", "responses", "decisions"]
    responses: dict[str, Any] | None = None
    decisions: dict[str, Any] | None = None
    acknowledgement_delay_ms: Count | None = None


class HistoryText(_Part, frozen=True):
    """The text of a message of the history."""

    text: str
    type: Literal["input_text", "output_text", "text"] = "input_text"


class HistoryMessage(_Part, frozen=True):
    """One message of the conversation before the session."""

    role: Literal["developer", "user", "assistant"]
    content: Annotated[list[HistoryText], Meta(min_length=1, max_length=1)]
    id: str | None = None
    status: Literal["incomplete", "completed"] | None = None
    type: Literal["message"] = "message"


class SessionConfig(_Part, frozen=True):
    """What `session.start` asks for."""

    model: str
    audio: Audio | None = None
    client: dict[str, Any] | None = None
    delegation: Delegation | None = None
    input: Annotated[list[HistoryMessage], Meta(max_length=128)] | None = None
    instructions: str | None = None
    safety_identifier: str | None = None
    store: bool | None = None
    triggers: list[dict[str, Any]] | None = None


class SessionUpdateConfig(_Part, frozen=True):
    """What `session.update` asks for."""

    delegation: Delegation | None = None
    triggers: list[dict[str, Any]] | None = None


class ClientEvent(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", kw_only=True):
    """An event of the client. Its `event_id` comes back in what answers it."""

    event_id: str | None = None


class SessionStart(ClientEvent, frozen=True, tag="session.start", kw_only=True):
    """The first event, once."""

    session: SessionConfig


class SessionUpdate(ClientEvent, frozen=True, tag="session.update", kw_only=True):
    """Change the delegation's settings."""

    session: SessionUpdateConfig


class AudioAppend(ClientEvent, frozen=True, tag="session.input_audio.append", kw_only=True):
    """Sound of the caller, in the session's format; base64 on the wire."""

    audio: bytes


class AudioMute(ClientEvent, frozen=True, tag="session.input_audio.mute"):
    """From now on the model hears silence instead of the caller."""


class AudioUnmute(ClientEvent, frozen=True, tag="session.input_audio.unmute"):
    """The model hears the caller again."""


class CommentaryAppend(ClientEvent, frozen=True, tag="session.commentary.append", kw_only=True):
    """Something for the agent to say, maybe as the answer to a delegation."""

    content: str
    delegation_id: str | None = None


class InstructionsAppend(ClientEvent, frozen=True, tag="session.instructions.append", kw_only=True):
    """Something for the agent to obey from now on. Not supported."""

    content: str
    delegation_id: str | None = None


class ThinkingAppend(ClientEvent, frozen=True, tag="session.thinking.append", kw_only=True):
    """Something for the agent to know. Not supported."""

    content: str
    delegation_id: str | None = None


class SessionClose(ClientEvent, frozen=True, tag="session.close"):
    """End the session."""


KnownEvent = (
    SessionStart
    | SessionUpdate
    | AudioAppend
    | AudioMute
    | AudioUnmute
    | CommentaryAppend
    | InstructionsAppend
    | ThinkingAppend
    | SessionClose
)
"""What a client may send."""


class SessionResource(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The session as it is: what was asked for and the defaults."""

    id: str
    """The session's id in the service's log."""
    expires_at: int
    """Unix time at which the longest duration of a call is reached."""
    model: str
    """`personaplex/PERSONA`, or `personaplex` where the client has brought its own instructions."""
    status: Literal["active"]
    audio: Audio | None = None
    delegation: Delegation | None = None
    instructions: str | None = None
    """The client's own; those of a persona are the operator's, and stay with the service."""


class Usage(Struct, frozen=True):
    """How long the session has lasted."""

    seconds: float


class ContextWindow(Struct, frozen=True):
    """How much of what the model can attend to is taken."""

    usage_ratio: float


class ErrorDetail(Struct, frozen=True, omit_defaults=True):
    """What went wrong, and with which event and field."""

    type: ErrorType
    code: str
    message: str
    param: str | None = None
    client_event_id: str | None = None


class ServerEvent(Struct, frozen=True, omit_defaults=True, tag_field="type", kw_only=True):
    """An event of the server. `client_event_id` is that of the event it answers."""

    event_id: str
    client_event_id: str | None = None


class SessionStarted(ServerEvent, frozen=True, tag="session.started", kw_only=True):
    """The caller may speak."""

    session: SessionResource


class SessionUpdated(ServerEvent, frozen=True, tag="session.updated", kw_only=True):
    """The update is in force."""

    session: SessionResource


class AudioMuted(ServerEvent, frozen=True, tag="session.input_audio.muted"):
    """The model hears silence."""


class AudioUnmuted(ServerEvent, frozen=True, tag="session.input_audio.unmuted"):
    """The model hears the caller."""


class CommentaryAppended(ServerEvent, frozen=True, tag="session.commentary.appended", kw_only=True):
    """The agent will say it. Both times are the moment at which it came."""

    start_ms: int
    end_ms: int


class OutputTranscriptDelta(ServerEvent, frozen=True, tag="session.output_transcript.delta", kw_only=True):
    """A piece of the agent's words, and when it is said, in milliseconds from the session's start."""

    delta: str
    start_ms: int
    end_ms: int


class InputTranscriptDelta(ServerEvent, frozen=True, tag="session.input_transcript.delta", kw_only=True):
    """A piece of the caller's words, and when it was said."""

    delta: str
    start_ms: int
    end_ms: int


class DelegationId(Struct, frozen=True):
    """A delegation. It names no task: that is in what was said."""

    id: str
    target: Literal["client"] = "client"
    type: Literal["delegation"] = "delegation"


class DelegationCreated(ServerEvent, frozen=True, tag="session.delegation.created", kw_only=True):
    """The caller has had a turn, and the client may answer it."""

    delegation: DelegationId
    offset_ms: int


class UsageUpdated(ServerEvent, frozen=True, tag="session.usage.updated", kw_only=True):
    """How long the session has lasted so far."""

    usage: Usage
    context_window: ContextWindow | None = None


class SessionClosed(ServerEvent, frozen=True, tag="session.closed", kw_only=True):
    """The session is over. The socket closes next."""

    reason: Literal["close_requested", "expired", "content", "remote_hangup", "connection_lost"]
    session: SessionResource
    usage: Usage


class Info(ServerEvent, frozen=True, tag="info", kw_only=True):
    """A notice."""

    code: str
    message: str


class Error(ServerEvent, frozen=True, tag="error", kw_only=True):
    """Something went wrong; the session goes on, unless `session.closed` or the socket's close follows."""

    error: ErrorDetail


class OutputAudioDelta(Struct, frozen=True, tag_field="type", tag="session.output_audio.delta"):
    """The agent's next 80 ms, in the session's format; base64 on the wire. It has no id, as OpenAI's has none."""

    delta: bytes
