"""The limits of one conversation: its duration, the caller's silence, and the rate of messages and audio."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from core.engine.call import SAMPLE_RATE, Frame
from core.session.call_end import CallEnded, TimeLimit
from core.session.protocol import CloseCode
from core.settings.config import SessionConfig

Clock = Callable[[], float]
"""Seconds from any fixed point."""

SPEECH_RMS = 10 ** (-46 / 20)
"""A frame louder than -46 dBFS counts as speech: quiet talk is above it, the hum of a muted room below."""
BURST_S = 5.0
"""The messages of this many seconds may come at once: a network that stalled delivers them together."""


@dataclass(frozen=True)
class Due:
    """A limit that is reached, or soon will be. `seconds` is what is left; 0 or less: it is reached."""

    limit: TimeLimit
    seconds: float


class TimeLimits:
    """The longest duration of a call, and the longest silence of its caller. Both count from when this is made."""

    def __init__(self, config: SessionConfig, clock: Clock = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._started = self._last_speech = clock()
        self._warned: set[TimeLimit] = set()

    def observe(self, frame: Frame) -> None:
        """Note whether a frame of the caller is speech, which ends the silence."""
        if float(np.sqrt(np.mean(np.square(frame)))) > SPEECH_RMS:
            self._last_speech = self._clock()
            self._warned.discard("idle")

    def due(self) -> list[Due]:
        """The limits to act on now: those that are reached, and those to warn of, each once."""
        due: list[Due] = []
        for limit, seconds in self._left().items():
            if seconds <= 0:
                due.append(Due(limit, 0.0))
            elif seconds <= self._config.warn_s and limit not in self._warned:
                self._warned.add(limit)
                due.append(Due(limit, seconds))
        return due

    def next_s(self) -> float:
        """The seconds after which `due` may return something new, if the caller is silent until then."""
        steps = [
            seconds if limit in self._warned else min(seconds, max(seconds - self._config.warn_s, 0.0))
            for limit, seconds in self._left().items()
        ]
        return max(min(steps), 0.0)

    def _left(self) -> dict[TimeLimit, float]:
        now = self._clock()
        return {
            "time": self._started + self._config.max_s - now,
            "idle": self._last_speech + self._config.idle_s - now,
        }


class RateLimits:
    """How fast a client may send messages and audio: two token buckets that refill with the clock."""

    def __init__(self, config: SessionConfig, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._rate = config.max_messages_per_s
        self._messages = self._rate * BURST_S
        self._ahead_s = self._audio_s = config.max_ahead_s

    def count_message(self) -> None:
        """Count a message. Raises CallEnded when there are too many."""
        now = self._clock()
        passed, self._last = now - self._last, now
        self._messages = min(self._messages + passed * self._rate, self._rate * BURST_S) - 1
        self._audio_s = min(self._audio_s + passed, self._ahead_s)
        if self._messages < 0:
            raise _too_fast(f"More than {self._rate} messages a second. Put more audio in each.")

    def count_audio(self, samples: int) -> None:
        """Count n samples at 24 kHz. Raises CallEnded when they come faster than they can have been spoken."""
        self._audio_s -= samples / SAMPLE_RATE
        if self._audio_s < 0:
            raise _too_fast("Audio came faster than real time. Send it as it is spoken.")


def _too_fast(message: str) -> CallEnded:
    return CallEnded("too_fast", CloseCode.TOO_FAST, message)
