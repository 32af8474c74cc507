"""What is used of a day's budget, added up over containers that come and go."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from core.plugin.store import Change, MemoryStore, MemoryTable, Numbers
from deploy.records import SPENT, Records

BUDGET = "budget"
"""The table in which the plugin `budget` counts. Its keys begin with the day; its numbers are sums of seconds."""
GPU = "gpu"
"""For whom the time of all GPUs' containers is counted in it."""


def today(clock: Callable[[], float] = time.time) -> str:
    """The day by UTC, such as `2026-11-26`."""
    return datetime.fromtimestamp(clock(), UTC).date().isoformat()


class SharedSums(MemoryTable):
    """A table of sums, of which this container adds its own part to what the others have added."""

    def __init__(self) -> None:
        super().__init__(0, False, time.monotonic)
        self.own: dict[str, float] = {}
        self.others: dict[str, float] = {}

    def get(self, key: str) -> Numbers | None:
        """See `Table`."""
        if key not in self.own and key not in self.others:
            return None
        return (self.own.get(key, 0.0) + self.others.get(key, 0.0),)

    def update(self, key: str, change: Change, lifetime_s: float) -> Numbers | None:  # noqa: ARG002 - days go by the key
        """See `Table`. What `change` adds is this container's own."""
        with self._lock:
            before = self.get(key)
            after = change(before)
            self.own[key] = self.own.get(key, 0.0) + after[0] - (before[0] if before else 0.0)
            return after


class Ledger(MemoryStore):
    """The `Store` of a container: all is in its memory, but the budget's table is shared through the records."""

    def __init__(self, records: Records, container: str, clock: Callable[[], float] = time.time) -> None:
        """`container` is this one's id, and no other's; `clock` gives seconds since 1970."""
        super().__init__()
        self._records = records
        self._container = container
        self._clock_of_day = clock
        self._written: dict[str, float] = {}
        self.sums = SharedSums()

    def table(self, name: str, capacity: int, evict: bool) -> MemoryTable:
        """See `Store`."""
        return self.sums if name == BUDGET else super().table(name, capacity, evict)

    def add_gpu(self, seconds: float) -> None:
        """Count time of this container."""
        key = f"{today(self._clock_of_day)} {GPU}"
        self.sums.update(key, lambda before: ((before[0] if before else 0.0) + seconds,), 0)

    def gpu_s(self) -> float:
        """Seconds of all containers with a GPU, today."""
        return (self.sums.get(f"{today(self._clock_of_day)} {GPU}") or (0.0,))[0]

    async def sync(self, spent: Mapping[str, Mapping[str, float]]) -> None:
        """Take over what the others have written, which is `spent`, and write what is new here.

        What is older than yesterday is forgotten, here and in the records.
        """
        yesterday = today(lambda: self._clock_of_day() - timedelta(days=1).total_seconds())
        others: dict[str, float] = {}
        for container, amounts in spent.items():
            recent = {key: amount for key, amount in amounts.items() if key[:10] >= yesterday}
            if container == self._container:
                continue
            if not recent and amounts:
                await self._records.pop(SPENT + container)
            for key, amount in recent.items():
                others[key] = others.get(key, 0.0) + amount
        self.sums.others = others
        own = {key: amount for key, amount in self.sums.own.items() if key[:10] >= yesterday}
        self.sums.own = own
        if own != self._written:
            await self._records.put(SPENT + self._container, own)
            self._written = dict(own)
