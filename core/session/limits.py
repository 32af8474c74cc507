"""The limits of one conversation: its duration, the caller's silence, and the rate of messages and audio."""

import time
from dataclasses import dataclass

import numpy as np

from core.engine.call import SAMPLE_RATE, Frame
from core.plugin.doors import CallEnded
from core.session.call_end import TimeLimit
from core.session.protocol import CloseCode
from core.session.token_bucket import Clock, TokenBucket
from core.settings.sections import SessionConfig

SPEECH_RMS = 10 ** (-46 / 20)
"""A frame louder than -46 dBFS counts as speech: quiet talk is above it, the hum of a muted room below."""
BURST_S = 5.0
"""The messages of this many seconds may come at once: a network that stalled delivers them together."""
WORK_RATE = 20
"""Seconds of sound that may be decoded in one second: 3 % of a core. What a client has stored is soon taken."""
MOST_BYTES_PER_S = 64_000
"""Opus at its highest rate, 510 kbit/s; PCM has 48,000."""
BREAK_S = 2.0
"""After so long without it, audio that comes too fast is a new event."""


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
        if float(np.dot(frame, frame)) > SPEECH_RMS**2 * len(frame):
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
    """How much a client may send: two token buckets that refill with the clock, of messages and of work.

    Work is what decoding costs, as seconds of sound that cost as much. Who sends sound too fast is read more slowly, so
    that a client that has stored some may go on; who sends what is no sound, or goes on and on, is hung up on.
    """

    def __init__(self, config: SessionConfig, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._rate = config.max_messages_per_s
        self._patience_s = config.max_ahead_s
        self._messages = TokenBucket(self._rate, self._rate * BURST_S, clock)
        self._work = TokenBucket(WORK_RATE, WORK_RATE * BURST_S, clock)
        """In seconds of sound."""
        self._too_fast: tuple[float, float] | None = None
        """When it began to be too fast, and when it last was."""

    def count(self, size: int, samples: int = 0, overhead: int = 0) -> float:
        """Count a message of n bytes, with what its sound and the rest of its stream cost, in samples at 24 kHz.

        Returns for how many seconds the client is not to be read. Raises CallEnded.
        """
        sound_s = max(samples / SAMPLE_RATE, size / MOST_BYTES_PER_S)
        messages_s = self._messages.take(1)
        hold_s = max(messages_s, self._work.take(sound_s + overhead / SAMPLE_RATE))
        if hold_s == 0:
            return 0.0
        if samples == 0:
            raise _too_fast(
                f"More than {self._rate} messages a second. Put more audio in each."
                if messages_s > 0
                else "Too much came that is no sound: empty pages, or streams begun again and again."
            )
        self.too_fast()
        return hold_s

    def too_fast(self) -> None:
        """Note that audio came faster than it can have been spoken. Raises CallEnded when that goes on and on."""
        now = self._clock()
        if self._too_fast is None or now - self._too_fast[1] > BREAK_S:
            self._too_fast = (now, now)
        self._too_fast = (self._too_fast[0], now)
        if now - self._too_fast[0] > self._patience_s:
            raise _too_fast("Audio came faster than real time, on and on. Send it as it is spoken.")


def _too_fast(message: str) -> CallEnded:
    return CallEnded("too_fast", CloseCode.TOO_FAST, message)
