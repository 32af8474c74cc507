"""One conversation, from the queue to its summary.

Its tasks run in one group: receive messages, answer, expect audio, watch the time limits, send heartbeats and what
plugins post, and wait for a request to end. Whichever ends first ends the others; the task that holds the slot frees
it, whatever happened.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from core.engine.call import Call, EngineInfo, OutputFrame
from core.errors import EngineError
from core.events import (
    FirstAudio,
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
from core.plugin.doors import CallEnded, Transport
from core.plugin.foreign_code import foreign_code
from core.plugin.host import PluginHost
from core.plugin.server_messages import Preparing, Queued, Ready, ReadyEngine, Stats, Warned
from core.session import call_end
from core.session.acting import Acting
from core.session.addresses import neighbourhood
from core.session.admission import Admission, Caller
from core.session.chat_request import ResolvedRequest
from core.session.codec_threads import CodecThreads
from core.session.incoming import Incoming
from core.session.limits import TimeLimits
from core.session.outgoing import EncodedFrame, Outgoing
from core.session.protocol import CloseCode
from core.session.resumable_transport import ResumableTransport
from core.settings.log import get_logger
from core.settings.sections import SessionConfig

HEARTBEAT_S = 1.0
"""How often Stats go to the client, and at the latest the time limits are looked at."""

_log = get_logger("session")


class Session:
    """A conversation whose request was accepted, over a transport that is open."""

    def __init__(
        self,
        info: SessionInfo,
        request: ResolvedRequest,
        transport: Transport,
        *,
        admission: Admission,
        host: PluginHost,
        engine: EngineInfo,
        threads: CodecThreads,
        config: SessionConfig,
        on_event: Callable[[SessionEvent], None] = lambda _event: None,
    ) -> None:
        """`threads` runs what would block the event loop: audio coding and transforms. `on_event` is told of each event
        beside the plugins."""
        self.info = info
        self._request = request
        self._admission = admission
        self._host = host
        self._engine = engine
        self._threads = threads
        self._config = config
        self._on_event = on_event
        self._live = transport.live
        self._line = transport if isinstance(transport, ResumableTransport) else None
        if self._line is not None:
            self._line.on_event = self.report
        self._loop = asyncio.get_running_loop()
        self._end_requested: asyncio.Future[CallEnded] = self._loop.create_future()
        self._ready = asyncio.Event()
        self._over = False
        """Whether SessionEnded has been sent, after which no event comes."""
        self._first_audio = asyncio.Event()
        self._ended: CallEnded | None = None
        """How the conversation ends, as soon as anything ends it."""
        self._time_limits = TimeLimits(config)
        self._requested = self._handshake = time.monotonic()
        self._frames_out = 0
        self._window = 0.0
        self._outgoing = Outgoing(transport, host.output_chain(info, self._transform_failed), config.send_s)
        self._acting = Acting(info, request.persona, post=self._outgoing.post, end=self.end, fire=self.report)
        self._incoming = Incoming(
            transport,
            host.input_chain(info, self._transform_failed),
            acting=self._acting,
            host=host,
            threads=threads,
            config=config,
            fire=self.report,
        )

    def end(self, end: CallEnded) -> None:
        """Request the end of the conversation, from outside; it has ended when `run` returns. Only the first counts."""
        if not self._end_requested.done():
            self._end_requested.set_result(end)

    async def warn(self, limit: Limit, seconds: float) -> None:
        """Tell the caller that the conversation will be ended. Raises CallEnded when the client is gone."""
        self.report(SessionWarned(limit, seconds))
        await self._outgoing.send_event(Warned(limit, round(seconds, 1)))

    @property
    def talking(self) -> bool:
        """Whether the handshake is sent. Ending a call earlier cuts nobody off in the middle of a word."""
        return self._ready.is_set() and not self._over

    @property
    def away(self) -> bool:
        """Whether the session waits for a client whose connection broke."""
        return self._line is not None and self._line.away

    def keep_no_more(self) -> None:
        """From now on the session ends when its connection breaks."""
        if self._line is not None:
            self._line.keep_no_more()

    @property
    def handled(self) -> bool:
        """Whether any plugin has a handler in it."""
        return self._acting.handled

    async def run(self) -> SessionEnded:
        """Hold the conversation. Returns when the slot is free, the transport closed and the plugins' handlers too;
        SessionEnded, which it returns, has fired once."""
        parts = (
            self._incoming.receive,
            self._answer,
            self._expect_audio,
            self._watch_time_limits,
            self._send_heartbeats,
            self._outgoing.send_posted,
            self._outgoing.watch,
            self._wait_for_end,
        )
        self._acting.open(self._host)
        try:
            try:
                async with asyncio.TaskGroup() as group:
                    for part in parts:
                        group.create_task(self._guard(part), name=f"{part.__name__} {self.info.id}")
            except* CallEnded:
                pass
            finally:
                ended = self._ended or CallEnded("shutdown", CloseCode.GOING_AWAY)
                summary = self._summary(ended)
                self.report(summary)
                self._acting.close(summary)
            await self._outgoing.close(ended)
            await self._acting.closed()
        finally:
            self._acting.forget()
        return summary

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

    async def _answer(self) -> None:
        """Wait for a slot and for its prompt, shake hands, and then send what the agent says."""
        request = self._request
        caller = Caller(self.info.identity.name, neighbourhood(self.info.address))
        prompt, sampling = request.prompt, request.persona.sampling
        async with self._admission.slot(caller, prompt, sampling, self._queued, self._config.longest_s) as call:
            admitted = time.monotonic()
            self._acting.begin(call)
            self.report(SessionStarted((admitted - self._requested) * 1000, call.seed))
            await self._outgoing.send_event(Preparing())
            try:
                async with asyncio.timeout(self._config.prompt_s):
                    await call.ready()
            except TimeoutError:
                raise CallEnded(
                    "prompt", CloseCode.HANDSHAKE_TIMEOUT, "The voice could not be prepared in time. Try again."
                ) from None
            await self._shake_hands(call)
            self.report(SessionReady((self._handshake - admitted) * 1000))
            try:
                async for output in call.frames():
                    await self._send_frame(output)
            finally:
                self._incoming.stop()
            raise EngineError("The engine ended the call.")

    async def _shake_hands(self, call: Call) -> None:
        info, engine = self.info, self._engine
        self._handshake = time.monotonic()
        self._time_limits = TimeLimits(self._config)
        self._incoming.listen(call, self._handshake - self._requested, self._time_limits)
        await self._outgoing.send_event(
            Ready(
                session=info.id,
                persona=info.persona,
                voice=info.voice,
                engine=ReadyEngine(engine.name, engine.notice),
                seed=call.seed,
                max_s=self._config.max_s,
            )
        )
        self._ready.set()

    async def _send_frame(self, output: OutputFrame) -> None:
        """Send one frame of the agent and its text."""
        muted = self._acting.muted("agent")
        text = self._acting.agent_text(output, muted) if output.text else None
        outgoing = self._outgoing
        encoded = await self._threads.run_chain(outgoing.chain, self._host, outgoing.encode, output.pcm, muted)
        await outgoing.send_audio(encoded)
        now = time.monotonic()
        if self._frames_out == 0:
            self._first_audio.set()
            self.report(FirstAudio((now - self._handshake) * 1000))
        self._frames_out += 1
        self._window = output.window
        if text is not None and not muted:
            await outgoing.send_text(text)
            self.report(TextSaid(output.text, output.index))
        self._acting.frame("agent_frame", encoded.frame)
        self._report_time(output, encoded, now)

    def _report_time(self, output: OutputFrame, encoded: EncodedFrame, sent: float) -> None:
        answered = self._incoming.answered(output)
        if answered is not None:
            self.report(answered.timed(output, encoded, sent, self._incoming.lag_ms))

    async def _expect_audio(self) -> None:
        """End the call when the agent's first frame does not come: neither a client nor an engine that is stuck must
        occupy a slot."""
        await self._ready.wait()
        try:
            async with asyncio.timeout(self._config.first_audio_s):
                await self._first_audio.wait()
        except TimeoutError:
            if self._incoming.frames:
                raise EngineError("The model does not answer. Call again.") from None
            raise CallEnded("no_audio", CloseCode.IDLE, "No sound came from you. Check your microphone.") from None

    async def _watch_time_limits(self) -> None:
        """Warn of the time limits, and end the call when one is reached."""
        await self._ready.wait()
        while self._live:
            for due in self._time_limits.due():
                if due.seconds <= 0:
                    raise call_end.from_time_limit(due.limit)
                await self.warn(due.limit, due.seconds)
            await asyncio.sleep(min(self._time_limits.next_s(), HEARTBEAT_S))

    async def _send_heartbeats(self) -> None:
        """Send Stats during the conversation, and let the transport keep its client."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if self.talking:
                await self._outgoing.send_event(
                    Stats(
                        input_lag_ms=round(self._incoming.lag_ms),
                        dropped=self._incoming.dropped,
                        frames=self._frames_out,
                        window=round(self._window, 3),
                    )
                )
            await self._outgoing.keep_alive()

    async def _wait_for_end(self) -> None:
        ended = await self._end_requested
        if ended.reason == "plugin":  # which may have told its client why
            await self._outgoing.flush()
        raise ended

    async def _queued(self, place: int) -> None:
        self._acting.queued()
        self.report(SessionQueued(place))
        await self._outgoing.send_event(Queued(place))

    def _transform_failed(self, failure: TransformFailed) -> None:
        """Called where the chain runs: in a thread, or on the loop while the chain is made."""
        self._loop.call_soon_threadsafe(self.report, failure)

    def report(self, event: SessionEvent) -> None:
        """Tell the plugins what has happened in this session. After its end there is nothing to tell."""
        if self._over:
            return
        self._over = isinstance(event, SessionEnded)
        self._on_event(event)
        self._host.event(self.info, event)
        self._acting.event(event)

    def _summary(self, ended: CallEnded) -> SessionEnded:
        return SessionEnded(
            reason=ended.reason,
            code=ended.code,
            seconds=time.monotonic() - self._handshake if self._ready.is_set() else 0.0,
            frames_in=self._incoming.frames,
            frames_out=self._frames_out,
            dropped=self._incoming.dropped,
            error=ended.message if ended.code == CloseCode.INTERNAL else "",
            detail=ended.detail,
        )
