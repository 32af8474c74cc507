"""One conversation, from the queue to its summary.

Its tasks run in one group: receive, speak, watch the limits, beat, and obey an order to end. Whichever ends first ends
the others; the slot goes back with the task that holds it, whatever happened.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

from core.engine.call import FRAME_S, Call, EngineInfo, OutputFrame
from core.errors import AudioError, EngineBusyError, EngineError, PromptError, ProtocolError
from core.events import (
    FirstAudio,
    FramesDropped,
    FrameTimed,
    SessionEnded,
    SessionEvent,
    SessionInfo,
    SessionQueued,
    SessionReady,
    SessionStarted,
    SessionWarned,
    TextSaid,
    TransformFailed,
)
from core.plugin.host import PluginHost
from core.plugin.transforms import Times
from core.session.addresses import neighbourhood
from core.session.admission import Admission, Party, TooManyCallsError
from core.session.audio_streams import AgentAudio, CallerAudio, Spoken
from core.session.chat_request import ChatRequest
from core.session.limits import Limit, TimeLimits, Traffic
from core.session.protocol import CloseCode, Kind
from core.session.wire import Hangup, Wire
from core.settings.config import SessionConfig
from core.settings.log import get_logger

BEAT_S = 1.0
"""How often figures go to the client."""
PING_S = 3.0
"""The longest silence on the wire: NVIDIA's client gives up after 10 s."""

_Result = TypeVar("_Result")
_log = get_logger("session")


@dataclass(frozen=True)
class _UnderWay:
    """A user frame that the engine has and has not answered."""

    received: float
    decode_ms: float
    transforms: Times


