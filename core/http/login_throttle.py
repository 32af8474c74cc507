"""Login throttling: how often somebody may try a password. A few times at once, then ever more slowly."""

import time
from collections.abc import Callable

from core.plugin.store import Numbers, Store
from core.session.addresses import neighbourhood

FREE = 5
"""Wrong passwords before the first wait: people mistype."""
LONGEST_S = 900.0
"""The longest wait between two tries."""
FORGET_S = 3600.0
"""Wrong passwords count until there was none for so long. With LONGEST_S it leaves a guesser some 15 tries an hour."""
TRUST_S = 86_400.0
"""How long it counts that a right password came from an address."""
MOST_TRUSTED_TRIES = 1000
"""How many wrong passwords an address that must wait may bring in an hour before nobody is let through from there: they
are guesses at the passwords that would be let through."""
MOST_ADDRESSES = 10_000
"""Addresses remembered, so that an attack from many cannot fill the memory; the one quiet for longest is forgotten."""


class LoginThrottle:
    """Counts wrong passwords by the address that they come from, and says how long that address must wait.

    An IPv6 network of 64 bits counts as one address. A right password does not clear the count: whoever has one could
    else guess the others at leisure. Whose right password came from the same address before does not wait for somebody
    else who guesses there, behind the same router or proxy.
    """

    def __init__(self, store: Store, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        """What is counted stands in tables of `store` whose names begin with `name`; `clock` gives seconds."""
        self._clock = clock
        self._failures = store.table(f"{name} failures", MOST_ADDRESSES, evict=True)
        """By address: how many wrong passwords, and when the last one came."""
        self._trusted = store.table(f"{name} trusted", MOST_ADDRESSES, evict=True)
        """The pairs of an address and a holder of a password who was right from there."""
        self._trusted_tries = store.table(f"{name} trusted tries", MOST_ADDRESSES, evict=True)
        """By address: wrong passwords while it had to wait, and when the hour began that they are counted in."""

    def wait_s(self, address: str) -> float:
        """How many seconds this address must wait before its next try; 0 when it may try now."""
        count, last = self._failures.get(neighbourhood(address)) or (0, 0.0)
        if count < FREE:
            return 0.0
        wait = min(2.0 ** min(count - FREE, 32), LONGEST_S)
        return max(last + wait - self._clock(), 0.0)

    def failed(self, address: str) -> int:
        """Count a wrong password. Returns how many there were lately."""
        now = self._clock()
        changed = self._failures.update(
            neighbourhood(address), lambda before: (before[0] + 1 if before else 1, now), FORGET_S
        )
        return int(changed[0]) if changed else 1

    def succeeded(self, address: str, holder: str) -> None:
        """Note whose right password came from this address."""
        self._trusted.update(f"{holder}@{neighbourhood(address)}", lambda _: (1,), TRUST_S)

    def lets_through(self, address: str, holder: str | None) -> bool:
        """Whether a password is taken from an address that must wait: its holder was right from there before.

        None is a wrong password, which counts against the address.
        """
        place, now = neighbourhood(address), self._clock()
        tries, since = self._trusted_tries.get(place) or (0, now)
        if now - since >= FORGET_S:
            tries = 0
        if holder is not None:
            return tries < MOST_TRUSTED_TRIES and self._trusted.get(f"{holder}@{place}") is not None

        def one_more(before: Numbers | None) -> Numbers:
            tries, since = before or (0, now)
            return (tries + 1, since) if now - since < FORGET_S else (1, now)

        self._trusted_tries.update(place, one_more, FORGET_S)
        return False
