"""What plugins remember beyond an edit of their options, such as how often a password was guessed.

A plugin is made anew when its options change, so what must outlive that is not in its attributes but in the `Store`
that its hook `startup` is given. The tables of a store hold numbers alone, by key: so a service of several processes
can keep them in memory that all of them share, where one process keeps them in a dictionary (`MemoryStore`).
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

Numbers = tuple[float, ...]
"""What a table holds under a key: a few numbers."""
Change = Callable[[Numbers | None], Numbers]
"""Makes the new numbers of a key of its present ones; None when it has none."""


class Table(Protocol):
    """Numbers by key. A key is forgotten some time after its last update."""

    def get(self, key: str) -> Numbers | None:
        """The numbers of a key; None when it has none, or when they have expired."""

    def update(self, key: str, change: Change, lifetime_s: float) -> Numbers | None:
        """Replace the numbers of a key by what `change` makes of them, and forget them after `lifetime_s` seconds.

        Atomic: no other update of the key, in whichever process, happens meanwhile. Returns the new numbers; None when
        the table is full and does not evict, and nothing was written.
        """


class Store(Protocol):
    """Tables by name, the same ones for all processes of a service, and memory of this process alone."""

    def table(self, name: str, capacity: int, evict: bool) -> Table:
        """The table of this name, empty when it is new. `name` begins with the plugin's own.

        It holds at most `capacity` keys. With `evict` the one whose update is longest ago makes room for a new one;
        without it a new key is refused until an old one expires.
        """

    def local(self, name: str) -> dict[Any, Any]:
        """A dictionary of this process, for what is costly to make again. `name` begins with the plugin's own."""


class MemoryTable:
    """A `Table` in the memory of one process."""

    def __init__(self, capacity: int, evict: bool, clock: Callable[[], float]) -> None:
        self._capacity = capacity
        self._evict = evict
        self._clock = clock
        self._entries: dict[str, tuple[float, Numbers]] = {}
        """When each key expires, and its numbers; the latest update last."""
        self._nothing_expires_before = 0.0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Numbers | None:
        """See `Table`."""
        expires, numbers = self._entries.get(key, (0.0, ()))
        return numbers if expires > self._clock() else None

    def update(self, key: str, change: Change, lifetime_s: float) -> Numbers | None:
        """See `Table`."""
        with self._lock:
            now = self._clock()
            before = self.get(key)
            self._entries.pop(key, None)
            self._make_room(now)
            if len(self._entries) >= self._capacity:
                return None
            numbers = change(before)
            self._entries[key] = (now + lifetime_s, numbers)
            self._nothing_expires_before = min(self._nothing_expires_before, now + lifetime_s)
            return numbers

    def _make_room(self, now: float) -> None:
        """Drop what has expired: at once where it is oldest, else when the table is full, looking through all of it."""
        for key in list(self._oldest_expired(now)):
            del self._entries[key]
        if len(self._entries) < self._capacity:
            return
        if now >= self._nothing_expires_before:
            self._entries = {key: entry for key, entry in self._entries.items() if entry[0] > now}
            self._nothing_expires_before = min((expires for expires, _ in self._entries.values()), default=now)
        if self._evict and len(self._entries) >= self._capacity:
            del self._entries[next(iter(self._entries))]

    def _oldest_expired(self, now: float) -> list[str]:
        expired = []
        for key, (expires, _) in self._entries.items():
            if expires > now:
                break
            expired.append(key)
        return expired


class MemoryStore:
    """A `Store` in the memory of one process, for services of one process and for tests."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds from any fixed point."""
        self._clock = clock
        self._tables: dict[str, MemoryTable] = {}
        self._local: dict[str, dict[Any, Any]] = {}

    def table(self, name: str, capacity: int, evict: bool) -> MemoryTable:
        """See `Store`."""
        return self._tables.setdefault(name, MemoryTable(capacity, evict, self._clock))

    def local(self, name: str) -> dict[Any, Any]:
        """See `Store`."""
        return self._local.setdefault(name, {})