class Session:
    """A conversation whose request was found good and whose socket is accepted."""

    def __init__(
        self,
        info: SessionInfo,
        request: ChatRequest,
        wire: Wire,
        *,
        admission: Admission,
        host: PluginHost,
        engine: EngineInfo,
        coders: Executor,
        config: SessionConfig,
    ) -> None:
        """`coders` runs what would block the event loop: audio coding and transforms."""
        self.info = info
        self._request = request
        self._wire = wire
        self._admission = admission
        self._host = host
        self._engine = engine
        self._coders = coders
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._order: asyncio.Future[Hangup] = self._loop.create_future()
        self._ready = asyncio.Event()
        self._first_audio = asyncio.Event()
        self._hangup: Hangup | None = None
        self._call: Call | None = None
        """Set while frames may be pushed."""
        self._limits = TimeLimits(config)
        self._traffic = Traffic(config)
        self._under_way: deque[_UnderWay] = deque()
        """The user frames that the engine has and has not answered, oldest first."""
        self._next_answer = 0
        self._asked = self._handshake = time.monotonic()
        self._frames_in = self._frames_out = self._dropped = 0
        self._caller = CallerAudio(request.audio, host.input_chain(info, self._transform_failed))
        self._agent = AgentAudio(request.audio, host.output_chain(info, self._transform_failed))

    def end(self, hangup: Hangup) -> None:
        """Ask for the end of the conversation, from outside; it has ended when `run` returns."""
        if not self._order.done():
            self._order.set_result(hangup)

    async def warn(self, limit: str, seconds: float) -> None:
        """Tell the caller that the conversation will be ended. Raises Hangup when the client is gone."""
        self._event(SessionWarned(limit, seconds))
        await self._wire.tell("warning", limit=limit, seconds=round(seconds, 1))

    @property
    def talking(self) -> bool:
        """Whether it has had its handshake: before, nobody is cut off in the middle of a word."""
        return self._ready.is_set()

    async def run(self) -> None:
        """Hold the conversation. Returns when the slot is back and the socket closed; `SessionEnded` has fired once."""
        parts = (self._receive, self._speak, self._expect_audio, self._watch, self._beat, self._obey)
        try:
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    group.create_task(self._guard(part), name=f"{part.__name__} {self.info.id}")
        except* Hangup:
            pass
        finally:
            hangup = self._hangup or Hangup("shutdown", CloseCode.GOING_AWAY)
            self._event(self._summary(hangup))
        await self._wire.close(hangup)

    async def _guard(self, part: Callable[[], Awaitable[None]]) -> None:
        """Turn whatever ends a part into the hangup it means; the first one is the session's."""
        try:
            await part()
        except Hangup as hangup:
            self._hangup = self._hangup or hangup
            raise
        except Exception as error:  # anything a part may raise ends this call, and no other
            meaning = _hangup_for(error)
            if meaning.reason == "fault":
                _log.exception("a session failed", session=self.info.id)
            self._hangup = self._hangup or meaning
            raise meaning from error

    async def _receive(self) -> None:
        """Take the client's messages, from the first moment on: so a client that leaves the queue is seen to."""
        while True:
            kind, payload = await self._wire.receive()
            received = time.monotonic()
            self._traffic.message()
            if kind == Kind.AUDIO:
                await self._listen(payload, received)
            elif kind == Kind.METADATA:
                await self._wire.answer(payload)

    async def _listen(self, payload: bytes, received: float) -> None:
        heard = await self._in_thread(self._caller.take, payload, self._call is not None)
        self._traffic.audio(heard.samples)
        if self._call is None:
            return
        for frame, transforms in heard.frames:
            self._limits.heard(frame)
            self._frames_in += 1
            dropped = self._call.push(frame)
            self._under_way.append(_UnderWay(received, heard.decode_ms, transforms))
            if dropped:
                self._dropped += dropped
                for _ in range(min(dropped, len(self._under_way))):
                    self._under_way.popleft()
                self._event(FramesDropped(dropped))

    async def _speak(self) -> None:
        """Wait for a slot, prepare it, shake hands, and send what the agent says."""
        request = self._request
        party = Party(self.info.identity.name, neighbourhood(self.info.address))
        prompt, sampling = request.prompt, request.persona.sampling
        async with self._admission.slot(party, prompt, sampling, self._moved, self._config.longest_s) as call:
            admitted = time.monotonic()
            self._event(SessionStarted((admitted - self._asked) * 1000, call.seed))
            await self._wire.tell("preparing")
            try:
                async with asyncio.timeout(self._config.prompt_s):
                    await call.ready()
            except TimeoutError:
                raise Hangup(
                    "prompt", CloseCode.HANDSHAKE_TIMEOUT, "The voice could not be prepared in time. Try again."
                ) from None
            await self._shake_hands(call)
            self._event(SessionReady((self._handshake - admitted) * 1000))
            try:
                async for output in call.frames():
                    spoken = await self._in_thread(self._agent.give, output.pcm)
                    await self._say(output, spoken)
            finally:
                self._call = None
            raise EngineError("The engine ended the call.")

    async def _shake_hands(self, call: Call) -> None:
        info, engine = self.info, self._engine
        await self._wire.tell(
            "ready",
            session=info.id,
            persona=info.persona,
            voice=info.voice,
            engine={"name": engine.name, "notice": engine.notice},
            seed=call.seed,
            max_s=self._config.max_s,
        )
        self._handshake = time.monotonic()
        self._limits = TimeLimits(self._config)
        self._call = call  # before the client hears of it: its first audio may come at once
        await self._wire.send(Kind.HANDSHAKE)
        self._ready.set()

    async def _say(self, output: OutputFrame, spoken: Spoken) -> None:
        """Send one frame of the agent and its words."""
        await self._wire.send(Kind.AUDIO, spoken.data)
        now = time.monotonic()
        if self._frames_out == 0:
            self._first_audio.set()
            self._event(FirstAudio((now - self._handshake) * 1000))
        self._frames_out += 1
        if output.text:
            await self._wire.send(Kind.TEXT, output.text.encode())
            self._event(TextSaid(output.text, output.index))
        asked = self._answered_by(output)
        if asked is not None:
            transforms = asked.transforms + spoken.transforms
            self._event(
                FrameTimed(
                    decode_ms=asked.decode_ms,
                    transform_ms=sum(ms for _, ms in transforms),
                    wait_ms=output.wait_ms,
                    step_ms=output.step_ms,
                    encode_ms=spoken.encode_ms,
                    total_ms=(now - asked.received) * 1000,
                    lag_ms=self._lag_ms,
                    transforms=transforms,
                )
            )

    def _answered_by(self, output: OutputFrame) -> _UnderWay | None:
        """The user frame that this output answers; forgets it, and those whose answers the engine left out."""
        asked = None
        while self._under_way and self._next_answer <= output.index:
            asked = self._under_way.popleft()
            self._next_answer += 1
        return asked

    async def _expect_audio(self) -> None:
        """End the call when nothing is said at all: a client that is stuck must not keep a slot, nor must an engine."""
        await self._ready.wait()
        try:
            async with asyncio.timeout(self._config.first_audio_s):
                await self._first_audio.wait()
        except TimeoutError:
            if self._frames_in:
                raise EngineError("The model does not answer. Call again.") from None
            raise Hangup("no_audio", CloseCode.IDLE, "No sound came from you. Check your microphone.") from None

    async def _watch(self) -> None:
        """Warn of the limits of time, and end the call when one is reached."""
        await self._ready.wait()
        while True:
            for due in self._limits.due():
                if due.seconds <= 0:
                    raise Hangup(due.limit, *_LIMITS[due.limit])
                await self.warn(due.limit, due.seconds)
            await asyncio.sleep(min(self._limits.next_s(), BEAT_S))

    async def _beat(self) -> None:
        """Show that the server is there, and how it goes."""
        while True:
            await asyncio.sleep(BEAT_S)
            if self._call is not None:
                await self._wire.tell(
                    "stats",
                    input_lag_ms=round(self._lag_ms),
                    dropped=self._dropped,
                    frames=self._frames_out,
                )
            if self._wire.quiet_s >= PING_S - BEAT_S / 2:
                await self._wire.send(Kind.PING)

    async def _obey(self) -> None:
        raise await self._order

    async def _moved(self, place: int) -> None:
        self._event(SessionQueued(place))
        await self._wire.tell("queued", place=place)

    async def _in_thread(self, work: Callable[..., _Result], *arguments: object) -> _Result:
        return await self._loop.run_in_executor(self._coders, work, *arguments)

    def _transform_failed(self, failure: TransformFailed) -> None:
        """Called where the chain runs: in a thread, or on the loop while the chain is made."""
        self._loop.call_soon_threadsafe(self._event, failure)

    @property
    def _lag_ms(self) -> float:
        """How much of the caller's audio waits for its answer."""
        return len(self._under_way) * FRAME_S * 1000

    def _event(self, event: SessionEvent) -> None:
        self._host.event(self.info, event)

    def _summary(self, hangup: Hangup) -> SessionEnded:
        return SessionEnded(
            reason=hangup.reason,
            code=hangup.code,
            seconds=time.monotonic() - self._handshake if self._ready.is_set() else 0.0,
            frames_in=self._frames_in,
            frames_out=self._frames_out,
            dropped=self._dropped,
            error=hangup.message if hangup.code == CloseCode.INTERNAL else "",
        )


_LIMITS: dict[Limit, tuple[int, str]] = {
    "time": (CloseCode.TIME_LIMIT, "The call has reached its longest duration. Call again to go on."),
    "idle": (CloseCode.IDLE, "Nothing was heard from you for too long. Call again to go on."),
}


def _hangup_for(error: Exception) -> Hangup:
    """How a call ends that met this error."""
    match error:
        case AudioError() | ProtocolError() | PromptError():
            return Hangup("bad_message", CloseCode.BAD_MESSAGE, str(error))
        case TooManyCallsError():
            return Hangup("too_many_calls", CloseCode.BUSY, str(error))
        case EngineBusyError():
            return Hangup("busy", CloseCode.BUSY, str(error))
        case EngineError():
            return Hangup("engine", CloseCode.INTERNAL, str(error))
        case _:
            return Hangup("fault", CloseCode.INTERNAL, "Something failed in the server. Call again.")
