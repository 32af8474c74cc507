"""What a session tells its client beside sound and words. On `/ws/chat` each is a METADATA message, JSON with a `type`.

A door's transport gets them by `send_event`, and says what it has words for.
"""

from typing import Any

import msgspec

from core.events import CallerText, Limit


class _Message(msgspec.Struct, frozen=True, tag_field="type"):
    """A message whose `type` says which one it is."""


class Queued(_Message, frozen=True, tag="queued"):
    """Every slot is taken. Sent again whenever the place changes."""

    place: int
    """The place in the queue, from 1."""


class Preparing(_Message, frozen=True, tag="preparing"):
    """The caller has a slot, and the prompt is being prefilled."""


class ReadyEngine(msgspec.Struct, frozen=True):
    """The model that answers."""

    name: str
    notice: str
    """A sentence that callers must be told about this model, or ""."""


class Ready(_Message, frozen=True, tag="ready"):
    """What the conversation will be like. It is the handshake: from now on the caller is heard.

    A client that picks its call up again gets it again, with the same `session`.
    """

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
    resume: str = ""
    """By this the client can pick the call up again when its connection breaks; "" where that is not possible."""


class Stats(_Message, frozen=True, tag="stats"):
    """How the call goes. Sent each second from the handshake on."""

    input_lag_ms: int
    """How much of the caller's audio waits for its answer."""
    dropped: int
    """How many of the caller's frames were dropped so far to bound that lag."""
    frames: int
    """How many frames of the agent were sent so far."""
    window: float = 0.0
    """How full the model's window is, from 0 to 1; at 1, what was said first has left it."""


class Warned(_Message, frozen=True, tag="warning"):
    """A limit will end the call soon."""

    limit: Limit
    seconds: float
    """What is left."""


class PluginMessage(msgspec.Struct, frozen=True):
    """What a plugin tells the client by `SessionControl.tell`."""

    type: str
    """The plugin's name, a dot, and the plugin's word for it."""
    data: dict[str, Any]
    """Plain JSON."""


ServerMessage = Queued | Preparing | Ready | Stats | Warned | CallerText | PluginMessage
"""What a session tells its client."""
