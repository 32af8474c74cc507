"""Doors: how a plugin brings callers who do not come over the service's own WebSocket, such as by telephone.

A plugin writes a Transport, asks the Calls that its `startup` was given to accept a request, and runs the session over
the transport. Such a session passes the same authentication, admission, limits, transforms and events as any other.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from starlette.requests import HTTPConnection

from core.engine.call import Frame
from core.errors import AudioError
from core.events import EndReason, Identity, KeyPressed, SessionEnded
from core.media.audio_codecs import Samples
from core.plugin.acting import AgentText
from core.plugin.server_messages import ServerMessage

NORMAL_CLOSURE = 1000
"""The close code of a connection that has done its work (RFC 6455, 7.4.1)."""


class CallEnded(Exception):  # noqa: N818 - an ending, not an error
    """The conversation is over. The first one raised in a session decides how it ends.

    A transport raises `CallEnded("left")` when its client is gone, and is given one to close with.
    """

    def __init__(
        self, reason: EndReason = "left", code: int = NORMAL_CLOSURE, message: str = "", detail: str = ""
    ) -> None:
        """`code` closes a WebSocket; `message` tells the caller what happened and what to do, "" says nothing.

        `detail` is for the log: which plugin ended the call, and why.
        """
        self.reason = reason
        self.code = code
        self.message = message
        self.detail = detail
        super().__init__(reason)


@dataclass(frozen=True)
class CallerSound:
    """Sound of the caller, as much as came together."""

    samples: Samples
    """float32[n] at 24 kHz, mono, full scale at 1.0; any n. The session cuts it into frames."""
    size: int = 0
    """Bytes that came over the network for it; the rate limits count them."""
    overhead: int = 0
    """What it cost beside its sound, in samples that would have cost as much; the rate limits count it too."""
    decode_ms: float = 0.0
    """How long it took to decode."""

    def __post_init__(self) -> None:
        """Raises TypeError where this is no sound, and AudioError for samples that are not finite."""
        samples: Any = self.samples
        if not isinstance(samples, np.ndarray) or samples.dtype != np.float32 or samples.ndim != 1:
            raise TypeError("CallerSound takes samples as float32[n]")
        if not np.isfinite(samples).all():
            raise AudioError("Sound came with samples that are no numbers.")


@dataclass(frozen=True)
class ClientMessage:
    """What a client sends that is no sound. Of type `PLUGIN.TYPE`, it is for that plugin's handler."""

    type: str = ""
    """"" is for nobody; it only counts against the rate limits, as every message does."""
    data: Mapping[str, Any] = field(default_factory=dict)
    size: int = 0
    """Bytes that came over the network for it."""


class Transport(ABC):
    """Carries one session: sound and messages of its client in; sound, words and messages of the service out.

    Belongs to one event loop. `receive` is called again and again by one task; the sends and `close` by others, one at
    a time. Whatever a method raises ends the session: CallEnded as it says, AudioError and ProtocolError as a client
    that sent what cannot be understood, anything else as a fault. A send that takes longer than `session.send_s` ends
    it as too slow a client.
    """

    audio: str = "pcm"
    """How sound is coded on the way, for `SessionInfo.audio`."""
    route: str = ""
    """The door, for `SessionInfo.route`; "" is the path of the request."""

    live = True
    """Whether the client speaks in real time. One that does not, such as a sound file, says nothing too early or too
    fast, and its call may last and be silent for as long as it likes."""

    @abstractmethod
    async def receive(self) -> CallerSound | ClientMessage | KeyPressed:
        """The next thing that the client sends. Raises `CallEnded("left")` when it is gone.

        Called from the start, so that a client which leaves the queue is noticed; what it says before Ready is not
        heard. The call may be cancelled and made again: what it has not returned must not be lost.
        """

    def encode(self, frame: Frame) -> Any:
        """Turn a frame of the agent, float32[1920], into what `send_audio` sends. Runs in a thread, so it may block.

        Called for each frame in order, and never in two threads at once. Without one of its own, `send_audio` gets the
        frame.
        """
        return frame

    @abstractmethod
    async def send_audio(self, sound: Any) -> None:
        """Send what `encode` made of the agent's next frame. Raises `CallEnded("left")` when the client is gone."""

    async def send_text(self, text: AgentText) -> None:  # noqa: B027 - a default
        """Send a piece of the agent's words, right after its frame. By default nothing happens."""

    async def send_event(self, message: ServerMessage) -> None:  # noqa: B027 - a default
        """Tell the client how the call goes. By default nothing happens.

        Ready is the handshake. New kinds of messages may come in any release: what it does not know, a transport
        leaves out.
        """

    async def keep_alive(self) -> None:  # noqa: B027 - a default
        """Called each second of the session, for clients that must hear something now and then. By default nothing
        happens."""

    async def close(self, ended: CallEnded) -> None:  # noqa: B027 - a default
        """The session is over: tell the client why, and close. Called last and once, unless `run` is cancelled."""


@dataclass(frozen=True)
class CallRequest:
    """What a caller asks for."""

    persona: str | None = None
    """The persona's id. None is the caller's first, unless there is a prompt."""
    voice: str | None = None
    """Another voice than the persona's."""
    prompt: str | None = None
    """A prompt of the caller's own, where `personas.custom` allows it; not together with a persona."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """The fields of Sampling that differ from the persona's."""
    identity: Identity | None = None
    """Who is calling, where the plugin knows it by itself; None asks the plugins that authenticate connections."""
    address: str = ""
    """The caller's address, where there is no connection to tell it."""


class AcceptedCall(Protocol):
    """A call that may begin: it has a caller, a persona, a prompt and a voice, but neither place nor slot yet."""

    async def run(self, transport: Transport) -> SessionEnded:
        """Hold the session over a transport, from the queue to its end. Call it once. Returns how the session ended."""


class Calls(Protocol):
    """How a plugin's door opens sessions. Belongs to the service's event loop."""

    @property
    def private(self) -> bool:
        """Whether callers log in, or only this machine can reach the service: not everybody is at the door."""

    async def voices(self) -> Sequence[str]:
        """Names of the voices on offer, for a door whose clients may ask for others."""

    async def accept(self, connection: HTTPConnection | None, request: CallRequest) -> AcceptedCall:
        """Find out whether this caller may have this call, before anything is promised to its client.

        `connection` is the request that came, or None where it did not come over HTTP; `request.identity` must then
        say who is calling. Raises RefusedError with the HTTP status that fits: 400, 401, 403, 404, 500 or 503.
        """

    async def converse(
        self, connection: HTTPConnection | None, request: CallRequest, transport: Transport
    ) -> SessionEnded:
        """`accept`, then `run`."""
