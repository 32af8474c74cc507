"""One Live session without its socket: what each event of the client does, and what each event of the call becomes.

    start accepted -> waiting for a slot -> started -> over

What is to be sent is put into an Outbox, in order. Nothing here waits, so an event is obeyed whole or not at all.
"""

import textwrap
import time
from collections import deque
from itertools import count
from typing import Protocol

import numpy as np

from core import (
    AgentText,
    AudioError,
    CallEnded,
    CallerSound,
    CallerText,
    ClientMessage,
    ControlError,
    Preparing,
    Queued,
    Ready,
    ServerMessage,
    Stats,
    Warned,
)

from . import events
from .endings import closed_reason, explain_end
from .outbox import Outbox
from .reading import EventError, invalid, read_event
from .start import MODEL, Notice, Start, check_delegation

FRAME_MS = 80
SENTENCE_CHARS = 1000
"""The most that can be said at once; a longer commentary is said in pieces."""
OPEN_DELEGATIONS = 100
"""So many of the newest delegations may be answered."""
USAGE_MS = 10_000
"""How often the usage is told."""
ORDER_TO_SPEAK = "Do not wait for the caller to speak first. After that, pause and listen."
"""What LiveKit's `generate_reply` puts into its commentary: an order to a model. It would be read to the caller."""


class Speaker(Protocol):
    """What has the agent say something: the session's control."""

    def say(self, text: str) -> None:
        """Raises ControlError."""


