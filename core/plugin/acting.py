# mypy: disable-error-code=empty-body
# The bodies are docstrings: the core implements what a plugin is given, and plugins what they want of a handler.
"""What a plugin that acts in a session is given, its control, and what it gives: a handler.

The hook `open_session` brings the two together, once for each session.
"""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from core.engine.call import Frame
from core.events import CallerText, SessionEnded, SessionEvent, SessionInfo
from core.plugin.personas import Persona

Side = Literal["caller", "agent"]
"""Who speaks."""


@dataclass(frozen=True)
class AgentText:
    """A piece of the agent's words: a word or a part of one, with the space before it."""

    text: str
    start_ms: int
    """When its frame begins, in milliseconds of the agent's sound from the handshake on."""
    end_ms: int
    given: bool
    """Whether it belongs to a sentence that was given to `SessionControl.say`; all others are the agent's own."""


@dataclass(frozen=True)
class Line:
    """What one side said without a longer pause, in the transcript of a session."""

    side: Side
    text: str
    start_ms: float
    """In milliseconds of that side's sound from the handshake on."""
    end_ms: float


class SessionHandler:
    """What `open_session` returns: an object with any of these methods. It need not be a subclass.

    Its methods are called one after another, never two at once, from a queue of the handler's own, beside the call and
    never in its way. A plain function runs in a thread of its plugin, so it may block; an `async def` runs on the event
    loop, where it must not. One that raises, that has not returned after 10 s, or that falls behind by hundreds of
    calls costs the session this handler: but for its `close` it is called no more, an event HandlerFailed says so, and
    the call goes on. So what takes long is a task of the handler's own. What the methods return is ignored.
    """

    def caller_frame(self, frame: Frame) -> Awaitable[None] | None:
        """80 ms of the caller, float32[1920], read-only: after the input transforms, as the engine gets it."""

    def agent_frame(self, frame: Frame) -> Awaitable[None] | None:
        """80 ms of the agent, float32[1920], read-only: after the output transforms, as it is sent."""

    def agent_text(self, text: AgentText) -> Awaitable[None] | None:
        """The agent says this. It comes also while the agent is muted, and nobody hears it."""

    def caller_text(self, text: CallerText) -> Awaitable[None] | None:
        """The caller has said this, as a plugin has understood it."""

    def event(self, event: SessionEvent) -> Awaitable[None] | None:
        """Something happened in this session: every event that `session_event` gets, and more kinds in future."""

    def message(self, type: str, data: Mapping[str, Any]) -> Awaitable[None] | None:
        """This session's client has sent METADATA for this plugin: `{"type": "PLUGIN.TYPE", ...data}`."""

    def close(self, ended: SessionEnded) -> Awaitable[None] | None:
        """The session is over. Called last and once, also where the handler was left out before."""


class SessionControl(Protocol):
    """What a plugin can do in one session. Every method may be called from any thread, and returns at once.

    When the session is over, `say` raises SayError and every other method SessionOverError.
    """

    @property
    def info(self) -> SessionInfo:
        """Whose session it is."""

    @property
    def persona(self) -> Persona:
        """Whom the agent plays, with the voice and sampling of this call. Its prompt must not be logged."""

    @property
    def state(self) -> dict[str, Any]:
        """The plugin's own notes on this session; emptied when the session is over."""

    @property
    def transcript(self) -> tuple[Line, ...]:
        """What both sides have said so far, in order: the caller's lines as plugins told them by `caller_said`."""

    def say(self, text: str, interrupt: bool = False) -> None:
        """Have the agent say a sentence, word for word and in its own voice, when it pauses.

        With `interrupt` it says it at its next word, in place of all that waits. What is given before the handshake it
        says first. At most 1,000 characters, and 16 sentences may wait. Raises SayError for text that cannot be said,
        when too many sentences wait, while the caller waits in the queue, and after the end.
        """

    def hush(self) -> None:
        """Drop what waits to be said, and let the agent fall silent until it has a new turn."""

    def mute(self, side: Side, on: bool) -> None:
        """Put silence in place of a side's sound, and for the agent leave out its words, until every plugin that has
        muted the side has taken that back. A handler that is left out mutes nobody any more."""

    def tell(self, type: str, /, **data: Any) -> None:
        """Send the client METADATA, `{"type": "PLUGIN.TYPE", ...data}`; one that knows no METADATA gets nothing.

        Raises ControlError for what is no JSON or over 16 KiB, and beyond 50 messages a second.
        """

    def end(self, reason: str, message: str) -> None:
        """End the call. `reason` is a word for the log, `message` a sentence for the caller. Only the first one counts.

        Raises ControlError when either is missing or too long.
        """

    def caller_said(self, text: str, start_ms: float, end_ms: float) -> None:
        """Tell the session the words of its caller, which then go to all plugins and the client as a CallerText.

        The times are milliseconds of the caller's sound from the handshake on. Raises ControlError for what is no text
        or no span of time.
        """
