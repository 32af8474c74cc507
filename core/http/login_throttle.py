"""How often somebody may try a password: a few times at once, then ever more slowly."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from core.session.addresses import neighbourhood

FREE = 5
"""Wrong tries before the first wait: people mistype."""
LONGEST_S = 900.0
FORGET_S = 3600.0
"""Wrong tries count until there was none for so long. With LONGEST_S it leaves a guesser some 15 tries an hour."""
MOST_PLACES = 10_000
"""Places remembered, so that an attack from many cannot fill the memory; the one that was quiet longest goes first."""


@dataclass
class _Failures:
    count: int
    last: float


class Attempts:
    """Counts wrong tries by the place on the network that they come from.

    A right one does not clear the count: whoever has one password could else guess the others at leisure.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, _Failures] = {}
        """The most recent last."""

    def wait_s(self, address: str) -> float:
        """How many seconds this address must wait before its next try; 0 when it may try now."""
        failures = self._failures.get(neighbourhood(address))
        if failures is None or failures.count < FREE:
            return 0.0
        wait = min(2.0 ** min(failures.count - FREE, 32), LONGEST_S)
        return max(failures.last + wait - self._clock(), 0.0)

    def failed(self, address: str) -> int:
        """Note a wrong try. Returns how many there were lately."""
        now = self._clock()
        for place in list(self._failures):
            if now - self._failures[place].last < FORGET_S and len(self._failures) < MOST_PLACES:
                break
            del self._failures[place]
        place = neighbourhood(address)
        before = self._failures.pop(place, None)
        self._failures[place] = _Failures(before.count + 1 if before else 1, now)
        return self._failures[place].count
