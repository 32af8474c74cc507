"""A `Store` in a file, for services of several processes."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.plugin.store import Change, Numbers

WAIT_S = 5.0
"""How long one process waits for another's update, which takes well under a millisecond."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    name TEXT, key TEXT, numbers TEXT, expires REAL, updated REAL, PRIMARY KEY (name, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_expiry ON entries (name, expires);
CREATE INDEX IF NOT EXISTS by_update ON entries (name, updated);
"""


class FileTable:
    """A `Table` in a FileStore."""

    def __init__(self, store: "FileStore", name: str, capacity: int, evict: bool) -> None:
        self._store, self._name, self._capacity, self._evict = store, name, capacity, evict

    def __len__(self) -> int:
        return int(self._store.ask("SELECT count(*) FROM entries WHERE name = ?", self._name)[0])

    def get(self, key: str) -> Numbers | None:
        """See `Table`."""
        query = "SELECT numbers FROM entries WHERE name = ? AND key = ? AND expires > ?"
        found = self._store.ask(query, self._name, key, self._store.clock())
        return tuple(json.loads(found[0])) if found else None

    def update(self, key: str, change: Change, lifetime_s: float) -> Numbers | None:
        """See `Table`."""
        name, ask = self._name, self._store.ask
        with self._store.transaction():
            now = self._store.clock()
            before = self.get(key)
            ask("DELETE FROM entries WHERE name = ? AND (key = ? OR expires <= ?)", name, key, now)
            if len(self) >= self._capacity:
                if not self._evict:
                    return None
                oldest = "SELECT key FROM entries WHERE name = ? ORDER BY updated LIMIT 1"
                ask(f"DELETE FROM entries WHERE name = ? AND key IN ({oldest})", name, name)  # noqa: S608 - no input in it
            numbers = change(before)
            ask("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", name, key, json.dumps(numbers), now + lifetime_s, now)
            return numbers


class FileStore:
    """A `Store` whose tables stand in a file, which lives no longer than the service.

    Its methods block for well under a millisecond, and may be called from any thread.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds from a fixed point that all processes share, as the default does on one machine."""
        self.clock = clock
        self._lock = threading.RLock()
        self._local: dict[str, dict[Any, Any]] = {}
        self._database = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA synchronous = OFF")  # it need not survive the machine
        self._database.execute("PRAGMA journal_mode = PERSIST")  # so that what a killed process began is undone
        self._database.executescript(_SCHEMA)

    def table(self, name: str, capacity: int, evict: bool) -> FileTable:
        """See `Store`."""
        return FileTable(self, name, capacity, evict)

    def local(self, name: str) -> dict[Any, Any]:
        """See `Store`."""
        return self._local.setdefault(name, {})

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    # What its tables use.

    def ask(self, query: str, *values: object) -> Any:
        """Run a statement; its first row, or None."""
        with self._lock:
            return self._database.execute(query, values).fetchone()

    def transaction(self) -> "_Transaction":
        """A context in which no other thread and no other process changes anything; an error undoes what was done."""
        return _Transaction(self._lock, self._database)


class _Transaction:
    def __init__(self, lock: Any, database: sqlite3.Connection) -> None:
        self._lock, self._database = lock, database

    def __enter__(self) -> None:
        self._lock.acquire()
        try:
            self._database.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._lock.release()
            raise

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        try:
            self._database.execute("COMMIT" if kind is None else "ROLLBACK")
        finally:
            if self._database.in_transaction:  # the file stayed busy for too long
                self._database.rollback()
            self._lock.release()
