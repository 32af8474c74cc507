"""What plugins do in one session: their controls and handlers, and the state that they share."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from core.engine.call import FRAME_S, MAX_SENTENCES, Call, Frame, OutputFrame
from core.errors import ControlError, SayError, SessionOverError
from core.events import CallerText, HandlerFailed, SessionEnded, SessionEvent, SessionInfo
from core.plugin.acting import AgentText, Line, Side
from core.plugin.doors import CallEnded, ClientMessage
from core.plugin.handlers import Handler
from core.plugin.host import PluginHost
from core.plugin.personas import Persona
from core.plugin.server_messages import PluginMessage, ServerMessage
from core.session.control import Control
from core.session.protocol import CloseCode
from core.session.transcript import Transcript
from core.settings.log import get_logger

FRAME_MS = round(FRAME_S * 1000)
_log = get_logger("session")


class Acting:
    """Belongs to the event loop; what a control does comes here, whatever thread it is called from."""

    def __init__(
        self,
        info: SessionInfo,
        persona: Persona,
        *,
        post: Callable[[ServerMessage], bool],
        end: Callable[[CallEnded], None],
        fire: Callable[[SessionEvent], None],
    ) -> None:
        """`post` sends the client a message, `end` ends the session, and `fire` sends every plugin an event."""
        self.info = info
        self.persona = persona
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self._post, self._end, self._fire = post, end, fire
        self._controls: list[Control] = []
        self._handlers: list[Handler] = []
        self._call: Call | None = None
        self._in_queue = self._over = False
        self._first_sentences: deque[tuple[str, str]] = deque()
        """What was given before there was a call to say it in, each with the plugin that gave it."""
        self._muted_by: dict[Side, set[str]] = {"caller": set(), "agent": set()}
        """The plugins that have muted each side."""
        self._transcript = Transcript()

    # What the session reports.

    def open(self, host: PluginHost) -> None:
        """Let the plugins know of the session."""
        self._handlers = host.open_session(self._control, self._handler_failed)

    def queued(self) -> None:
        """The caller waits in the queue."""
        self._in_queue = True

    def begin(self, call: Call) -> None:
        """The caller has a slot, whose prompt is still to be prepared. What plugins gave before is said first."""
        self._in_queue = False
        self._call = call
        while self._first_sentences:
            plugin, text = self._first_sentences.popleft()
            try:
                call.say(text)
            except SayError as error:  # what only the model's vocabulary shows
                _log.error("a sentence cannot be said", session=self.info.id, plugin=plugin, error=str(error))

    def event(self, event: SessionEvent) -> None:
        """Something happened."""
        for handler in self._handlers:
            handler.put("event", event)
            if isinstance(event, CallerText):
                handler.put("caller_text", event)

    def frame(self, method: str, frame: Frame) -> None:
        """A frame of either side is on its way: `caller_frame` or `agent_frame`. Each handler may keep it."""
        hearing = [handler for handler in self._handlers if handler.hears(method)]
        if hearing:
            frame = frame.copy()
            frame.flags.writeable = False
        for handler in hearing:
            handler.put(method, frame)

    def agent_text(self, output: OutputFrame, muted: bool) -> AgentText:
        """The agent says something, which is heard unless it is muted."""
        start_ms = output.index * FRAME_MS
        text = AgentText(output.text, start_ms, start_ms + FRAME_MS, output.said)
        if self._controls and not muted:
            self._transcript.add_agent(text)
        for handler in self._handlers:
            handler.put("agent_text", text)
        return text

    def message(self, message: ClientMessage) -> None:
        """The client has sent a message, which is for the handler of the plugin that its type names."""
        plugin, _, type_ = message.type.rpartition(".")
        for handler in self._handlers:
            if handler.plugin == plugin:
                if handler.overwhelmed:
                    raise CallEnded("too_fast", CloseCode.TOO_FAST, "More messages came than are taken. Send fewer.")
                handler.put("message", type_, message.data)

    @property
    def handled(self) -> bool:
        """Whether any plugin has a handler for the session, whose work takes time."""
        return bool(self._handlers)

    def muted(self, side: Side) -> bool:
        """Whether silence takes the place of this side's sound."""
        return bool(self._muted_by[side])

    def close(self, ended: SessionEnded) -> None:
        """The session is over, and its event has been sent: from now on every control says so."""
        self._over, self._call = True, None
        self._first_sentences.clear()
        for handler in self._handlers:
            handler.close(ended)

    async def closed(self) -> None:
        """Return when the handlers have closed, or are given up. What the plugins kept of the session is freed."""
        for handler in self._handlers:
            await handler.closed()

    def forget(self) -> None:
        """Free what the plugins kept of the session."""
        for control in self._controls:
            control.forget()
        del self._post, self._end, self._fire  # a plugin that keeps its control keeps nothing else of the session

    # What the plugins' controls do.

    @property
    def transcript(self) -> tuple[Line, ...]:
        """See SessionControl."""
        return self._transcript.lines

    def say(self, plugin: str, text: str, interrupt: bool) -> None:
        """See SessionControl."""
        if self._over:
            raise SayError("The session is over: nothing can be said in it any more.")
        if self._in_queue:
            raise SayError("The caller still waits in the queue. Give the first sentence in open_session or later.")
        if self._call is not None:
            self._call.say(text, interrupt)
            return
        if interrupt:
            self._first_sentences.clear()
        if len(self._first_sentences) >= MAX_SENTENCES:
            raise SayError(f"{MAX_SENTENCES} sentences are waiting to be said before the call begins.")
        self._first_sentences.append((plugin, text))

    def hush(self) -> None:
        """See SessionControl."""
        self._check_goes_on()
        self._first_sentences.clear()
        if self._call is not None:
            self._call.hush()

    def mute(self, plugin: str, side: Side, on: bool) -> None:
        """See SessionControl."""
        self._check_goes_on()
        if on:
            self._muted_by[side].add(plugin)
        else:
            self._muted_by[side].discard(plugin)

    def tell(self, message: PluginMessage) -> None:
        """See SessionControl."""
        self._check_goes_on()
        if not self._post(message):
            raise ControlError("Too many messages wait for this client, which does not read them.")

    def end(self, plugin: str, reason: str, message: str) -> None:
        """See SessionControl."""
        self._check_goes_on()
        self._end(CallEnded("plugin", CloseCode.PLUGIN, message, f"{plugin}: {reason}"))

    def caller_said(self, said: CallerText) -> None:
        """See SessionControl."""
        self._check_goes_on()
        self._transcript.add_caller(said)
        self._fire(said)
        self._post(said)

    def _check_goes_on(self) -> None:
        if self._over:
            raise SessionOverError("The session is over.")

    def _control(self, plugin: str) -> Control:
        control = Control(plugin, self)
        self._controls.append(control)
        return control

    def _handler_failed(self, failure: HandlerFailed) -> None:
        for muting in self._muted_by.values():
            muting.discard(failure.plugin)
        if not self._over:
            self._fire(failure)
