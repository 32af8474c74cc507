"""The supervisor's part in calls: one queue before the slots of all engines, and who has which.

It holds no audio: once a call is open, its frames go between worker and engine directly.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from core.engine.call import DeviceHealth
from core.errors import EngineBusyError, EngineError
from core.session.admission import FairQueue
from core.settings.log import get_logger
from core.settings.sections import ServerConfig
from core.workers.connection import Connection
from core.workers.engine_slots import GONE, EngineSlots, Slot
from core.workers.messages import (
    Ask,
    Broken,
    EngineState,
    EngineUp,
    Failure,
    Granted,
    Heartbeat,
    Hello,
    Leave,
    Left,
    Message,
    Open,
    Refused,
    Report,
    Settings,
    Silent,
    Started,
    State,
    Stop,
    Waits,
)

STATE_S = 0.05
"""Workers hear at most so often how engines and queue are."""
SILENCE_S = 15.0
"""A process that served and has said nothing for so long is stuck: nothing may hold up its event loop like that."""
_log = get_logger("front desk")


class FrontDesk:
    """Where engines and workers report, and workers ask for slots."""

    def __init__(self, config: ServerConfig, engines: int, told: Callable[[Hello, Message], None]) -> None:
        """`told` hears what concerns whoever started the processes: Started, Broken,
        Report, Settings and Silent."""
        self.queue = FairQueue(config)
        self.told = told
        self.engines: list[EngineSlots | None] = [None] * engines
        self.states: list[EngineState | None] = [None] * engines
        self._workers: dict[int, _Worker] = {}
        self._connected: dict[tuple[str, int], _Visitor] = {}
        self._stopping: dict[str, Stop] = {}
        """By role, what its processes have been told."""
        self._calls = 0
        self._telling: asyncio.TimerHandle | None = None

    def accept(self) -> Connection:
        """A process has connected."""
        return _Visitor(self)

    def stop(self, role: str, *, at_once: bool) -> None:
        """Tell all processes of a role to end, those too that are still to connect."""
        self._stopping[role] = Stop(at_once)
        for (other, _), connection in self._connected.items():
            if other == role:
                connection.send(self._stopping[role])

    async def heard_out(self, role: str, number: int) -> None:
        """Return when all has been read that a process, which has ended, said last."""
        connection = self._connected.get((role, number))
        if connection is not None:
            await connection.ended.wait()

    async def open(self, ask: Ask) -> Slot:
        """Open a call where most slots are free. Raises EngineBusyError when there is none, and EngineError."""
        engines = sorted((one for one in self.engines if one is not None), key=lambda one: one.free, reverse=True)
        if not engines:
            raise EngineError(GONE)
        for engine in engines:
            self._calls += 1
            try:
                return await engine.open_call(Open(self._calls, ask.prompt, ask.sampling, ask.longest_s))
            except EngineBusyError:
                continue
        raise EngineBusyError("Every slot is taken. Try again in a moment.")

    def changed(self) -> None:
        """Tell the workers soon how engines and queue are now."""
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(STATE_S, self._tell)

    def _slots_changed(self) -> None:
        self.queue.wake()
        self.changed()

    def state(self) -> State:
        """What workers are told."""
        states = [
            replace_device(state, busy=engine.busy if engine else 0)
            for state, engine in zip(self.states, self.engines, strict=True)
        ]
        return State(tuple(states), self.queue.waiting)

    def _tell(self) -> None:
        self._telling = None
        state = self.state()
        for worker in self._workers.values():
            if worker.connection.congested:  # it is told when it reads again
                self.changed()
            else:
                worker.connection.send(state)

    # What the connections report.

    def arrived(self, connection: "_Visitor", hello: Hello) -> "EngineSlots | _Worker":
        """Somebody has said who it is."""
        self._connected[hello.role, hello.number] = connection
        if hello.role in self._stopping:
            connection.send(self._stopping[hello.role])
        if hello.role == "engine":
            return EngineSlots(connection, hello.number, self._slots_changed)
        worker = self._workers[hello.number] = _Worker(self, connection, hello.number)
        self.changed()
        return worker

    def left(self, connection: "_Visitor", hello: Hello) -> None:
        """A process has ended."""
        if self._connected.get((hello.role, hello.number)) is connection:
            del self._connected[hello.role, hello.number]

    def engine_up(self, engine: EngineSlots, up: EngineUp) -> None:
        """An engine takes calls."""
        number, engine.slots = engine.number, up.info.slots
        name = f"{number} {up.info.device}"
        self.engines[number] = engine
        self.states[number] = EngineState(up.info, DeviceHealth(name, 0, up.info.slots, ""), up.voices)
        _log.info("engine up", engine=number, device=up.info.device, slots=up.info.slots)
        self.queue.wake()
        self.changed()

    def engine_heartbeat(self, engine: EngineSlots, heartbeat: Heartbeat) -> None:
        """How an engine is."""
        state = self.states[engine.number]
        if state is not None:
            device = replace(heartbeat.device, device=state.device.device, problem=heartbeat.health.problem)
            self.states[engine.number] = EngineState(state.info, device, state.voices)
            if device != state.device:
                self.changed()

    def engine_gone(self, engine: EngineSlots) -> None:
        """An engine's process has ended."""
        if self.engines[engine.number] is engine:
            self.engines[engine.number] = None
            self.states[engine.number] = replace_device(self.states[engine.number], problem=GONE)
            if "engine" not in self._stopping:
                _log.error("engine gone", engine=engine.number)
            self.changed()

    def worker_gone(self, worker: "_Worker") -> None:
        """A worker's process has ended."""
        if self._workers.get(worker.number) is worker:
            del self._workers[worker.number]


