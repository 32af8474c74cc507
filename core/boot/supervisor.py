"""Starts the processes of a service, restarts those that end, and stops them all in order."""

import asyncio
import os
import pickle
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from core.boot.child_process import Orders
from core.boot.sizing import Processes, carried_callers, count_cores, count_workers
from core.errors import ConfigError, EngineError
from core.settings.config import Config
from core.settings.log import get_logger
from core.workers.fair_accept import WorkerLoads
from core.workers.front_desk import FrontDesk
from core.workers.messages import Broken, Hello, Message, Report, Settings, Silent, Started
from core.workers.paths import desk_socket, engine_socket, loads_file, metrics_folder, voices_folder

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Between the end of a process and its next start; each start that does not last doubles it."""
LASTING_S = 60.0
"""A process that ran for so long is started again after the first pause."""
GOODBYE_S = 25.0
"""Beyond `drain_s`: what a worker may take to say goodbye and stop its plugins."""
AT_ONCE_S = 15.0
"""What everybody has after a second signal; and an engine, to end."""
LONGEST_SOCKET_PATH = 103
"""Bytes that every system has room for."""
_log = get_logger("supervisor")


def _future() -> "asyncio.Future[dict[str, str]]":
    return asyncio.get_running_loop().create_future()


@dataclass(eq=False)
class _Child:
    """One place for a process, which holds one after another."""

    role: str
    number: int
    orders: Orders
    environment: dict[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    started: "asyncio.Future[dict[str, str]]" = field(default_factory=_future)
    """What the first process says when it serves, or why it cannot."""

    @property
    def name(self) -> str:
        return f"{self.role} {self.number}"

    async def start(self) -> asyncio.subprocess.Process:
        """Start a process and give it its orders."""
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", f"core.boot.{self.role}_process"),
            str(self.number),  # so that `ps` shows which it is
            stdin=asyncio.subprocess.PIPE,
            pass_fds=() if self.orders.listener < 0 else (self.orders.listener,),
            process_group=0,  # what a terminal sends to its foreground is for the supervisor alone
            env={**os.environ, "PYTHONPATH": path, **self.environment},
        )
        orders = cast(asyncio.StreamWriter, self.process.stdin)
        orders.write(pickle.dumps(self.orders))  # and it stays open: its end is the supervisor's
        return self.process


class Supervisor:
    """One service made of several processes. It loads neither the model nor plugins."""

    def __init__(
        self,
        config: Config,
        processes: Processes,
        engine_factory: str,
        report: Callable[[str], None],
        announce: Callable[[dict[str, str]], None],
    ) -> None:
        """`report` hears what engines do while they start; `announce` hears once what serves, by title."""
        self._config, self._processes, self._factory = config, processes, engine_factory
        self._report, self._announce = report, announce
        self._children: dict[tuple[str, int], _Child] = {}
        self._keeping: list[asyncio.Task[None]] = []
        self._signals = 0

    def serve(self, listener: socket.socket) -> None:
        """Serve until Ctrl-C or SIGTERM. Raises PersonaplexError when the service cannot start."""
        folder = Path(tempfile.mkdtemp(prefix="personaplex-"))
        try:
            if len(os.fsencode(engine_socket(folder, len(self._processes.engines)))) > LONGEST_SOCKET_PATH:
                raise ConfigError([f"{folder}: too long a path for the sockets in it. Set TMPDIR to a shorter one."])
            for inner in (voices_folder(folder), metrics_folder(folder)):
                inner.mkdir()
            WorkerLoads.create(loads_file(folder))
            asyncio.run(self._serve(listener, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _serve(self, listener: socket.socket, folder: Path) -> None:
        loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._at_once = asyncio.Event()
        hears_hangup = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # as under `nohup`
        for number in (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hears_hangup else [])):
            loop.add_signal_handler(number, self._signalled)
        self._desk = FrontDesk(self._config.server, len(self._processes.engines), self._told)
        try:
            server = await loop.create_unix_server(self._desk.accept, desk_socket(folder))
        except OSError as error:
            raise ConfigError([f"{folder}: no sockets can be made here ({error}): set TMPDIR to another."]) from error
        async with server:
            try:
                await self._start(listener, folder)
                await self._stopping.wait()
            finally:
                await self._stop()

    async def _start(self, listener: socket.socket, folder: Path) -> None:
        """Start everything; announce it. Raises PersonaplexError when something cannot start."""
        engines = self._processes.engines
        cores = count_cores()
        carried = max(1, carried_callers(cores, one_process=False) // len(engines))
        for number, visible in enumerate(engines):
            environment = {"CUDA_VISIBLE_DEVICES": visible} if visible else {}
            orders = Orders(self._config, number, folder, os.getpid(), engine_factory=self._factory, carried=carried)
            self._keep(_Child("engine", number, orders, environment))
        for number in range(1, (self._processes.workers or 1) + 1):  # they find faults in plugins while engines load
            self._add_worker(number, listener, folder)
        waiting = asyncio.gather(*(self._first(child) for child in list(self._children.values())))
        if not await self._unless_stopped(waiting):
            return
        slots = sum(state.info.slots for state in self._desk.states if state is not None)
        count = self._processes.workers or count_workers(slots, cores)
        for number in range(self._workers + 1, count + 1):
            self._add_worker(number, listener, folder)
        waiting = asyncio.gather(*(self._first(child) for child in list(self._children.values())))
        if await self._unless_stopped(waiting):
            about = self._children["worker", 1].started
            self._announce({**about.result(), "processes": f"engines {len(engines)}, workers {count}"})

    @property
    def _workers(self) -> int:
        return sum(child.role == "worker" for child in self._children.values())

    def _add_worker(self, number: int, listener: socket.socket, folder: Path) -> None:
        orders = Orders(self._config, number, folder, os.getpid(), listener=listener.fileno())
        self._keep(_Child("worker", number, orders))

    def _keep(self, child: _Child) -> None:
        self._children[child.role, child.number] = child
        self._keeping.append(asyncio.create_task(self._keep_running(child), name=child.name))

    async def _first(self, child: _Child) -> None:
        await asyncio.shield(child.started)

    async def _unless_stopped(self, waiting: "asyncio.Future[list[None]]") -> bool:
        """Wait, but not beyond a signal; whether what was waited for is there. Raises what that raises."""
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            either: list[asyncio.Future[Any]] = [waiting, stopping]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                return False
            await waiting
            return not self._stopping.is_set()
        finally:
            stopping.cancel()

    async def _keep_running(self, child: _Child) -> None:
        """Start the process, and again whenever it ends, until the service stops."""
        pause = FIRST_PAUSE_S
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                code: int | str = await (await child.start()).wait()
            except OSError as error:  # there is no memory or no descriptor for it just now
                code = error.strerror or str(error)
            if self._stopping.is_set():
                return
            await self._desk.heard_out(child.role, child.number)
            if not child.started.done():
                child.started.set_exception(EngineError(f"{child.name} ended while it started, with code {code}."))
                child.started.exception()  # somebody may have stopped waiting for it
                return
            lasted = time.monotonic() - began
            pause = FIRST_PAUSE_S if lasted > LASTING_S else pause
            _log.error("a process has ended", child=child.name, code=code, seconds=round(lasted), again_s=pause)
            try:
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            except TimeoutError:
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def _told(self, hello: Hello, message: Message) -> None:
        """Take note of what a process says of itself."""
        child = self._children[hello.role, hello.number]
        started = child.started
        match message:
            case Report(line=line):
                self._report(line)
            case Started(about=about) if not started.done():
                started.set_result(about)
            case Silent() if child.process is not None and child.process.returncode is None:
                _log.error("a process does not answer and is killed", child=child.name)
                child.process.kill()
            case Settings(config=config):
                settings = pickle.loads(config)  # noqa: S301 - from our own worker
                for one in self._children.values():
                    one.orders = replace(one.orders, config=settings)
            case Broken(problems=problems):
                if not started.done():
                    started.set_exception(ConfigError(problems))
                    started.exception()
                else:
                    _log.error("a process cannot start", child=child.name, problems=list(problems))

    def _signalled(self) -> None:
        self._signals += 1
        self._stopping.set()
        if self._signals > 1:
            self._at_once.set()

    async def _stop(self) -> None:
        """End workers, which let their calls end, and then engines. A second signal ends everybody at once."""
        self._stopping.set()
        await self._end("worker", self._config.server.drain_s + GOODBYE_S)
        await self._end("engine", AT_ONCE_S)
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)

    async def _end(self, role: str, patience_s: float) -> None:
        """Ask the processes of a role to end, and kill those that do not."""
        children = [child for child in self._children.values() if child.role == role]
        running = [child for child in children if child.process is not None and child.process.returncode is None]
        if not running:
            return
        waits = [asyncio.create_task(child.process.wait()) for child in running if child.process is not None]
        self._desk.stop(role, at_once=self._at_once.is_set())
        for child in running:
            if not child.started.done() and child.process is not None:
                child.process.kill()  # it has no calls, and may be loading for minutes before it hears
        hurry = asyncio.create_task(self._at_once.wait())
        all_ended = asyncio.gather(*waits)
        either: list[asyncio.Future[Any]] = [all_ended, hurry]
        await asyncio.wait(either, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        if not all_ended.done() and hurry.done():
            self._desk.stop(role, at_once=True)
            await asyncio.wait([all_ended], timeout=AT_ONCE_S)
        hurry.cancel()
        for child in running:
            if child.process is not None and child.process.returncode is None:
                _log.error("a process does not end and is killed", child=child.name)
                child.process.kill()
        await all_ended
