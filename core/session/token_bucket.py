"""How much somebody may do: a budget that refills with the clock."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds from any fixed point."""


class TokenBucket:
    """A budget that refills at a steady rate up to a most. Who spends more than there is owes the rest."""

    def __init__(self, rate: float, most: float, clock: Clock = time.monotonic) -> None:
        """`rate` is what comes back in a second; it begins full, with `most`."""
        self._rate = rate
        self._most = self._left = most
        self._clock = clock
        self._last = clock()

    def take(self, amount: float) -> float:
        """Spend `amount`. Returns in how many seconds nothing is owed; 0 when there was enough."""
        now = self._clock()
        self._left = min(self._left + (now - self._last) * self._rate, self._most) - amount
        self._last = now
        return max(-self._left / self._rate, 0.0)
