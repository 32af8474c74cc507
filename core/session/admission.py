"""Admission to the engine's slots: callers wait in a bounded queue that is fair between identities and addresses."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from core.engine.call import Call, Engine
from core.engine.prompt import Prompt
from core.engine.sampling import Sampling
from core.errors import EngineBusyError
from core.settings.sections import ServerConfig

OnQueued = Callable[[int], Awaitable[None]]
"""Called with the place in the queue, from 1."""


class TooManyCallsError(EngineBusyError):
    """A caller has as many calls as one may have."""


@dataclass(frozen=True)
class Caller:
    """Between whom the queue is fair: the name of an identity, and the caller's place on the network."""

    identity: str
    address: str


@dataclass(eq=False)
class _Waiter:
    """One call in the queue. `wake` is set when its place or a slot may have changed."""

    caller: Caller
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Admission(Protocol):
    """How a session gets its slot, wherever the slots and the queue are."""

    @property
    def waiting(self) -> int:
        """How many callers wait."""

    def slot(
        self, caller: Caller, prompt: Prompt, sampling: Sampling, on_queued: OnQueued, longest_s: float | None = None
    ) -> AbstractAsyncContextManager[Call]:
        """A slot, held until the context is left; the next caller then gets it at once.

        Prompt, sampling and `longest_s` are for `Engine.open`. While the caller waits, `on_queued` is called with the
        place, first at once and then whenever it changes. Leaving before a slot is free gives up the place. Raises
        TooManyCallsError, EngineBusyError when the queue is full or the wait too long, and what `Engine.open` raises.
        """


class EngineAdmission:
    """Admission to an engine of this process. Belongs to one event loop."""

    def __init__(self, engine: Engine, config: ServerConfig) -> None:
        self._engine = engine
        self._queue = FairQueue(config)

    @property
    def waiting(self) -> int:
        """See Admission."""
        return self._queue.waiting

    def slot(
        self, caller: Caller, prompt: Prompt, sampling: Sampling, on_queued: OnQueued, longest_s: float | None = None
    ) -> AbstractAsyncContextManager[Call]:
        """See Admission."""

        async def open_call() -> Call:
            return self._engine.open(prompt, sampling, longest_s)

        return self._queue.slot(caller, open_call, on_queued)


class Slot(Protocol):
    """What a FairQueue gives out."""

    async def close(self) -> None:
        """Free the slot."""


_Slot = TypeVar("_Slot", bound=Slot)


class FairQueue:
    """A fair queue before a number of slots. Belongs to one event loop.

    The next slot goes to the identity with the fewest running calls; among callers of one identity, to the address with
    the fewest running calls; among those, to whoever came first.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._max_waiting = config.queue
        self._max_wait_s = config.queue_wait_s
        self._per_identity = config.calls_per_identity
        self._per_address = config.calls_per_address
        self._running: list[Caller] = []
        """The caller of each call that runs or is being opened."""
        self._queue: list[_Waiter] = []
        """In the order in which they get a slot."""
        self._arrivals: list[_Waiter] = []
        """The same waiters in the order in which they came."""

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        return len(self._queue)

    @asynccontextmanager
    async def slot(
        self, caller: Caller, open_slot: Callable[[], Awaitable[_Slot]], on_queued: OnQueued
    ) -> AsyncIterator[_Slot]:
        """As `Admission.slot`. `open_slot` raises EngineBusyError while no slot is free."""
        self._check_call_limits(caller)
        slot = await self._enter(caller, lambda: self._open(caller, open_slot), on_queued)
        try:
            yield slot
        finally:
            try:
                await slot.close()
            finally:
                self._running.remove(caller)
                self.wake()

    def wake(self) -> None:
        """A slot may be free. Without a new order: whoever was told to be the first one stays it."""
        _wake(self._queue)

    def _check_call_limits(self, caller: Caller) -> None:
        callers = [*self._running, *(waiter.caller for waiter in self._queue)]
        same_identity = sum(other.identity == caller.identity for other in callers)
        if 0 < self._per_identity <= same_identity:
            raise TooManyCallsError(
                f"You have {_count(same_identity, 'call')} already, and may have no more. End one first."
            )
        same_address = sum(other.address == caller.address for other in callers)
        if 0 < self._per_address <= same_address:
            raise TooManyCallsError(
                f"{_count(same_address, 'call comes', 'calls come')} from your address already. End one first."
            )

    async def _enter(self, caller: Caller, open_slot: Callable[[], Awaitable[_Slot]], on_queued: OnQueued) -> _Slot:
        if not self._queue:
            try:
                return await open_slot()
            except EngineBusyError:
                pass
        try:
            async with asyncio.timeout(self._max_wait_s):
                return await self._wait(_Waiter(caller), open_slot, on_queued)
        except TimeoutError:
            raise EngineBusyError(
                f"No slot became free in {self._max_wait_s:g} s. Try again in a few minutes."
            ) from None

    async def _wait(self, waiter: _Waiter, open_slot: Callable[[], Awaitable[_Slot]], on_queued: OnQueued) -> _Slot:
        """Wait in the queue until this waiter is the first one and a slot is free."""
        self._arrivals.append(waiter)
        self._reorder()
        reported = 0
        try:
            while True:
                waiter.wake.clear()
                if waiter not in self._queue:
                    raise EngineBusyError(
                        f"Every slot is taken and {_count(len(self._queue), 'caller waits', 'callers wait')}. "
                        "Try again in a minute."
                    )
                place = self._queue.index(waiter) + 1
                if place == 1:
                    try:
                        return await open_slot()
                    except EngineBusyError:
                        pass
                if place != reported:
                    reported = place
                    await on_queued(place)
                await waiter.wake.wait()
        finally:
            if waiter in self._arrivals:
                self._arrivals.remove(waiter)
            self._reorder()

    async def _open(self, caller: Caller, open_slot: Callable[[], Awaitable[_Slot]]) -> _Slot:
        self._running.append(caller)  # before the slot is open, so that the limits hold for those who come meanwhile
        try:
            return await open_slot()
        except BaseException:
            self._running.remove(caller)
            raise

    def _reorder(self) -> None:
        """Put the queue in its fair order, remove the last ones when there are too many, and wake all."""
        waiters = _fair_order(self._arrivals, lambda waiter: waiter.caller, self._running)
        identities = [caller.identity for caller in self._running]
        waiters = _fair_order(waiters, lambda waiter: waiter.caller.identity, identities)
        for waiter in waiters[self._max_waiting :]:
            self._arrivals.remove(waiter)
        self._queue = waiters[: self._max_waiting]
        _wake(waiters)


def _count(number: int, one: str, more: str = "") -> str:
    """A number and its noun."""
    return f"{number} {one if number == 1 else more or one + 's'}"


def _wake(waiters: Iterable[_Waiter]) -> None:
    """Let each look at its place again, and whether a slot is free."""
    for waiter in waiters:
        waiter.wake.set()


def _fair_order(
    waiters: Sequence[_Waiter], key: Callable[[_Waiter], Hashable], running: Iterable[Hashable]
) -> list[_Waiter]:
    """The waiters, ordered by how many calls with the same key run or wait before them; ties keep their order.

    `running` are the keys of the running calls.
    """
    calls = Counter(running)
    ranked = []
    for waiter in waiters:
        ranked.append((calls[key(waiter)], waiter))
        calls[key(waiter)] += 1
    return [waiter for _, waiter in sorted(ranked, key=lambda pair: pair[0])]
