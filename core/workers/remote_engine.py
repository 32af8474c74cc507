"""A worker's side: the engines and the queue of other processes, as a session and plugins know them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from core.engine.call import FRAME_S, Call, DeviceHealth, EngineHealth, EngineInfo
from core.engine.prompt import Prompt, Voice
from core.engine.sampling import Sampling
from core.errors import EngineError, PromptError
from core.session.admission import Caller, OnQueued
from core.settings.sections import EngineConfig
from core.workers.connection import Connection
from core.workers.messages import (
    HEARTBEAT_S,
    Alive,
    Ask,
    EngineState,
    Granted,
    Hello,
    Leave,
    Left,
    Message,
    Refused,
    State,
    Stop,
    Waits,
)
from core.workers.paths import engine_socket, voices_folder
from core.workers.remote_call import EngineLink, RemoteCall
from core.workers.voice_files import VoiceFiles

LEAVE_S = 3.0
"""How long a caller who leaves waits for the slot to be free, beyond what the desk waits."""
VOICE_S = 10.0
STARTING = "The engine is being started. Call again in a minute."


class Desk(Connection):
    """A worker's connection to the front desk."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number
        self.state: State | None = None
        self.complete = asyncio.Event()
        """Set when every engine has been up."""
        self.stopped: asyncio.Future[Stop] = self._loop.create_future()
        """Done when the supervisor wants this worker to end, or is gone."""
        self.at_once = asyncio.Event()
        """Set when calls must not be waited for."""
        self._asks: dict[int, asyncio.Queue[Message]] = {}
        self._count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.send(Hello("worker", self._number))
        self._send_heartbeats()

    def received(self, message: Message) -> None:
        match message:
            case State(engines=engines):
                self.state = message
                if all(engine is not None for engine in engines):
                    self.complete.set()
            case Waits(ask=ask) | Granted(ask=ask) | Refused(ask=ask) | Left(ask=ask):
                if ask in self._asks:
                    self._asks[ask].put_nowait(message)
            case Stop(at_once=at_once):
                self._stop(message, at_once)

    def lost(self) -> None:
        self._stop(Stop(at_once=True), True)
        for asked in self._asks.values():
            asked.put_nowait(Stop(at_once=True))

    @contextlib.contextmanager
    def asking(self) -> Iterator[tuple[int, "asyncio.Queue[Message]"]]:
        """A number for a caller, and what the desk says about it."""
        self._count += 1
        ask, answers = self._count, asyncio.Queue[Message]()
        self._asks[ask] = answers
        try:
            yield ask, answers
        finally:
            del self._asks[ask]

    def _send_heartbeats(self) -> None:
        if self.alive:
            self.send(Alive())
            self._loop.call_later(HEARTBEAT_S, self._send_heartbeats)

    def _stop(self, stop: Stop, at_once: bool) -> None:
        if not self.stopped.done():
            self.stopped.set_result(stop)
        if at_once:
            self.at_once.set()


