"""The WebSocket protocol of `/ws/chat` and `/api/chat`: message kinds, METADATA messages and close codes.

The first byte of a binary message is its kind. Kinds 0-6 are those of NVIDIA's and Kyutai's servers; unknown kinds are
ignored. Clients of `/api/chat` do not know kind 4, so METADATA goes to `/ws/chat` only.
"""

from dataclasses import asdict
from enum import IntEnum
from typing import Annotated

import msgspec

from core.errors import ProtocolError
from core.events import CallerText
from core.plugin.doors import ClientMessage
from core.plugin.server_messages import PluginMessage, Preparing, Queued, Ready, ServerMessage, Stats, Warned

_json = msgspec.json.Encoder()

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
    """Both ways, `/ws/chat` only: JSON, see `encode_metadata` and `decode_metadata`."""
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
    REPLACED = 4005
    """The client has picked the call up again over another connection."""
    PLUGIN = 4010
    """A plugin ended the call; the message before says why."""


class Echo(msgspec.Struct, frozen=True, tag="echo", tag_field="type"):
    """A client sends it and gets it back at once, which measures the round trip of the network."""

    id: Annotated[int, msgspec.Meta(ge=0, le=2**53)]


ServerMetadata = Queued | Preparing | Ready | Stats | Warned | Echo
"""What the server itself sends as METADATA; a caller's words and the messages of plugins come beside it."""


def encode_metadata(message: ServerMessage | Echo) -> bytes:
    """The payload of a METADATA message."""
    match message:
        case CallerText():
            return _json.encode({"type": "caller_text", **asdict(message)})
        case PluginMessage():
            return _json.encode({"type": message.type, **message.data})
    return _json.encode(message)


def decode_metadata(payload: bytes) -> Echo | ClientMessage:
    """A client's METADATA. One that the protocol does not have is of type "", which is for nobody.

    Raises ProtocolError when it is not JSON.
    """
    try:
        data = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ProtocolError("A METADATA message is not JSON.") from None
    type_ = data.pop("type", "") if isinstance(data, dict) else ""
    if type_ == "echo":
        try:
            return msgspec.convert({"type": "echo", **data}, Echo)
        except msgspec.ValidationError:
            return ClientMessage(size=len(payload))
    if not isinstance(type_, str) or "." not in type_:
        return ClientMessage(size=len(payload))
    return ClientMessage(type_, data, len(payload))
