"""Events: those of a session go to the hook `session_event`, those outside of any session to `service_event`.

No event carries the text of a prompt or a secret.
"""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Identity:
    """Who is calling, according to a plugin. `name` appears in logs and metrics, so it must not be a secret."""

    name: str
    claims: dict[str, Any] = field(default_factory=dict)


OPERATOR = Identity("operator")
"""The identity of calls made on the command line."""


@dataclass(frozen=True)
class SessionInfo:
    """One session, from its request on. Passed to the transform hooks and with every event of the session."""

    id: str
    identity: Identity
    persona: str
    """The persona's id, or "custom"."""
    voice: str
    route: str
    """`/ws/chat`, `/api/chat`, or the door of a plugin by which the caller came."""
    address: str
    """The client's IP address as the server sees it."""
    audio: str
    """How sound is coded on the way: `opus`, `pcm`, or a word of the door's own."""


@dataclass(frozen=True)
class SessionQueued:
    """Every slot is taken and the caller waits in the queue, at this place, counted from 1."""

    place: int


@dataclass(frozen=True)
class SessionStarted:
    """The caller has a slot and the prefill of the prompt begins. `waited_ms` is the time spent in the queue."""

    waited_ms: float
    seed: int


@dataclass(frozen=True)
class SessionReady:
    """The handshake has been sent and the caller may speak. `prompt_ms` is the time since SessionStarted."""

    prompt_ms: float


@dataclass(frozen=True)
class FirstAudio:
    """The agent's first frame has been sent, `after_ms` milliseconds after the handshake."""

    after_ms: float


@dataclass(frozen=True)
class FrameTimed:
    """A frame of the caller's has been answered. Its time in milliseconds, in total and by part."""

    decode_ms: float
    transform_ms: float
    wait_ms: float
    step_ms: float
    encode_ms: float
    total_ms: float
    """From receiving the last byte of the caller's frame to handing the agent's frame to the socket."""
    lag_ms: float = 0.0
    """How much of the caller's audio has been received and not answered."""
    transforms: tuple[tuple[str, float], ...] = ()
    """Names of plugins, each with the milliseconds its transform took. A plugin with two transforms appears twice."""


@dataclass(frozen=True)
class TextSaid:
    """A piece of what the agent says, as text, with the index of its frame. It must not be logged."""

    text: str
    frame: int


@dataclass(frozen=True)
class CallerText:
    """The caller has said this, as a plugin has understood it. It must not be logged."""

    text: str
    start_ms: float
    """In milliseconds of the caller's sound from the handshake on."""
    end_ms: float


@dataclass(frozen=True)
class KeyPressed:
    """The caller has pressed a key of the telephone. It must not be logged: keys are PINs and card numbers too."""

    key: str
    """0 to 9, A to D, * or #."""


@dataclass(frozen=True)
class FramesDropped:
    """The `count` oldest waiting frames of the caller's were dropped to bound the lag."""

    count: int


@dataclass(frozen=True)
class TransformFailed:
    """A plugin's audio transform failed or was too slow, and is left out for the rest of the session."""

    plugin: str
    reason: str


@dataclass(frozen=True)
class HandlerFailed:
    """The handler that a plugin has for this session failed or fell behind, and is called no more."""

    plugin: str
    reason: str


Limit = Literal["time", "idle", "shutdown"]
"""What is about to end a call: its longest duration, the caller's silence, or the server that is stopping."""


@dataclass(frozen=True)
class SessionWarned:
    """The caller has been warned that a limit will end the call in `seconds`."""

    limit: Limit
    seconds: float


@dataclass(frozen=True)
class SessionDropped:
    """The connection has broken, with this WebSocket close code, and the session waits for its client to come back."""

    code: int


@dataclass(frozen=True)
class SessionResumed:
    """The client is back, over a new connection, after `away_s` seconds."""

    away_s: float


EndReason = Literal[
    "left",  # the client closed the connection, or the connection broke and nobody came back in time
    "bad_message",  # the client sent what the protocol does not have, or the prompt does not fit the model
    "slow",  # the client does not read what it is sent
    "too_fast",  # the client sends more messages or audio than a conversation has
    "no_audio",  # the client never sent any audio
    "idle",  # the caller was silent for too long
    "time",  # the call reached its longest duration
    "busy",  # no slot: the queue is full, or the wait was too long
    "too_many_calls",  # this caller has as many calls as one may have
    "prompt",  # the prompt was not ready in time
    "shutdown",  # the server is stopping
    "plugin",  # a plugin ended it
    "engine",  # the engine failed
    "fault",  # anything else failed in the server; the log has the traceback
]
"""Why a session ended."""


@dataclass(frozen=True)
class SessionEnded:
    """The session is over. Sent exactly once for each session, last. `code` is the WebSocket close code."""

    reason: EndReason
    code: int
    seconds: float
    """Time from the handshake to the end; 0 when there was no handshake."""
    frames_in: int
    frames_out: int
    dropped: int
    error: str = ""
    detail: str = ""
    """Where a plugin ended it: the plugin's name and its word for the reason, such as `billing: empty`."""


SessionEvent = (
    SessionQueued
    | SessionStarted
    | SessionReady
    | FirstAudio
    | FrameTimed
    | TextSaid
    | CallerText
    | KeyPressed
    | FramesDropped
    | TransformFailed
    | HandlerFailed
    | SessionWarned
    | SessionDropped
    | SessionResumed
    | SessionEnded
)


RefusalReason = Literal[
    "bad_request",
    "unauthorized",
    "forbidden",
    "not_found",
    "gone",  # the call that was to be picked up again is over
    "upgrade_required",  # a GET of a WebSocket route
    "too_many_requests",  # one address asks more often than server.requests_per_s, or brings wrong passwords
    "internal_server_error",
    "timeout",  # a plugin took too long to say who is calling, or to find the persona or voice
    "shutdown",  # the server is stopping
    "unknown_host",  # nobody has to log in here, and the request names another host than this machine
    "cross_site",  # a page of another site, which is not in server.origins, asks
]
"""Why the core refuses a request: where nothing more exact is known, the name of the HTTP status.

A plugin that refuses is reported with the name of its status or a word of its own.
"""


@dataclass(frozen=True)
class CallRefused:
    """A request for a call was refused before it became a session."""

    reason: str
    """A RefusalReason, or the word of the plugin that refused."""
    status: int
    """The HTTP status of the response."""
    route: str
    address: str
    """The client's address as the server sees it."""
    setting: str = ""
    """The key of config.yaml that refuses it, where it is one that could allow it."""


@dataclass(frozen=True)
class PluginFailed:
    """A plugin raised in one of its hooks. `error` is only the error's type, since its text may hold a secret."""

    plugin: str
    hook: str
    error: str


@dataclass(frozen=True)
class SettingsReloaded:
    """config.yaml was edited. Without `problems` the edit has taken effect; otherwise nothing has changed."""

    problems: tuple[str, ...]


ServiceEvent = CallRefused | PluginFailed | SettingsReloaded
