"""The WebSocket protocol of `/ws/chat` and `/api/chat`: message kinds, METADATA messages and close codes.

The first byte of a binary message is its kind. Kinds 0-6 are those of NVIDIA's and Kyutai's servers; unknown kinds are
ignored. Clients of `/api/chat` do not know kind 4, so METADATA goes to `/ws/chat` only.
"""

from enum import IntEnum
from typing import Annotated

import msgspec

from core.events import Limit

OUR_ROUTE = "/ws/chat"
"""Its clients know METADATA; those of NVIDIA's route do not."""
NVIDIA_ROUTE = "/api/chat"
"""Where the clients of NVIDIA's server call."""


class Kind(IntEnum):
    """First byte of a binary WebSocket message."""

    HANDSHAKE = 0
    """Server, once, after the prompt: the caller may speak. One byte."""
    AUDIO = 1
    """Both ways: a piece of the Ogg/Opus stream, or s16le PCM at 24 kHz."""
    TEXT = 2
    """Server: a piece of the agent's words, UTF-8."""
    CONTROL = 3
    """Reserved by NVIDIA's protocol; ignored."""
    METADATA = 4
    """Both ways, `/ws/chat` only: JSON, see ServerMetadata and ClientMetadata."""
    ERROR = 5
    """Server: what went wrong and what to do, UTF-8; a close follows."""
    PING = 6
    """Both ways: keeps clients that want a message every 10 s. One byte; not answered."""


class CloseCode(IntEnum):
    """Why the server closed the socket.

    1000 is never used to refuse: LiveKit's client takes it as "connect again at once".
    """

    NORMAL = 1000
    GOING_AWAY = 1001
    """The server is shutting down."""
    BAD_MESSAGE = 1003
    """Text instead of binary, or audio that cannot be understood."""
    NOT_TEXT = 1007
    """A text message that is no UTF-8."""
    TOO_BIG = 1009
    INTERNAL = 1011
    """The engine failed; the message before says so."""
    BUSY = 1013
    """No slot, and the queue is full or the wait too long; or one caller with more calls than allowed."""
    TIME_LIMIT = 4000
    """The call reached its longest duration."""
    IDLE = 4001
    """The caller was silent for too long."""
    SLOW_READER = 4002
    """The client does not read what it is sent."""
    HANDSHAKE_TIMEOUT = 4003
    """The prompt could not be prepared in time."""
    TOO_FAST = 4004
    """More messages or audio than a conversation has."""


class _Metadata(msgspec.Struct, frozen=True, tag_field="type"):
    """A METADATA message: a JSON object whose `type` says which one it is."""


class Queued(_Metadata, frozen=True, tag="queued"):
    """Every slot is taken. Sent again whenever the place changes."""

    place: int
    """The place in the queue, from 1."""


class Preparing(_Metadata, frozen=True, tag="preparing"):
    """The caller has a slot, and the prompt is being prefilled."""


class ReadyEngine(msgspec.Struct, frozen=True):
    """The model that answers."""

    name: str
    notice: str
    """A sentence that callers must be told about this model, or ""."""


class Ready(_Metadata, frozen=True, tag="ready"):
    """What the conversation will be like. Sent just before the handshake."""

    session: str
    """The id under which the session stands in the server's log."""
    persona: str
    """The persona's id, or "custom"."""
    voice: str
    engine: ReadyEngine
    seed: int
    """The seed in use, also when none was asked for."""
    max_s: float
    """The longest duration of the call, in seconds."""


class Stats(_Metadata, frozen=True, tag="stats"):
    """How the call goes. Sent each second from the handshake on."""

    input_lag_ms: int
    """How much of the caller's audio waits for its answer."""
    dropped: int
    """How many of the caller's frames were dropped so far to bound that lag."""
    frames: int
    """How many frames of the agent were sent so far."""
    window: float = 0.0
    """How full the model's window is, from 0 to 1; at 1, what was said first has left it."""


class Warned(_Metadata, frozen=True, tag="warning"):
    """A limit will end the call soon."""

    limit: Limit
    seconds: float
    """What is left."""


class Echo(_Metadata, frozen=True, tag="echo"):
    """A client sends it and gets it back at once, which measures the round trip of the network."""

    id: Annotated[int, msgspec.Meta(ge=0, le=2**53)]


ServerMetadata = Queued | Preparing | Ready | Stats | Warned | Echo
"""What the server sends as METADATA."""
ClientMetadata = Echo
"""What a client may send as METADATA; other JSON is ignored."""
