"""What happens, as typed events: in a session for `session_event`, outside of any for `service_event`.

None of them carries a prompt's text or a secret.
"""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Identity:
    """Who is calling, as an auth plugin says. `name` appears in logs and metrics, so it must not be a secret."""

    name: str
    claims: dict[str, Any] = field(default_factory=dict)


OPERATOR = Identity("operator")
"""Who calls from the command line."""


@dataclass(frozen=True)
class SessionInfo:
    """One conversation, from its request on. Given to transform hooks and with every event."""

    id: str
    identity: Identity
    persona: str
    """The persona's id, or "custom"."""
    voice: str
    route: str
    """`/ws/chat` or `/api/chat`."""
    address: str
    """The client's address as the server sees it."""
    audio: str
    """`opus` or `pcm`."""


@dataclass(frozen=True)
class SessionQueued:
    """Every slot is taken; the caller waits. `place` counts from 1."""

    place: int


@dataclass(frozen=True)
class SessionStarted:
    """The caller has a slot; the prompt is being prepared. `waited_ms` is the time in the queue."""

    waited_ms: float
    seed: int


@dataclass(frozen=True)
class SessionReady:
    """The handshake is sent. `prompt_ms` is the time from the slot to here."""

    prompt_ms: float


@dataclass(frozen=True)
class FirstAudio:
    """The first frame of the agent is on its way, `after_ms` after the handshake."""

    after_ms: float


@dataclass(frozen=True)
class FrameTimed:
    """One frame went all the way; its parts in milliseconds."""

    decode_ms: float
    transform_ms: float
    wait_ms: float
    step_ms: float
    encode_ms: float
    total_ms: float
    """From the last byte of the user's frame received to the agent's frame handed to the socket."""
    lag_ms: float = 0.0
    """The caller's audio that waits for its answer now."""
    transforms: tuple[tuple[str, float], ...] = ()
    """Plugins, each with the milliseconds that its transform took; one with two transforms is there twice."""


@dataclass(frozen=True)
class TextSaid:
    """A piece of the agent's words. Not for logs at info level."""

    text: str
    frame: int


@dataclass(frozen=True)
class FramesDropped:
    """`count` of the oldest input frames were dropped to bound the lag."""

    count: int


@dataclass(frozen=True)
class TransformFailed:
    """A plugin's audio transform raised or was too slow, and is left out for the rest of the session."""

    plugin: str
    reason: str


Limit = Literal["time", "idle", "shutdown"]
"""What is about to end a call: its longest duration, the caller's silence, or the server that is stopping."""


@dataclass(frozen=True)
class SessionWarned:
    """The caller was told that a limit will end the call in `seconds`."""

    limit: Limit
    seconds: float


EndReason = Literal[
    "left",  # the client closed the connection, or the connection broke
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
    "engine",  # the engine failed
    "fault",  # anything else failed in the server; the log has the traceback
]
"""Why a session ended."""


@dataclass(frozen=True)
class SessionEnded:
    """Fires exactly once for every SessionInfo, whatever happened. `code` is the WebSocket close code."""

    reason: EndReason
    code: int
    seconds: float
    """Time from the handshake to the end; 0 when there was none."""
    frames_in: int
    frames_out: int
    dropped: int
    error: str = ""


SessionEvent = (
    SessionQueued
    | SessionStarted
    | SessionReady
    | FirstAudio
    | FrameTimed
    | TextSaid
    | FramesDropped
    | TransformFailed
    | SessionWarned
    | SessionEnded
)


RefusalReason = Literal[
    "bad_request",
    "unauthorized",
    "forbidden",
    "not_found",
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
    """Somebody asked for a call and got no session."""

    reason: str
    """A RefusalReason, or the word of the plugin that refused."""
    status: int
    """The HTTP status of the answer."""
    route: str
    address: str
    """The client's address as the server sees it."""


@dataclass(frozen=True)
class PluginFailed:
    """A plugin raised in one of its hooks. `error` is the error's type alone: its text may hold a secret."""

    plugin: str
    hook: str
    error: str


@dataclass(frozen=True)
class SettingsReloaded:
    """config.yaml was edited. Without `problems` the edit is in force; else everything stays as it was."""

    problems: tuple[str, ...]


ServiceEvent = CallRefused | PluginFailed | SettingsReloaded
