"""How often somebody may try a password: a few times at once, then ever more slowly."""

import time
from collections.abc import Callable

from core.plugin.shared_state import SharedState
from core.session.addresses import neighbourhood

FREE = 5
"""Wrong tries before the first wait: people mistype."""
LONGEST_S = 900.0
FORGET_S = 3600.0
"""Wrong tries count until there was none for so long. With LONGEST_S it leaves a guesser some 15 tries an hour."""
MOST_PLACES = 10_000
"""Places remembered, so that an attack from many cannot fill the memory; the one that was quiet longest goes first."""


KIND = "login failures"


class Attempts:
    """Counts wrong tries by the place on the network that they come from.

    A right one does not clear the count: whoever has one password could else guess the others at leisure.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, shared: SharedState | None = None) -> None:
        """`shared` is what other processes count in, too; without it, these counts are this object's own."""
        self._clock = clock
        self._shared = shared or SharedState()

    def wait_s(self, address: str) -> float:
        """How many seconds this address must wait before its next try; 0 when it may try now."""
        failures = self._shared.get(KIND, neighbourhood(address))
        count, last = _read(failures)
        if count < FREE:
            return 0.0
        wait = min(2.0 ** min(count - FREE, 32), LONGEST_S)
        return max(last + wait - self._clock(), 0.0)

    def failed(self, address: str) -> int:
        """Note a wrong try. Returns how many there were lately."""
        now = self._clock()
        if self._shared.count(KIND, now) >= MOST_PLACES:
            self._shared.forget_first(KIND, MOST_PLACES - 1)

        def one_more(failures: str | None) -> tuple[str, float]:
            return f"{_read(failures)[0] + 1} {now}", now + FORGET_S

        return _read(self._shared.update(KIND, neighbourhood(address), one_more))[0]


def _read(failures: str | None) -> tuple[int, float]:
    """How many there were, and when the last one was."""
    count, last = (failures or "0 0").split()
    return int(count), float(last)
