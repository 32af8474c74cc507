"""What one conversation may take: its time, the caller's silence, and how fast messages and audio may come."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.engine.call import SAMPLE_RATE, Frame
from core.session.protocol import CloseCode
from core.session.wire import Hangup
from core.settings.config import SessionConfig

Clock = Callable[[], float]
"""Seconds from any fixed point."""

SPEECH_RMS = 10 ** (-46 / 20)
"""A frame louder than -46 dBFS counts as speech: quiet talk is above it, the hum of a muted room below."""
BURST_S = 5.0
"""As many messages may come at once as in so many seconds: a network that stalled delivers them together."""

Limit = Literal["time", "idle"]


@dataclass(frozen=True)
class Due:
    """A limit that has been reached, or soon will be. `seconds` is what is left; 0 or less: it is over."""

    limit: Limit
    seconds: float


class TimeLimits:
    """The longest duration of a call, and the longest silence of its caller. Both start with this object."""

    def __init__(self, config: SessionConfig, clock: Clock = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._started = self._spoken = clock()
        self._warned: set[Limit] = set()

    def heard(self, frame: Frame) -> None:
        """Take note of a frame of the caller: speech ends the silence."""
        if float(np.sqrt(np.mean(np.square(frame)))) > SPEECH_RMS:
            self._spoken = self._clock()
            self._warned.discard("idle")

    def due(self) -> list[Due]:
        """The limits to act on now: those that are over, and those to warn of, each once."""
        due: list[Due] = []
        for limit, seconds in self._left().items():
            if seconds <= 0:
                due.append(Due(limit, 0.0))
            elif seconds <= self._config.warn_s and limit not in self._warned:
                self._warned.add(limit)
                due.append(Due(limit, seconds))
        return due

    def next_s(self) -> float:
        """How many seconds from now `due` may have something new, if nothing is heard until then."""
        steps = [
            seconds if limit in self._warned else min(seconds, max(seconds - self._config.warn_s, 0.0))
            for limit, seconds in self._left().items()
        ]
        return max(min(steps), 0.0)

    def _left(self) -> dict[Limit, float]:
        now = self._clock()
        return {
            "time": self._started + self._config.max_s - now,
            "idle": self._spoken + self._config.idle_s - now,
        }


class Traffic:
    """How fast messages and audio come in. The allowances refill with the clock."""

    def __init__(self, config: SessionConfig, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._rate = config.max_messages_per_s
        self._messages = self._rate * BURST_S
        self._ahead_s = self._audio_s = config.max_ahead_s

    def message(self) -> None:
        """Count a message. Raises Hangup when there are too many."""
        now = self._clock()
        passed, self._last = now - self._last, now
        self._messages = min(self._messages + passed * self._rate, self._rate * BURST_S) - 1
        self._audio_s = min(self._audio_s + passed, self._ahead_s)
        if self._messages < 0:
            raise _too_fast(f"More than {self._rate} messages a second. Put more audio in each.")

    def audio(self, samples: int) -> None:
        """Count audio. Raises Hangup when it comes faster than it can have been spoken."""
        self._audio_s -= samples / SAMPLE_RATE
        if self._audio_s < 0:
            raise _too_fast("Audio came faster than real time. Send it as it is spoken.")


def _too_fast(message: str) -> Hangup:
    return Hangup("too_fast", CloseCode.TOO_FAST, message)
