"""The wire: message kinds, close codes and query parameters of `/ws/chat` and `/api/chat`.

The first byte of a binary message is its kind. Kinds 0-6 are those of NVIDIA's and Kyutai's servers; unknown kinds are
ignored. `/api/chat` clients know no kinds 3 and 4, so these go only to `/ws/chat`.
"""

from enum import IntEnum

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
    """JSON, `/ws/chat` only: see `Metadata` in docs of the endpoint."""
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