def replace_device(state: EngineState | None, **changes: object) -> EngineState | None:
    """The state with another health of its device."""
    return state and EngineState(state.info, replace(state.device, **changes), state.voices)  # type: ignore[arg-type]


class _Visitor(Connection):
    """A connection, and who is behind it once that is known."""

    def __init__(self, desk: FrontDesk) -> None:
        super().__init__()
        self._desk = desk
        self._party: EngineSlots | _Worker | None = None
        self._hello = Hello("", 0)
        self._silence: asyncio.TimerHandle | None = None
        self.ended = asyncio.Event()

    def received(self, message: Message) -> None:
        if self._silence is not None or isinstance(message, Started):
            self._watch()
        if isinstance(message, Hello):
            self._hello = message
            self._party = self._desk.arrived(self, message)
        elif isinstance(message, Started | Broken | Report | Settings):
            self._desk.told(self._hello, message)
        elif isinstance(message, EngineUp) and isinstance(self._party, EngineSlots):
            self._desk.engine_up(self._party, message)
        elif isinstance(message, Heartbeat) and isinstance(self._party, EngineSlots):
            self._desk.engine_heartbeat(self._party, message)
        elif self._party is not None:
            self._party.received(message)

    def _watch(self) -> None:
        """Expect the next message."""
        if self._silence is not None:
            self._silence.cancel()
        self._silence = self._loop.call_later(SILENCE_S, self._desk.told, self._hello, Silent())

    def lost(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
        if self._party is not None:
            self._desk.left(self, self._hello)
            self.ended.set()
            self._party.lost()
            if isinstance(self._party, EngineSlots):
                self._desk.engine_gone(self._party)


class _Worker:
    """A worker process, and those of its callers who talk or wait."""

    def __init__(self, desk: FrontDesk, connection: Connection, number: int) -> None:
        self.connection, self.number = connection, number
        self._desk = desk
        self._asks: dict[int, asyncio.Task[None]] = {}

    def received(self, message: Message) -> None:
        match message:
            case Ask(ask=number):
                task = self._asks[number] = asyncio.get_running_loop().create_task(self._serve(message))
                task.add_done_callback(lambda done: self._served(number, done))
            case Leave(ask=number):
                if number in self._asks:
                    self._asks[number].cancel()
                else:
                    self.connection.send(Left(number))

    def lost(self) -> None:
        for task in self._asks.values():
            task.cancel()
        self._desk.worker_gone(self)

    async def _serve(self, ask: Ask) -> None:
        """Find the caller a slot and hold it; being cancelled is the caller's leaving."""

        async def on_queued(place: int) -> None:
            if not self.connection.congested:
                self.connection.send(Waits(ask.ask, place))
            self._desk.changed()

        try:
            async with self._desk.queue.slot(ask.caller, lambda: self._desk.open(ask), on_queued) as slot:
                self.connection.send(Granted(ask.ask, slot.engine.number, slot.call, slot.seed))
                await asyncio.Event().wait()
        except EngineError as error:
            self.connection.send(Refused(ask.ask, Failure.of(error)))

    def _served(self, ask: int, task: "asyncio.Task[None]") -> None:
        del self._asks[ask]
        self._desk.changed()
        if task.cancelled():
            self.connection.send(Left(ask))
        elif task.exception() is not None:
            _log.error("a call could not be opened", exc_info=task.exception())
            self.connection.send(Refused(ask, Failure("engine", "Something failed in the server. Call again.")))
