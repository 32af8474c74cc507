"""One conversation, from the queue to its summary.

Its tasks run in one group: receive messages, answer, expect audio, watch the time limits, send heartbeats, and wait for
a request to end. Whichever ends first ends the others; the task that holds the slot frees it, whatever happened.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from core.engine.call import Call, EngineInfo, Frame, OutputFrame
from core.errors import EngineError
from core.events import (
    FirstAudio,
    FramesDropped,
    Limit,
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
from core.plugin.foreign_code import foreign_code
from core.plugin.host import PluginHost
from core.plugin.transforms import Times
from core.plugin.worker_threads import HangingError, Job, WorkerThreads
from core.session import call_end
from core.session.addresses import neighbourhood
from core.session.admission import Admission, Caller
from core.session.ahead import AudioClock
from core.session.audio_streams import SMALL_MESSAGE_BYTES, AgentAudio, CallerAudio, EncodedFrame
from core.session.call_end import CallEnded
from core.session.chat_request import ChatRequest
from core.session.frames_in_flight import FrameInFlight, FramesInFlight
from core.session.limits import RateLimits, TimeLimits
from core.session.protocol import CloseCode, Kind, Preparing, Queued, Ready, ReadyEngine, Stats, Warned
from core.session.wire import Wire
from core.settings.log import get_logger
from core.settings.sections import SessionConfig

HEARTBEAT_S = 1.0
"""How often Stats go to the client, and at the latest the time limits are looked at."""
HANGING_S = 10.0
"""A frame whose coding and transforms take longer than this will not come; an engine's step has as long."""
PING_S = 3.0
"""The longest silence on the wire: NVIDIA's client gives up after 10 s."""
LONGEST_TURN_S = 0.002
"""How long one client's messages may be taken one after another before others have a turn."""

_Result = TypeVar("_Result")
_log = get_logger("session")


