"""When the frames of a call were sent and answered, and the delays that come of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from core.engine.call import FRAME_S, FRAME_SAMPLES

PLAYER_BUFFER_S = 0.08
"""What the player that counts the gaps buffers before it starts."""


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of a list of times, in milliseconds."""

    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, times: Sequence[float]) -> "Percentiles | None":
        """None when there are no times."""
        return cls(*(float(time) for time in np.percentile(times, (50, 95, 99, 100)))) if times else None


@dataclass
class FrameTimes:
    """The moments of each frame of a call, in seconds as `time.monotonic` tells them."""

    due: list[float] = field(default_factory=list)
    """When a microphone would have had it whole."""
    sent: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    """When the last sample of the answer to it had come."""
    samples: int = 0
    """How many samples of answers came."""

    def receive(self, samples: int, now: float) -> None:
        """Count n samples of the answers."""
        self.samples += samples
        self.answered += [now] * (self.samples // FRAME_SAMPLES - len(self.answered))

    def round_trips_ms(self) -> list[float]:
        """From each frame sent to its answer."""
        return [(answered - sent) * 1000 for sent, answered in zip(self.sent, self.answered, strict=False)]

    def delays_ms(self) -> list[float]:
        """From the moment at which each frame was due to its answer."""
        return [(answered - due) * 1000 for due, answered in zip(self.due, self.answered, strict=False)]

    def lateness_ms(self) -> list[float]:
        """How late each frame was sent."""
        return [(sent - due) * 1000 for due, sent in zip(self.due, self.sent, strict=False)]

    def gaps(self) -> tuple[int, float]:
        """How often, and for how many seconds in all, a player of the answers would have had nothing to play."""
        count, silent_s, due = 0, 0.0, 0.0
        for index, answered in enumerate(self.answered):
            due = answered + PLAYER_BUFFER_S if index == 0 else due + FRAME_S
            if answered > due:
                count += 1
                silent_s += answered - due
                due = answered
        return count, silent_s
