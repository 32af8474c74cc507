"""A budget of minutes: how long all callers together, and each by name, may talk in a day.

In config.yaml:

    plugins:
      options:
        budget: {service_minutes: 240, caller_minutes: 30}

A call counts from when it has its slot, in steps of ten seconds, so that a process that is killed loses no more. When
a budget is used up, running calls end, and new ones are refused until midnight (UTC). Whoever is logged in reads on the
page what is used. Off while neither option is set.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated

from msgspec import Meta, Struct

from core import (
    FrameTimed,
    Identity,
    MemoryStore,
    RefusedError,
    SessionControl,
    SessionEnded,
    SessionEvent,
    SessionInfo,
    SessionStarted,
    Store,
    get_logger,
    hookimpl,
)

STEP_S = 10.0
"""How often a running call is counted."""
KEEP_S = 2 * 86_400.0
MOST_CALLERS = 10_000
"""Names that are remembered; the one that was quiet for longest is forgotten."""
ALL = "all"

Minutes = Annotated[float, Meta(ge=0)]


class Plugin:
    """Counts the seconds of calls by day, in the `Store`: over edits of the options, and for all processes."""

    class Options(Struct, frozen=True, forbid_unknown_fields=True):
        """The plugin's block in config.yaml. 0 is any number of minutes."""

        service_minutes: Minutes = 0
        """How many minutes a day all calls together may last."""
        caller_minutes: Minutes = 0
        """How many those of one name may last. With one password for all, all have one name."""

    def __init__(self, options: Options, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since 1970."""
        self.enabled = bool(options.service_minutes or options.caller_minutes)
        self._options = options
        self._clock = clock
        self._counted_until: dict[str, float] = {}
        """Until when each running call is counted."""
        self._controls: dict[str, SessionControl] = {}
        self._log = get_logger("budget")
        self.startup(MemoryStore())

    @hookimpl
    def startup(self, shared: Store) -> None:
        self._used = shared.table("budget", MOST_CALLERS, evict=True)

    @hookimpl
    async def authorize(self, identity: Identity) -> None:
        """Raises RefusedError when a budget of this caller's is used up."""
        if why := self._used_up(identity):
            raise RefusedError(429, why, headers={"retry-after": str(self._seconds_left())})

    @hookimpl
    def notices(self, identity: Identity | None) -> list[str]:
        """What is used, for who is logged in."""
        budgets = self._budgets(identity) if identity else []
        return [
            f"Used today: {min(self._minutes(who), m):.0f} of the {m:g} minutes {whose}." for who, m, whose in budgets
        ]

    @hookimpl
    def open_session(self, control: SessionControl) -> None:
        """Keep what ends the call."""
        self._controls[control.info.id] = control

    @hookimpl
    def session_event(self, session: SessionInfo, event: SessionEvent) -> None:
        match event:
            case SessionStarted():
                self._counted_until[session.id] = self._clock()
            case FrameTimed() if self._clock() - self._counted_until.get(session.id, self._clock()) >= STEP_S:
                self._count(session)
                self._end_when_used_up(session)
            case SessionEnded() if session.id in self._counted_until:
                self._count(session)
                del self._counted_until[session.id]
                name = session.identity.name
                self._log.info(
                    "minutes used today",
                    session=session.id,
                    identity=name,
                    caller=round(self._minutes(_caller(name)), 1),
                    service=round(self._minutes(ALL), 1),
                )
        if isinstance(event, SessionEnded):
            self._controls.pop(session.id, None)

    def _end_when_used_up(self, session: SessionInfo) -> None:
        why, control = self._used_up(session.identity), self._controls.get(session.id)
        if why and control:
            control.end("budget", why)

    def _budgets(self, identity: Identity) -> list[tuple[str, float, str]]:
        """The budgets that count for a caller: for whom they count, their minutes, and whose they are in words."""
        options = self._options
        budgets = [
            (_caller(identity.name), options.caller_minutes, f"of {identity.name}"),
            (ALL, options.service_minutes, "of all callers"),
        ]
        return [budget for budget in budgets if budget[1]]

    def _used_up(self, identity: Identity) -> str:
        """A sentence on the budget of this caller's that is used up; "" where there is none."""
        for who, minutes, whose in self._budgets(identity):
            if self._minutes(who) >= minutes:
                return f"The {minutes:g} minutes {whose} for today are used up. They begin again at midnight, UTC."
        return ""

    def _count(self, session: SessionInfo) -> None:
        now = self._clock()
        seconds = max(now - self._counted_until[session.id], 0.0)
        self._counted_until[session.id] = now
        for who in (_caller(session.identity.name), ALL):
            self._used.update(
                f"{self._day()} {who}", lambda before: ((before[0] if before else 0.0) + seconds,), KEEP_S
            )

    def _minutes(self, who: str) -> float:
        """Used today."""
        return (self._used.get(f"{self._day()} {who}") or (0.0,))[0] / 60

    def _day(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).date().isoformat()

    def _seconds_left(self) -> int:
        """Until midnight."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        return max(round((midnight - now).total_seconds()), 1)


def _caller(name: str) -> str:
    """For whom one caller's time is counted; no name is the word for all."""
    return f"caller {name}"
