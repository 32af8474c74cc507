"""An engine behind sockets: the front desk opens and closes its calls, workers exchange their frames."""

import asyncio
import contextlib

from core.engine.call import Call, Engine, Frame
from core.errors import EngineError, PromptError, SayError, VoiceError
from core.settings.log import get_logger
from core.workers import envelopes
from core.workers.connection import Connection
from core.workers.envelopes import CALLER_FRAME
from core.workers.messages import (
    HEARTBEAT_S,
    Attach,
    Close,
    Closed,
    EngineUp,
    Failed,
    Failure,
    FindVoice,
    FoundVoice,
    Heartbeat,
    Hush,
    Message,
    NotOpened,
    Open,
    Opened,
    Prefilled,
    Prepare,
    Say,
    Started,
    Stop,
    Unsaid,
)
from core.workers.voice_files import VoiceFiles

PATIENCE_S = 5.0
"""An engine that has had a problem for so long will not get over it: the process ends, and another is started."""
_log = get_logger("engine server")


class EngineServer:
    """Serves one engine until the desk says stop, or is gone, or the engine has failed for good."""

    def __init__(self, engine: Engine, voices: VoiceFiles) -> None:
        self.engine, self.voices = engine, voices
        self._calls: dict[int, _HostedCall] = {}
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[str] = self._loop.create_future()

    async def serve(self, desk: "DeskLink", path: str) -> str:
        """Serve; `desk` is connected, `path` is where workers find the engine. Returns why it ended, "" if told to."""
        desk.serve(self)
        server = await self._loop.create_unix_server(lambda: WorkerLink(self), path)
        async with server:
            desk.send(EngineUp(self.engine.info, self.engine.voices()))
            desk.send(Started({}))
            heartbeats = self._loop.create_task(self._send_heartbeats(desk))
            try:
                return await self._over
            finally:
                heartbeats.cancel()

    def end(self, reason: str) -> None:
        """Let `serve` return."""
        if not self._over.done():
            self._over.set_result(reason)

    def open(self, order: Open, desk: "DeskLink") -> None:
        """Open a call for the desk."""
        self._calls[order.call] = _HostedCall(self, order, desk)

    def close(self, call: int, desk: Connection) -> None:
        """Close a call for the desk."""
        hosted = self._calls.pop(call, None)
        if hosted is None:
            desk.send(Closed(call))
        else:
            hosted.close(desk)

    def forget(self, call: int) -> None:
        """A call was not opened."""
        self._calls.pop(call, None)

    def call(self, call: int) -> "_HostedCall | None":
        """The call of that number."""
        return self._calls.get(call)

    async def _send_heartbeats(self, desk: "DeskLink") -> None:
        unwell = 0.0
        while True:
            health = self.engine.health()
            desk.send(Heartbeat(health, self.engine.devices()[0]))
            unwell = unwell + HEARTBEAT_S if health.problem else 0.0
            if unwell > PATIENCE_S:
                self.end(health.problem)
            await asyncio.sleep(HEARTBEAT_S)


class DeskLink(Connection):
    """The engine's connection to the desk."""

    def __init__(self) -> None:
        super().__init__()
        self._server: EngineServer | None = None
        self.stopped = asyncio.Event()
        """Set when the desk has said stop, or is gone."""

    def serve(self, server: EngineServer) -> None:
        """Orders are for this server from now on."""
        self._server = server
        if self.stopped.is_set():
            server.end("")

    def received(self, message: Message) -> None:
        match message:
            case Open() if self._server is not None:
                self._server.open(message, self)
            case Close(call=call) if self._server is not None:
                self._server.close(call, self)
            case Stop():
                self.lost()

    def lost(self) -> None:
        self.stopped.set()
        if self._server is not None:
            self._server.end("")


