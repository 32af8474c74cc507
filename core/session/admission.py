"""Who gets the next slot: callers wait in a bounded queue, in which callers of different names take turns."""

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
from core.settings.config import ServerConfig

Moved = Callable[[int], Awaitable[None]]
"""Hears the place in the queue, from 1."""


class TooManyCallsError(EngineBusyError):
    """Somebody has as many calls as one may have."""


@dataclass(frozen=True)
class Party:
    """Who calls: the name of an identity, and the place on the network."""

    identity: str
    address: str


@dataclass(eq=False)
class _Guest:
    """Somebody in the queue. `turn` is set when it is time to look again."""

    party: Party
    turn: asyncio.Event = field(default_factory=asyncio.Event)


class Admission(Protocol):
    """How a session gets its slot, wherever the slots and their queue are."""

    @property
    def waiting(self) -> int:
        """How many callers wait."""

    def slot(
        self, party: Party, prompt: Prompt, sampling: Sampling, moved: Moved, longest_s: float | None = None
    ) -> AbstractAsyncContextManager[Call]:
        """A slot, held until the context is left; the next caller then gets it at once.

        Prompt, sampling and `longest_s` are for `Engine.open`. `moved` hears the place while there is a wait, at first
        and whenever it changes. Leaving before the slot is there frees the place. Raises TooManyCallsError,
        EngineBusyError when the queue is full or the wait too long, and what `Engine.open` raises.
        """


class Slot(Protocol):
    """What the queue gives out."""

    async def close(self) -> None:
        """Give it back."""


_Slot = TypeVar("_Slot", bound=Slot)


class EngineAdmission:
    """See Admission: the queue before an engine of this process. Belongs to one event loop."""

    def __init__(self, engine: Engine, config: ServerConfig) -> None:
        self._engine = engine
        self._queue = CallQueue(config)

    @property
    def waiting(self) -> int:
        return self._queue.waiting

    def slot(
        self, party: Party, prompt: Prompt, sampling: Sampling, moved: Moved, longest_s: float | None = None
    ) -> AbstractAsyncContextManager[Call]:
        async def open_call() -> Call:
            return self._engine.open(prompt, sampling, longest_s)

        return self._queue.slot(party, open_call, moved)


class CallQueue:
    """The queue before some slots. Belongs to one event loop.

    The next slot goes to the identity with the fewest calls running; among callers of one identity, to the address with
    the fewest; and else to whoever came first.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._places = config.queue
        self._wait_s = config.queue_wait_s
        self._per_identity = config.calls_per_identity
        self._per_address = config.calls_per_address
        self._talking: list[Party] = []
        """Whose slot is open, or being opened."""
        self._queue: list[_Guest] = []
        """The next to be served first."""
        self._arrived: list[_Guest] = []
        """The same guests as they came."""

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        return len(self._queue)

    @asynccontextmanager
    async def slot(self, party: Party, open_slot: Callable[[], Awaitable[_Slot]], moved: Moved) -> AsyncIterator[_Slot]:
        """As `Admission.slot`. `open_slot` raises EngineBusyError while there is none."""
        self._check(party)
        slot = await self._enter(party, lambda: self._open(party, open_slot), moved)
        try:
            yield slot
        finally:
            try:
                await slot.close()
            finally:
                self._talking.remove(party)
                self.wake()

    def wake(self) -> None:
        """Let everyone look whether a slot is free, in the order as it is: whoever was told to be the next one is."""
        _wake(self._queue)

    def _check(self, party: Party) -> None:
        parties = [*self._talking, *(guest.party for guest in self._queue)]
        same_name = sum(one.identity == party.identity for one in parties)
        if 0 < self._per_identity <= same_name:
            raise TooManyCallsError(f"You have {same_name} calls already, and may have no more. End one first.")
        same_address = sum(one.address == party.address for one in parties)
        if 0 < self._per_address <= same_address:
            raise TooManyCallsError(f"{same_address} calls come from your address already. End one first.")

    async def _enter(self, party: Party, open_slot: Callable[[], Awaitable[_Slot]], moved: Moved) -> _Slot:
        if not self._queue:
            try:
                return await open_slot()
            except EngineBusyError:
                pass
        try:
            async with asyncio.timeout(self._wait_s):
                return await self._wait(_Guest(party), open_slot, moved)
        except TimeoutError:
            raise EngineBusyError(f"No slot became free in {self._wait_s:g} s. Try again in a few minutes.") from None

    async def _wait(self, guest: _Guest, open_slot: Callable[[], Awaitable[_Slot]], moved: Moved) -> _Slot:
        """Stand in the queue until a slot is free at its head."""
        self._arrived.append(guest)
        self._arrange()
        told = 0
        try:
            while True:
                guest.turn.clear()
                if guest not in self._queue:
                    raise EngineBusyError(
                        f"Every slot is taken and {len(self._queue)} callers wait. Try again in a minute."
                    )
                place = self._queue.index(guest) + 1
                if place == 1:
                    try:
                        return await open_slot()
                    except EngineBusyError:
                        pass
                if place != told:
                    told = place
                    await moved(place)
                await guest.turn.wait()
        finally:
            if guest in self._arrived:
                self._arrived.remove(guest)
            self._arrange()

    async def _open(self, party: Party, open_slot: Callable[[], Awaitable[_Slot]]) -> _Slot:
        self._talking.append(party)  # before it is open, so that limits hold for those who come meanwhile
        try:
            return await open_slot()
        except BaseException:
            self._talking.remove(party)
            raise

    def _arrange(self) -> None:
        """Put the queue in order, send away the last when there are too many, and let everyone look again."""
        guests = _take_turns(self._arrived, lambda guest: guest.party, self._talking)
        names = [party.identity for party in self._talking]
        guests = _take_turns(guests, lambda guest: guest.party.identity, names)
        for guest in guests[self._places :]:
            self._arrived.remove(guest)
        self._queue = guests[: self._places]
        _wake(guests)


def _wake(guests: Iterable[_Guest]) -> None:
    """Let them look where they stand, and whether a slot is free."""
    for guest in guests:
        guest.turn.set()


def _take_turns(
    guests: Sequence[_Guest], key: Callable[[_Guest], Hashable], served: Iterable[Hashable]
) -> list[_Guest]:
    """The guests in this order, except that those of each key take turns; whose key is served less come first."""
    turns = Counter(served)
    ranked = []
    for guest in guests:
        ranked.append((turns[key(guest)], guest))
        turns[key(guest)] += 1
    return [guest for _, guest in sorted(ranked, key=lambda one: one[0])]