class RemoteEngine:
    """All engines of a service as one, for a worker. See `core.engine.call.Engine`; calls are opened by admission."""

    def __init__(self, desk: Desk, folder: Path, config: EngineConfig) -> None:
        """`desk` has complete state; `folder` is the service's private one."""
        self._desk, self._folder = desk, folder
        self._loop = asyncio.get_running_loop()
        self._max_waiting = max(1, round(config.max_lag_ms / 1000 / FRAME_S))
        self.files = VoiceFiles(voices_folder(folder))
        self._links: dict[int, EngineLink] = {}
        self._connecting = asyncio.Lock()
        self._fingerprints: dict[str, str] = {}
        first = self._states()[0]
        devices = list(dict.fromkeys(state.info.device for state in self._states()))
        count = len(self._states())
        name = ", ".join(devices) if count == 1 else f"{count} x {', '.join(devices)}"
        self._info = EngineInfo(
            first.info.name,
            first.info.notice,
            name,
            sum(state.info.slots for state in self._states()),
            first.info.sampling,
            first.info.limits,
            min(state.info.longest_s for state in self._states()),
            first.info.context_s,
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def waiting(self) -> int:
        """How many callers wait, in all workers."""
        return self._desk.state.waiting if self._desk.state else 0

    def health(self) -> EngineHealth:
        """All devices together; a problem only when none serves."""
        devices = self.devices()
        well = [device for device in devices if not device.problem]
        return EngineHealth(
            busy=sum(device.busy for device in devices),
            slots=sum(device.slots for device in well or devices),
            problem="" if well else devices[0].problem,
        )

    def devices(self) -> tuple[DeviceHealth, ...]:
        return tuple(state.device for state in self._states())

    def voices(self) -> tuple[str, ...]:
        return self._states()[0].voices

    def voice(self, name: str) -> Voice | None:
        """From any thread but the event loop's."""
        if name not in self.voices():
            return None
        if name not in self._fingerprints:
            found = asyncio.run_coroutine_threadsafe(self._find_voice(name), self._loop).result(VOICE_S)
            if found is None:
                return None
            self._fingerprints[name] = found
        try:
            return self.files.get(name, self._fingerprints[name])
        except PromptError:  # the file is gone since: the engine is asked again next time
            del self._fingerprints[name]
            raise

    def prepare(self, voice: Voice) -> None:
        """From any thread but the event loop's. Every engine encodes it."""
        if voice.pcm is not None:
            asyncio.run_coroutine_threadsafe(self._prepare(voice.name, self.files.put(voice)), self._loop)

    def open(
        self,
        prompt: Prompt,  # noqa: ARG002 - see the class
        sampling: Sampling,  # noqa: ARG002
        longest_s: float | None = None,  # noqa: ARG002
    ) -> Call:
        raise EngineError("The engine is another process; its calls are opened by way of the queue.")

    def close(self) -> None:
        """End the connections; the engines go on."""
        for link in self._links.values():
            link.close()

    async def attach(self, granted: Granted) -> RemoteCall:
        """The call that the desk has opened. Raises EngineError when its engine is gone."""
        link = await self._link(granted.engine)
        return link.attach(granted.call, granted.seed, self._max_waiting)

    async def _link(self, engine: int) -> EngineLink:
        async with self._connecting:
            link = self._links.get(engine)
            if link is None or not link.alive:
                try:
                    _, link = await self._loop.create_unix_connection(EngineLink, engine_socket(self._folder, engine))
                except OSError as error:
                    raise EngineError(STARTING) from error
                self._links[engine] = link
            return link

    async def _find_voice(self, name: str) -> str | None:
        state = self._desk.state
        up = [n for n, engine in enumerate(state.engines if state else ()) if engine and not engine.device.problem]
        return await (await self._link(up[0] if up else 0)).find_voice(name)

    async def _prepare(self, voice: str, fingerprint: str) -> None:
        for engine in range(len(self._desk.state.engines) if self._desk.state else 0):
            with contextlib.suppress(EngineError):  # it is being started; the plugin asks again
                (await self._link(engine)).prepare(voice, fingerprint)

    def _states(self) -> list[EngineState]:
        state = self._desk.state
        return [engine for engine in state.engines if engine is not None] if state else []


class RemoteAdmission:
    """The queue at the front desk. See `core.session.admission.Admission`."""

    def __init__(self, desk: Desk, engine: RemoteEngine) -> None:
        self._desk, self._engine = desk, engine

    @property
    def waiting(self) -> int:
        return self._engine.waiting

    @asynccontextmanager
    async def slot(
        self, caller: Caller, prompt: Prompt, sampling: Sampling, on_queued: OnQueued, longest_s: float | None = None
    ) -> AsyncIterator[Call]:
        sent = await asyncio.to_thread(self._engine.files.send, prompt)
        with self._desk.asking() as (ask, answers):
            self._desk.send(Ask(ask, caller, sent, sampling, longest_s))
            call: RemoteCall | None = None
            held = True
            try:
                while call is None:
                    match await answers.get():
                        case Waits(place=place):
                            await on_queued(place)
                        case Granted() as granted:
                            call = await self._engine.attach(granted)
                        case Refused(failure=failure):
                            held = False
                            raise failure.error()
                        case _:
                            held = False
                            raise EngineError("The server is shutting down. Call again in a minute.")
                yield call
            finally:
                if call is not None:
                    await call.close()
                if held and self._desk.alive:
                    self._desk.send(Leave(ask))
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LEAVE_S):
                            while not isinstance(await answers.get(), Left | Stop):
                                pass