class WorkerLink(Connection):
    """A worker's connection to the engine."""

    def __init__(self, server: EngineServer) -> None:
        super().__init__()
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()

    def received(self, message: Message) -> None:
        match message:
            case Attach(call=number):
                call = self._server.call(number)
                if call is None:
                    self.send(Failed(number, Failure("engine", "This call is over. Call again.")))
                else:
                    self._start(call.answer(self))
            case Say(call=number, text=text, interrupt=interrupt):
                call = self._server.call(number)
                if call is not None and not call.say(text, interrupt):
                    self.send(Unsaid(number))
            case Hush(call=number):
                call = self._server.call(number)
                if call is not None:
                    call.hush()
            case FindVoice(name=name):
                self._start(self._find_voice(name))
            case Prepare(voice=name, fingerprint=fingerprint):
                self._start(self._prepare(name, fingerprint))

    def framed(self, kind: int, body: memoryview) -> None:
        if kind == CALLER_FRAME:
            number, frame = envelopes.decode_caller_frame(body)
            call = self._server.call(number)
            if call is not None:
                call.push(frame)

    def lost(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _start(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _find_voice(self, name: str) -> None:
        def find() -> str | None:
            voice = self._server.engine.voice(name)
            return None if voice is None else self._server.voices.put(voice)

        fingerprint = None
        try:
            fingerprint = await asyncio.to_thread(find)
        except (VoiceError, OSError) as error:
            _log.error("a packaged voice cannot be read", voice=name, error=str(error))
        self.send(FoundVoice(name, fingerprint))

    async def _prepare(self, name: str, fingerprint: str) -> None:
        def prepare() -> None:
            self._server.engine.prepare(self._server.voices.get(name, fingerprint))

        with contextlib.suppress(PromptError):  # the file is gone: a call brings it again
            await asyncio.to_thread(prepare)


class _HostedCall:
    """A call of the engine, from the desk's order to open it to the order to close it."""

    def __init__(self, server: EngineServer, order: Open, desk: DeskLink) -> None:
        self._server, self._number = server, order.call
        self._call: Call | None = None
        self._opening = asyncio.get_running_loop().create_task(self._open(order, desk))
        self._closing: asyncio.Task[None] | None = None

    def push(self, frame: Frame) -> None:
        """Take the caller's next frame."""
        if self._call is not None:
            self._call.push(frame)

    def say(self, text: str, interrupt: bool) -> bool:
        """Have a sentence said; whether that is possible."""
        if self._call is None:
            return False
        try:
            self._call.say(text, interrupt)
        except SayError as error:
            _log.warning("a sentence is not said", problem=str(error))
            return False
        return True

    def hush(self) -> None:
        """Let the agent fall silent."""
        if self._call is not None:
            self._call.hush()

    async def answer(self, worker: WorkerLink) -> None:
        """Send the worker what becomes of the call, and the agent's frames."""
        call = self._call
        if call is None:
            return
        try:
            await call.ready()
            worker.send(Prefilled(self._number))
            async for output in call.frames():
                worker.send_bytes(envelopes.encode_agent_frame(self._number, output))
                await worker.writable()  # what a worker leaves unread waits in the call, which bounds it
        except EngineError as error:
            worker.send(Failed(self._number, Failure.of(error)))
        except Exception:
            _log.exception("a call failed")
            worker.send(Failed(self._number, Failure("engine", "The engine failed. Call again.")))

    def close(self, desk: Connection) -> None:
        """Close the call; the desk hears when its slot is free."""
        self._closing = asyncio.get_running_loop().create_task(self._close(desk))

    async def _open(self, order: Open, desk: DeskLink) -> None:
        try:
            prompt = await asyncio.to_thread(self._server.voices.receive, order.prompt)
            self._call = self._server.engine.open(prompt, order.sampling, order.longest_s)
        except EngineError as error:
            failure = Failure.of(error)
        except Exception:
            _log.exception("a call could not be opened")
            failure = Failure("engine", "The engine failed to open the call. Call again.")
        else:
            desk.send(Opened(order.call, self._call.seed))
            return
        self._server.forget(order.call)
        desk.send(NotOpened(order.call, failure))

    async def _close(self, desk: Connection) -> None:
        await self._opening
        if self._call is not None:
            await self._call.close()
        desk.send(Closed(self._number))
