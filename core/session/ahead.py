"""The caller's audio that comes before its time: kept back, and the oldest dropped where there is too much of it."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from core.engine.call import FRAME_S

SLACK_S = 3 * FRAME_S
"""So far ahead of the clock is nobody: clocks differ, and networks are not even."""
MOST_HELD = 3
"""Frames that are kept back. They make the call late by as much, so they are few, and the newest."""
LEAST_WAIT_S = 1.0
"""Who has waited for less has stored next to nothing, and pipes of live encoders are that far ahead."""
MOST_CREDIT_S = 15.0
"""A caller who was silent, or whose network stalled, is behind the clock; this much may then come together."""

_Frame = TypeVar("_Frame")


class AudioClock(Generic[_Frame]):
    """Passes the frames of one caller on, and holds back those that nobody can have said yet.

    So much sound can have been said since the handshake as time has passed. What comes beyond that was stored before:
    LiveKit's plugin, for one, keeps what is said while it waits for a slot, and sends it all with the handshake. Were
    it answered, the agent would be late by as much for the rest of the call. So of what may have been stored, as long
    as the caller has waited, only the newest frames are passed on. Whoever sends faster than real time without having
    waited may do so as far as `max_ahead_s`.
    """

    def __init__(self, waited_s: float, max_ahead_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Made with the handshake. `waited_s`: how long the caller has waited for it, and may have stored."""
        self._clock = clock
        self._stored_s = waited_s if waited_s >= LEAST_WAIT_S else 0.0
        self._max_ahead_s = max_ahead_s
        self._last = clock()
        self._ahead_s = 0.0
        self._held: deque[_Frame] = deque()

    def add(self, frame: _Frame) -> int:
        """Take the newest frame; `due` gives it when its time has come. Returns how many of the oldest it dropped."""
        self._held.append(frame)
        if self._ahead() + FRAME_S <= self._bound_s or len(self._held) <= MOST_HELD:
            return 0
        self._held.popleft()
        self._stored_s -= FRAME_S
        return 1

    def due(self) -> Iterator[_Frame]:
        """Remove and return the frames to pass on now, oldest first."""
        while self._held and self._ahead() + FRAME_S <= self._bound_s:
            self._ahead_s += FRAME_S
            yield self._held.popleft()

    @property
    def next_s(self) -> float | None:
        """In how many seconds `due` has a frame; None when none is held back."""
        return max(self._ahead() + FRAME_S - self._bound_s, 0.0) if self._held else None

    @property
    def _bound_s(self) -> float:
        return min(SLACK_S, self._max_ahead_s) if self._stored_s >= FRAME_S else self._max_ahead_s

    def _ahead(self) -> float:
        """How much more sound was passed on than time has passed; negative, at least -MOST_CREDIT_S, when less."""
        now = self._clock()
        self._ahead_s = max(self._ahead_s - (now - self._last), -MOST_CREDIT_S)
        self._last = now
        return self._ahead_s