class Session:
    """A conversation whose request was accepted, and whose WebSocket is open."""

    def __init__(
        self,
        info: SessionInfo,
        request: ChatRequest,
        wire: Wire,
        *,
        admission: Admission,
        host: PluginHost,
        engine: EngineInfo,
        codec_threads: WorkerThreads,
        config: SessionConfig,
    ) -> None:
        """`codec_threads` runs what would block the event loop: audio coding and transforms."""
        self.info = info
        self._request = request
        self._wire = wire
        self._admission = admission
        self._host = host
        self._engine = engine
        self._codec_threads = codec_threads
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._end_requested: asyncio.Future[CallEnded] = self._loop.create_future()
        self._ready = asyncio.Event()
        self._first_audio = asyncio.Event()
        self._ended: CallEnded | None = None
        """How the conversation ends, as soon as anything ends it."""
        self._call: Call | None = None
        """Set while frames may be pushed."""
        self._time_limits = TimeLimits(config)
        self._rate_limits = RateLimits(config)
        self._clock: AudioClock[tuple[Frame, float, float]] = AudioClock(0.0, config.max_ahead_s)
        """Frames, each with the moment at which it came and the milliseconds that its decoding took."""
        self._in_flight = FramesInFlight()
        self._requested = self._handshake = time.monotonic()
        self._frames_in = self._frames_out = self._dropped = 0
        self._window = 0.0
        self._caller_audio = CallerAudio(request.audio, host.input_chain(info, self._transform_failed))
        self._agent_audio = AgentAudio(request.audio, host.output_chain(info, self._transform_failed))

    def end(self, end: CallEnded) -> None:
        """Request the end of the conversation, from outside; it has ended when `run` returns. Only the first counts."""
        if not self._end_requested.done():
            self._end_requested.set_result(end)

    async def warn(self, limit: Limit, seconds: float) -> None:
        """Tell the caller that the conversation will be ended. Raises CallEnded when the client is gone."""
        self._event(SessionWarned(limit, seconds))
        await self._wire.send_metadata(Warned(limit, round(seconds, 1)))

    @property
    def talking(self) -> bool:
        """Whether the handshake is sent. Ending a call earlier cuts nobody off in the middle of a word."""
        return self._ready.is_set()

    async def run(self) -> None:
        """Hold the conversation. Returns when the slot is free and the socket closed; SessionEnded has fired once."""
        parts = (
            self._receive,
            self._answer,
            self._expect_audio,
            self._watch_time_limits,
            self._send_heartbeats,
            self._wire.watch,
            self._wait_for_end,
        )
        try:
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    group.create_task(self._guard(part), name=f"{part.__name__} {self.info.id}")
        except* CallEnded:
            pass
        finally:
            ended = self._ended or CallEnded("shutdown", CloseCode.GOING_AWAY)
            self._event(self._summary(ended))
        await self._wire.close(ended)

    async def _guard(self, part: Callable[[], Awaitable[None]]) -> None:
        """Turn whatever a part raises into the CallEnded that it means; the first one is the session's."""
        try:
            with foreign_code():
                await part()
        except CallEnded as ended:
            self._ended = self._ended or ended
            raise
        except Exception as error:  # anything a part may raise ends this call, and no other
            end = call_end.from_error(error)
            if end.reason == "fault":
                _log.exception("a session failed", session=self.info.id)
            self._ended = self._ended or end
            raise end from error

    async def _receive(self) -> None:
        """Read the client's messages, also in the queue, so that a client that leaves it is noticed."""
        busy_s = 0.0
        while True:
            if (next_s := self._clock.next_s) is None:
                kind, payload = await self._wire.receive()
            else:
                try:
                    async with asyncio.timeout(next_s + 0.001):
                        kind, payload = await self._wire.receive()
                except TimeoutError:
                    await self._push_due()
                    continue
            received = time.monotonic()
            if kind == Kind.AUDIO:
                hold_s = await self._receive_audio(payload, received)
            else:
                hold_s = self._rate_limits.count(len(payload))
                if kind == Kind.METADATA:
                    await self._wire.answer_metadata(payload)
            busy_s += time.monotonic() - received
            if hold_s or busy_s > LONGEST_TURN_S:  # messages that are there already come without giving others a turn
                busy_s = 0.0
                await asyncio.sleep(hold_s)

    async def _receive_audio(self, payload: bytes, received: float) -> float:
        """Take an AUDIO message. Returns for how many seconds the client is not to be read."""
        caller = self._caller_audio
        if self._call is None:  # nobody hears it: who waits costs no decoding
            return self._rate_limits.count(len(payload), overhead=caller.skip(payload))
        small = len(payload) <= SMALL_MESSAGE_BYTES
        message = caller.decode(payload) if small else await self._in_thread(caller, caller.decode, payload)
        hold_s = self._rate_limits.count(len(payload), message.samples, message.overhead)
        for frame in message.frames:
            if dropped := self._clock.add((frame, received, message.decode_ms)):
                self._note_dropped(dropped)
                self._rate_limits.too_fast()
            await self._push_due()
        return hold_s

    async def _push_due(self) -> None:
        """Give the engine the frames whose time has come."""
        caller = self._caller_audio
        for frame, received, decode_ms in self._clock.due():
            transforms: Times = ()
            if caller.transforms:
                frame, transforms = await self._in_thread(caller, caller.transform, frame)
            if self._call is None:
                return
            self._time_limits.observe(frame)
            self._frames_in += 1
            before = self._in_flight.dropped
            self._in_flight.push(FrameInFlight(received, decode_ms, transforms), self._call.push(frame))
            self._note_dropped(self._in_flight.dropped - before)

    def _note_dropped(self, count: int) -> None:
        if count:
            self._dropped += count
            self._event(FramesDropped(count))

    async def _answer(self) -> None:
        """Wait for a slot and for its prompt, send the handshake, and then what the agent says."""
        request = self._request
        caller = Caller(self.info.identity.name, neighbourhood(self.info.address))
        prompt, sampling = request.prompt, request.persona.sampling
        async with self._admission.slot(caller, prompt, sampling, self._queued, self._config.longest_s) as call:
            admitted = time.monotonic()
            self._event(SessionStarted((admitted - self._requested) * 1000, call.seed))
            await self._wire.send_metadata(Preparing())
            try:
                async with asyncio.timeout(self._config.prompt_s):
                    await call.ready()
            except TimeoutError:
                raise CallEnded(
                    "prompt", CloseCode.HANDSHAKE_TIMEOUT, "The voice could not be prepared in time. Try again."
                ) from None
            await self._send_handshake(call)
            self._event(SessionReady((self._handshake - admitted) * 1000))
            try:
                async for output in call.frames():
                    encoded = await self._in_thread(self._agent_audio, self._agent_audio.encode, output.pcm)
                    await self._send_frame(output, encoded)
            finally:
                self._call = None
            raise EngineError("The engine ended the call.")

    async def _send_handshake(self, call: Call) -> None:
        info, engine = self.info, self._engine
        await self._wire.send_metadata(
            Ready(
                session=info.id,
                persona=info.persona,
                voice=info.voice,
                engine=ReadyEngine(engine.name, engine.notice),
                seed=call.seed,
                max_s=self._config.max_s,
            )
        )
        self._handshake = time.monotonic()
        self._time_limits = TimeLimits(self._config)
        self._clock = AudioClock(self._handshake - self._requested, self._config.max_ahead_s)
        self._call = call  # before the handshake is sent: the client's first audio may come at once
        await self._wire.send(Kind.HANDSHAKE)
        self._ready.set()

    async def _send_frame(self, output: OutputFrame, encoded: EncodedFrame) -> None:
        """Send one frame of the agent and its text."""
        await self._wire.send(Kind.AUDIO, encoded.data)
        now = time.monotonic()
        if self._frames_out == 0:
            self._first_audio.set()
            self._event(FirstAudio((now - self._handshake) * 1000))
        self._frames_out += 1
        self._window = output.window
        if output.text:
            await self._wire.send(Kind.TEXT, output.text.encode())
            self._event(TextSaid(output.text, output.index))
        before = self._in_flight.dropped
        answered = self._in_flight.answered(output)
        self._note_dropped(self._in_flight.dropped - before)
        if answered is not None:
            self._event(answered.timed(output, encoded, now, self._in_flight.lag_ms))

    async def _expect_audio(self) -> None:
        """End the call when the agent's first frame does not come: neither a client nor an engine that is stuck must
        occupy a slot."""
        await self._ready.wait()
        try:
            async with asyncio.timeout(self._config.first_audio_s):
                await self._first_audio.wait()
        except TimeoutError:
            if self._frames_in:
                raise EngineError("The model does not answer. Call again.") from None
            raise CallEnded("no_audio", CloseCode.IDLE, "No sound came from you. Check your microphone.") from None

    async def _watch_time_limits(self) -> None:
        """Warn of the time limits, and end the call when one is reached."""
        await self._ready.wait()
        while True:
            for due in self._time_limits.due():
                if due.seconds <= 0:
                    raise call_end.from_time_limit(due.limit)
                await self.warn(due.limit, due.seconds)
            await asyncio.sleep(min(self._time_limits.next_s(), HEARTBEAT_S))

    async def _send_heartbeats(self) -> None:
        """Send Stats during the conversation, and a PING whenever nothing else was sent for long.

        Before the handshake a client of `/api/chat` gets nothing, as from NVIDIA's server: many take the first message
        for the handshake. Only NVIDIA's web client gets PING, since it gives up after 10 s without a message.
        """
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if not (self.talking or self._wire.metadata or self._request.web_client):
                continue
            if self._call is not None:
                await self._wire.send_metadata(
                    Stats(
                        input_lag_ms=round(self._in_flight.lag_ms),
                        dropped=self._dropped,
                        frames=self._frames_out,
                        window=round(self._window, 3),
                    )
                )
            if self._wire.quiet_s >= PING_S - HEARTBEAT_S / 2:
                await self._wire.send(Kind.PING)

    async def _wait_for_end(self) -> None:
        raise await self._end_requested

    async def _queued(self, place: int) -> None:
        self._event(SessionQueued(place))
        await self._wire.send_metadata(Queued(place))

    async def _in_thread(
        self, audio: CallerAudio | AgentAudio, work: Callable[..., _Result], *arguments: object
    ) -> _Result:
        """Run work of `audio` that would block the event loop. Raises EngineError when a transform does not return."""

        def hangs(job: Job[Any]) -> None:
            if audio.running:
                self._host.report_hanging(audio.running, job)
            else:
                _log.error("the audio codec hangs", session=self.info.id)

        try:
            return await self._codec_threads.run(partial(work, *arguments), HANGING_S, hangs)
        except HangingError:
            culprit = f"the plugin {audio.running}" if audio.running else "the audio codec"
            raise EngineError(f"The call cannot go on: {culprit} does not answer. Call again.") from None

    def _transform_failed(self, failure: TransformFailed) -> None:
        """Called where the chain runs: in a thread, or on the loop while the chain is made."""
        self._loop.call_soon_threadsafe(self._event, failure)

    def _event(self, event: SessionEvent) -> None:
        self._host.event(self.info, event)

    def _summary(self, ended: CallEnded) -> SessionEnded:
        return SessionEnded(
            reason=ended.reason,
            code=ended.code,
            seconds=time.monotonic() - self._handshake if self._ready.is_set() else 0.0,
            frames_in=self._frames_in,
            frames_out=self._frames_out,
            dropped=self._dropped,
            error=ended.message if ended.code == CloseCode.INTERNAL else "",
        )
