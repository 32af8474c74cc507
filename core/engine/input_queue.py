"""The caller's frames that wait for the engine, and the bound of their lag."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from core.engine.call import FRAME_S, Frame

MOST_FRAMES = 256
"""20 s of sound, 2 MB: whatever is pushed, no more waits."""


@dataclass(frozen=True)
class WaitingFrame:
    """A frame on its way to the engine."""

    frame: Frame
    pushed: float
    """When it came, as `time.perf_counter` tells it."""
    position: int
    """Its number among all frames pushed, from 0."""


class InputQueue:
    """The frames of one call that wait, oldest first. Drops the oldest where they cannot be caught up in time.

    Frames may come together: a network stalled, or an encoder sends pages of a second. The engine answers them as fast
    as it steps. So what bounds the lag is how long the oldest frame has waited: only when that is more than
    `max_waiting` frames last are the oldest dropped, down to `max_waiting` frames. A frame is thus dropped when the
    engine could not catch up, and never because it came in company.

    Not safe in two threads at once: whoever shares it holds a lock.
    """

    def __init__(self, max_waiting: int, clock: Callable[[], float] = time.perf_counter) -> None:
        """`max_waiting`: the lag allowed, in frames of 80 ms, at least 1."""
        self._max_waiting = max_waiting
        # Half a frame less: of frames that come one by one, those beyond `max_waiting` are then dropped without delay.
        self._max_lag_s = (max_waiting - 0.5) * FRAME_S
        self._most = max(MOST_FRAMES, max_waiting)
        self._clock = clock
        self._frames: deque[WaitingFrame] = deque()
        self._pushed = 0
        self._dropped = 0
        """Frames dropped and not yet reported."""

    def __len__(self) -> int:
        return len(self._frames)

    def push(self, frame: Frame) -> int:
        """Add the newest frame. Returns how many of the oldest were dropped since the last push."""
        self._frames.append(WaitingFrame(frame, self._clock(), self._pushed))
        self._pushed += 1
        self._drop_late()
        dropped, self._dropped = self._dropped, 0
        return dropped

    def pop(self) -> WaitingFrame:
        """Remove the oldest frame that is not too late. Raises IndexError when none waits."""
        self._drop_late()
        return self._frames.popleft()

    def _drop_late(self) -> None:
        late = self._clock() - self._max_lag_s
        while len(self._frames) > self._most or (
            len(self._frames) > self._max_waiting and self._frames[0].pushed < late
        ):
            self._frames.popleft()
            self._dropped += 1
