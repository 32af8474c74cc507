"""A plugin that keeps every event, and the control of every session."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from core.events import ServiceEvent, SessionEnded, SessionEvent, SessionInfo
from core.plugin.acting import SessionControl
from core.plugin.hookspecs import hookimpl

_Event = TypeVar("_Event")
PATIENCE_S = 10.0
"""How long a test waits for an event before it fails: far longer than any event takes on a busy machine."""


@dataclass
class EventRecorder:
    """Keeps the events of all sessions and of the service, in the order in which they happened."""

    events: list[tuple[SessionInfo, SessionEvent]] = field(default_factory=list)
    service_events: list[ServiceEvent] = field(default_factory=list)
    controls: dict[str, SessionControl] = field(default_factory=dict)
    """Its control of each session, by the session's id: so a test can do what another plugin would."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @hookimpl
    def open_session(self, control: SessionControl) -> None:
        self.controls[control.info.id] = control

    @hookimpl
    def session_event(self, session: SessionInfo, event: SessionEvent) -> None:
        self.events.append((session, event))
        self._changed.set()

    @hookimpl
    def service_event(self, event: ServiceEvent) -> None:
        self.service_events.append(event)
        self._changed.set()

    def of(self, kind: type[_Event]) -> list[_Event]:
        """The session events of one type, in order."""
        return [event for _, event in self.events if isinstance(event, kind)]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return as soon as an event makes the condition true. Raises TimeoutError after PATIENCE_S."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def ended(self, count: int = 1) -> list[SessionEnded]:
        """How all sessions have ended, as soon as `count` have. Raises TimeoutError after PATIENCE_S."""
        await self.until(lambda: len(self.of(SessionEnded)) >= count)
        return self.of(SessionEnded)
