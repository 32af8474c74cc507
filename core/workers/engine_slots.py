"""The calls that the front desk has open on one engine."""

import asyncio
from collections.abc import Callable

from core.errors import EngineBusyError, EngineError
from core.workers.connection import Connection
from core.workers.messages import Close, Closed, Message, NotOpened, Open, Opened

OPEN_S = 10.0
"""How long an engine may take to open a call: it reads the voice, and takes a slot."""
CLOSE_S = 2.0
"""How long a slot may take to come back before whoever waits for that goes on."""
GONE = "The engine has stopped and is being started again. Call again in a minute."


class Slot:
    """A call that is open on an engine. See `core.session.admission.Slot`."""

    def __init__(self, engine: "EngineSlots", call: int, seed: int) -> None:
        self.engine, self.call, self.seed = engine, call, seed

    async def close(self) -> None:
        """Give the slot back."""
        await self.engine.close_call(self.call)


class EngineSlots:
    """The slots of one engine process, and who is on the way in or out."""

    def __init__(self, connection: Connection, number: int, on_change: Callable[[], None]) -> None:
        """`on_change` is called when a slot was taken or is free again."""
        self.connection, self.number = connection, number
        self.slots = 0
        """How many there are, once the engine is up."""
        self._on_change = on_change
        self._opening: dict[int, asyncio.Future[int]] = {}
        self._open: set[int] = set()
        self._closing: dict[int, asyncio.Future[None]] = {}

    @property
    def busy(self) -> int:
        """Slots that are taken, or on the way in or out."""
        return len(self._open) + len(self._opening) + len(self._closing)

    @property
    def free(self) -> int:
        """Slots that nobody has."""
        return self.slots - self.busy

    async def open_call(self, order: Open) -> Slot:
        """Open a call. Raises EngineError, and EngineBusyError at once when every slot is taken."""
        if self.free <= 0:
            raise EngineBusyError("Every slot is taken.")
        opened = self._opening[order.call] = asyncio.get_running_loop().create_future()
        self.connection.send(order)
        try:
            async with asyncio.timeout(OPEN_S):
                seed = await opened
        except EngineError:
            del self._opening[order.call]
            raise
        except BaseException as error:
            del self._opening[order.call]
            self._ask_to_close(order.call)
            if isinstance(error, TimeoutError):
                raise EngineError("The engine does not answer. Call again in a moment.") from None
            raise
        del self._opening[order.call]
        self._open.add(order.call)
        self._on_change()
        return Slot(self, order.call, seed)

    async def close_call(self, call: int) -> None:
        """Close a call; returns when its slot is free, or soon when the engine does not answer."""
        self._open.discard(call)
        closed = self._ask_to_close(call)
        await asyncio.wait([closed], timeout=CLOSE_S)

    def _ask_to_close(self, call: int) -> "asyncio.Future[None]":
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.connection.alive:
            self._closing[call] = closed
            self.connection.send(Close(call))
        else:
            closed.set_result(None)
        return closed

    def received(self, message: Message) -> None:
        """Take what the engine says about its calls."""
        match message:
            case Opened(call=call, seed=seed):
                _answer(self._opening.get(call), seed)
            case NotOpened(call=call, failure=failure):
                _answer(self._opening.get(call), failure.error())
            case Closed(call=call):
                _answer(self._closing.pop(call, None), None)
                self._on_change()

    def lost(self) -> None:
        """The engine is gone, and all calls with it."""
        for opening in self._opening.values():
            _answer(opening, EngineError(GONE))
        for closing in self._closing.values():
            _answer(closing, None)
        self._closing.clear()
        self._open.clear()


def _answer(waiting: "asyncio.Future[int] | asyncio.Future[None] | None", answer: int | Exception | None) -> None:
    if waiting is None or waiting.done():
        return
    if isinstance(answer, Exception):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)  # type: ignore[arg-type] # each kind gets its own
