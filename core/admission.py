"""Who gets the next slot: callers wait in order, in a bounded queue."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from core.engine.call import Call, Engine
from core.engine.prompt import Prompt
from core.engine.sampling import Sampling
from core.errors import EngineBusyError


class Admission:
    """The queue before an engine's slots. Belongs to one event loop."""

    def __init__(self, engine: Engine, places: int, wait_s: float) -> None:
        """At most `places` callers wait, each for at most `wait_s` seconds."""
        self._engine = engine
        self._places = places
        self._wait_s = wait_s
        self._queue: list[asyncio.Event] = []

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        return len(self._queue)

    @asynccontextmanager
    async def slot(
        self, prompt: Prompt, sampling: Sampling, moved: Callable[[int], Awaitable[None]]
    ) -> AsyncIterator[Call]:
        """A slot, held until the context is left; the next caller then gets it at once.

        `moved` hears the place (from 1) while there is a wait, at first and whenever it changes. Leaving before the
        slot is there frees the place. Raises EngineBusyError when the queue is full or the wait too long, and what
        `Engine.open` raises.
        """
        call = await self._enter(prompt, sampling, moved)
        try:
            yield call
        finally:
            try:
                await call.close()
            finally:
                self._wake()

    async def _enter(self, prompt: Prompt, sampling: Sampling, moved: Callable[[int], Awaitable[None]]) -> Call:
        if not self._queue:
            try:
                return self._engine.open(prompt, sampling)
            except EngineBusyError:
                pass
        if len(self._queue) >= self._places:
            raise EngineBusyError(f"Every slot is taken and {len(self._queue)} callers wait. Try again in a minute.")
        try:
            async with asyncio.timeout(self._wait_s):
                return await self._wait(prompt, sampling, moved)
        except TimeoutError:
            raise EngineBusyError(f"No slot became free in {self._wait_s:g} s. Try again in a few minutes.") from None

    async def _wait(self, prompt: Prompt, sampling: Sampling, moved: Callable[[int], Awaitable[None]]) -> Call:
        """Stand in the queue until a slot is free at its head."""
        turn = asyncio.Event()
        self._queue.append(turn)
        told = 0
        try:
            while True:
                turn.clear()
                place = self._queue.index(turn) + 1
                if place == 1:
                    try:
                        return self._engine.open(prompt, sampling)
                    except EngineBusyError:
                        pass
                if place != told:
                    told = place
                    await moved(place)
                await turn.wait()
        finally:
            self._queue.remove(turn)
            self._wake()

    def _wake(self) -> None:
        """Let everyone look again: a slot or a place became free."""
        for turn in self._queue:
            turn.set()
