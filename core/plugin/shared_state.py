"""What plugins of all workers of a service know together: small values that expire, such as tickets that were used.

It lives as long as the service: in a file of the service's private folder where workers are processes of their own, and
otherwise in memory.
"""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

WAIT_S = 5.0
"""How long one process waits for another's change, which takes microseconds."""
Expiring = tuple[str, float]
"""A value, and the time at which it may be forgotten."""


class SharedState:
    """A table of texts by kind and key. Every method is atomic, takes well under a millisecond, and may be called from
    any thread. The times are those of the caller's clock, which must be one that all processes share."""

    def __init__(self, path: Path | None = None) -> None:
        """`path` None is in the memory of this process."""
        self._lock = threading.Lock()
        self._database = sqlite3.connect(
            path or ":memory:", timeout=WAIT_S, isolation_level=None, check_same_thread=False
        )
        self._database.execute("PRAGMA synchronous = OFF")  # it need not survive the machine
        self._database.execute("PRAGMA journal_mode = MEMORY")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS entries "
            "(kind TEXT, key TEXT, value TEXT, until REAL, PRIMARY KEY (kind, key)) WITHOUT ROWID"
        )
        self._database.execute("CREATE INDEX IF NOT EXISTS by_end ON entries (kind, until)")

    def get(self, kind: str, key: str) -> str | None:
        """The value, or None."""
        with self._lock:
            row = self._database.execute("SELECT value FROM entries WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return None if row is None else str(row[0])

    def count(self, kind: str, now: float) -> int:
        """How many keys of a kind have not expired. Those that have are forgotten."""
        with self._lock:
            self._database.execute("DELETE FROM entries WHERE kind = ? AND until <= ?", (kind, now))
            [count] = self._database.execute("SELECT count(*) FROM entries WHERE kind = ?", (kind,)).fetchone()
        return int(count)

    def add(self, kind: str, key: str, until: float) -> bool:
        """Add a key. False when it is there already."""
        with self._lock:
            done = self._database.execute("INSERT OR IGNORE INTO entries VALUES (?, ?, '', ?)", (kind, key, until))
        return done.rowcount == 1

    def update(self, kind: str, key: str, change: Callable[[str | None], Expiring]) -> str:
        """Replace a value by what `change` makes of it; nobody else changes it meanwhile. The new value."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                row = self._database.execute(
                    "SELECT value FROM entries WHERE kind = ? AND key = ?", (kind, key)
                ).fetchone()
                value, until = change(None if row is None else str(row[0]))
                self._database.execute("REPLACE INTO entries VALUES (?, ?, ?, ?)", (kind, key, value, until))
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
        return value

    def forget_first(self, kind: str, keep: int) -> None:
        """Forget the keys of a kind that expire first, so that so many are left."""
        with self._lock:
            self._database.execute(
                "DELETE FROM entries WHERE (kind, key) IN "
                "(SELECT kind, key FROM entries WHERE kind = ? ORDER BY until DESC LIMIT -1 OFFSET ?)",
                (kind, keep),
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()