class LiveSession:
    """The state of one session, from the acceptance of its start."""

    def __init__(self, start: Start, outbox: Outbox, *, delegates: bool, context_s: float) -> None:
        """`delegates`: a caller's turn may become a delegation. `context_s`: how much of a conversation the model
        attends to, in seconds; 0 where that is unknown."""
        self.outbox = outbox
        """What is to be sent."""
        self._start = start
        self._reader = start.reader()
        self._delegates = delegates and start.delegation == "client"
        self._context_s = context_s
        self._delegation_numbers = count(1)
        self._speaker: Speaker | None = None
        self._session: events.SessionResource | None = None
        """Set as soon as the session has started."""
        self._frames = 0
        self._next_usage_ms = USAGE_MS
        self._muted = False
        self._told_early_audio = False
        self._close_id: str | None = None
        self._close_requested = False
        self._delegations: deque[str] = deque(maxlen=OPEN_DELEGATIONS)
        for notice in start.notices:
            outbox.put_info(notice.code, notice.message)

    # The client's events

    def receive(self, message: str | bytes) -> CallerSound | ClientMessage:
        """Obey one message of the client: its sound, or else something that only counts. Raises CallEnded for a
        `session.close`, when the session ends."""
        try:
            return self._obey(read_event(message), len(message))
        except EventError as error:
            self.outbox.put_error(error.detail)
        return ClientMessage(size=len(message))

    def _obey(self, event: events.KnownEvent, size: int) -> CallerSound | ClientMessage:
        session = self._session
        match event:
            case events.SessionClose():
                self._close_requested, self._close_id = True, event.event_id
                raise CallEnded("left")
            case events.SessionStart():
                raise invalid("session_already_started", "A session has one session.start.", "type", event.event_id)
            case events.AudioAppend():
                if session is None:
                    self._refuse_early_audio(event.event_id)
                else:
                    return self._hear(event, size)
            case _ if session is None:
                raise invalid(
                    "session_not_started", "Wait for session.started before other events.", "type", event.event_id
                )
            case events.AudioMute():
                self._muted = True
                self.outbox.put(events.AudioMuted, client_event_id=event.event_id)
            case events.AudioUnmute():
                self._muted = False
                self.outbox.put(events.AudioUnmuted, client_event_id=event.event_id)
            case events.CommentaryAppend():
                self._say(event)
            case events.SessionUpdate():
                self._update(event)
                self.outbox.put(events.SessionUpdated, session=session, client_event_id=event.event_id)
            case events.InstructionsAppend() | events.ThinkingAppend():
                raise invalid(
                    "unsupported_event",
                    "The model cannot be told something in mid-call without saying it. Put it into the instructions of "
                    "session.start, or append it as commentary, which is said.",
                    "type",
                    event.event_id,
                )
        return ClientMessage(size=size)

    def _hear(self, event: events.AudioAppend, size: int) -> CallerSound:
        began = time.perf_counter()
        try:
            samples = self._reader.read(event.audio)
        except AudioError as error:
            raise invalid("invalid_value", str(error), "audio", event.event_id) from None
        if self._muted:
            samples = np.zeros_like(samples)
        return CallerSound(samples, size=size, decode_ms=(time.perf_counter() - began) * 1000)

    def _refuse_early_audio(self, event_id: str | None) -> None:
        """Say once that nobody hears it; a client that sends audio all the time would be told all the time."""
        if not self._told_early_audio:
            self._told_early_audio = True
            raise invalid(
                "session_not_started", "Audio before session.started is not heard. Wait for it.", "type", event_id
            )

    def _say(self, event: events.CommentaryAppend) -> None:
        if ORDER_TO_SPEAK in event.content:
            raise invalid(
                "unsupported_content",
                "What is appended as commentary is said word for word here, and this is an order to a model, as "
                "LiveKit's generate_reply gives it. Append the words themselves with append_commentary.",
                "content",
                event.event_id,
            )
        if event.delegation_id is not None and event.delegation_id not in self._delegations:
            raise invalid("delegation_not_found", "There is no such delegation.", "delegation_id", event.event_id)
        pieces = textwrap.wrap(event.content, SENTENCE_CHARS)
        if not pieces:
            raise invalid("invalid_value", "There is nothing to say in it.", "content", event.event_id)
        if self._speaker is None:
            raise invalid("session_not_started", "The call has not begun.", "type", event.event_id)
        try:
            for piece in pieces:
                self._speaker.say(piece)
        except ControlError as error:
            raise invalid("commentary_not_said", str(error), "content", event.event_id) from None
        self.outbox.put(
            events.CommentaryAppended, start_ms=self.now_ms, end_ms=self.now_ms, client_event_id=event.event_id
        )

    def _update(self, event: events.SessionUpdate) -> None:
        if event.session.triggers:
            raise invalid("unsupported_parameter", "There are no Decisions here.", "session.triggers", event.event_id)
        if event.session.delegation is not None:
            notices: list[Notice] = []
            if check_delegation(event.session.delegation, event.event_id, notices) != self._start.delegation:
                raise invalid(
                    "immutable_parameter",
                    f"The session began with delegation to {self._start.delegation}, which cannot change.",
                    "session.delegation.type",
                    event.event_id,
                )

    # What the call tells

    @property
    def now_ms(self) -> int:
        """The session's time: how much of the agent's sound has been sent."""
        return self._frames * FRAME_MS

    def begin(self, ready: Ready, speaker: Speaker | None) -> None:
        """The handshake: the caller is heard from now on."""
        self._speaker = speaker
        self._session = events.SessionResource(
            id=ready.session,
            expires_at=int(time.time() + ready.max_s),
            model=MODEL if self._start.request.prompt else f"{MODEL}/{ready.persona}",
            status="active",
            audio=events.Audio(self._start.format, events.AudioOutput(ready.voice)),
            delegation=events.Delegation(self._start.delegation),
            instructions=self._start.request.prompt,
        )
        if ready.engine.notice:
            self.outbox.put_info("notice", ready.engine.notice)
        self.outbox.put(events.SessionStarted, session=self._session, client_event_id=self._start.event_id)

    def tell(self, message: ServerMessage) -> None:
        """Turn what the service tells its clients into events; what the Live API has no word for is left out."""
        match message:
            case Queued(place=place):
                self.outbox.put_info("queued", f"Every slot is taken. Your place in the queue is {place}.")
            case Preparing():
                self.outbox.put_info("preparing", "The voice and the instructions are being prepared.")
            case Warned(limit=limit, seconds=seconds):
                self.outbox.put_info(f"{limit}_limit", f"The session ends in {seconds:g} s.")
            case Stats():
                if self.now_ms >= self._next_usage_ms:
                    self._next_usage_ms += USAGE_MS
                    self.outbox.put(events.UsageUpdated, usage=self._usage(), context_window=self._context_window())
            case CallerText():
                self._caller_said(message)

    def agent_said(self, text: AgentText) -> None:
        """A piece of the agent's words."""
        self.outbox.put(events.OutputTranscriptDelta, delta=text.text, start_ms=text.start_ms, end_ms=text.end_ms)

    def frame_sent(self) -> None:
        """Another 80 ms of the agent are on their way."""
        self._frames += 1

    def _caller_said(self, text: CallerText) -> None:
        start_ms, end_ms = round(text.start_ms), round(text.end_ms)
        self.outbox.put(events.InputTranscriptDelta, delta=text.text, start_ms=start_ms, end_ms=end_ms)
        if self._delegates:
            delegation = events.DelegationId(f"delegation_{next(self._delegation_numbers)}")
            self._delegations.append(delegation.id)
            self.outbox.put(events.DelegationCreated, delegation=delegation, offset_ms=end_ms)

    def end(self, ended: CallEnded) -> None:
        """The session is over: say why, and close it where it had started."""
        explanation = explain_end(ended)
        if isinstance(explanation, events.ErrorDetail):
            self.outbox.put_error(explanation)
        elif explanation is not None:
            self.outbox.put_info(*explanation)
        if self._session is not None:
            self.outbox.put(
                events.SessionClosed,
                reason="close_requested" if self._close_requested else closed_reason(ended),
                session=self._session,
                usage=self._usage(),
                client_event_id=self._close_id,
            )

    def _usage(self) -> events.Usage:
        return events.Usage(float(round(self.now_ms / 1000)))

    def _context_window(self) -> events.ContextWindow | None:
        if not self._context_s:
            return None
        return events.ContextWindow(round(min(self.now_ms / 1000 / self._context_s, 1.0), 3))
