"""The caller's side of a session: what comes over its transport is counted, cut into frames, and given to the engine
when its time has come."""

import asyncio
import math
import time
from collections.abc import Callable

import numpy as np

from core.engine.call import Call, Frame, OutputFrame
from core.events import FramesDropped, KeyPressed, SessionEvent
from core.media.audio_codecs import Framer
from core.plugin.doors import CallerSound, ClientMessage, Transport
from core.plugin.foreign_code import foreign_code
from core.plugin.host import PluginHost
from core.plugin.transforms import Chain, Times
from core.session.acting import Acting
from core.session.ahead import AudioClock
from core.session.codec_threads import CodecThreads
from core.session.frames_in_flight import FrameInFlight, FramesInFlight
from core.session.limits import RateLimits, TimeLimits
from core.settings.sections import SessionConfig

LONGEST_TURN_S = 0.002
"""How long one client's messages may be taken one after another before others have a turn."""


class Incoming:
    """Receives from the transport from the start, so that a client that leaves the queue is noticed. What it says is
    heard from `listen` on, until `stop`."""

    def __init__(
        self,
        transport: Transport,
        chain: Chain,
        *,
        acting: Acting,
        host: PluginHost,
        threads: CodecThreads,
        config: SessionConfig,
        fire: Callable[[SessionEvent], None],
    ) -> None:
        """`chain` are the input transforms; `fire` sends every plugin an event."""
        self._transport = transport
        self._chain = chain
        self._acting = acting
        self._host = host
        self._threads = threads
        self._config = config
        self._fire = fire
        self.frames = 0
        """How many the engine was given."""
        self.dropped = 0
        """How many were dropped, by the engine or before it."""
        self._receiving: asyncio.Task[CallerSound | ClientMessage | KeyPressed] | None = None
        """Waits for the client's next message beside frames that are held back."""
        self._call: Call | None = None
        self._time_limits = TimeLimits(config)
        self._rate_limits = RateLimits(config) if transport.live else None
        self._framer = Framer()
        self._clock: AudioClock[tuple[Frame, float, float]] = AudioClock(0.0, config.max_ahead_s)
        """Frames, each with the moment at which it came and the milliseconds that its decoding took."""
        self._in_flight = FramesInFlight()

    def listen(self, call: Call, waited_s: float, time_limits: TimeLimits) -> None:
        """From now on the caller is heard, who has waited for so long."""
        if self._transport.live:
            self._clock = AudioClock(waited_s, self._config.max_ahead_s)
        else:
            self._clock = AudioClock(0.0, math.inf)
        self._time_limits = time_limits
        self._call = call

    def stop(self) -> None:
        """The caller is no longer heard."""
        self._call = None

    @property
    def lag_ms(self) -> float:
        """How much of the caller's audio waits for its answer."""
        return self._in_flight.lag_ms

    def answered(self, output: OutputFrame) -> FrameInFlight | None:
        """The frame that `output` answers, if it is known."""
        before = self._in_flight.dropped
        answered = self._in_flight.answered(output)
        self._note_dropped(self._in_flight.dropped - before)
        return answered

    async def receive(self) -> None:
        """Take the client's messages, until the session ends. Raises CallEnded, and what the transport does."""
        busy_s = 0.0
        try:
            while True:
                message = await self._next()
                if message is None:
                    await self._push_due()
                    continue
                began = time.monotonic()
                if isinstance(message, CallerSound):
                    began -= message.decode_ms / 1000
                    hold_s = await self._hear(message, began)
                elif isinstance(message, KeyPressed):
                    hold_s = self._count(0)
                    self._fire(message)
                else:
                    hold_s = self._count(message.size)
                    self._acting.message(message)
                busy_s += time.monotonic() - began
                if (
                    hold_s or busy_s > LONGEST_TURN_S
                ):  # messages that are there already come without giving others a turn
                    busy_s = 0.0
                    await asyncio.sleep(hold_s)
        finally:
            if self._receiving is not None and not self._receiving.cancel() and not self._receiving.cancelled():
                self._receiving.exception()  # retrieved: the session has ended for another reason

    async def _next(self) -> CallerSound | ClientMessage | KeyPressed | None:
        """The client's next message; None when a frame that was held back is due before it."""
        next_s = self._clock.next_s
        if next_s is None and self._receiving is None:
            return await self._transport.receive()
        if self._receiving is None:
            self._receiving = asyncio.create_task(self._receive())
        timeout = None if next_s is None else next_s + 0.001
        done, _ = await asyncio.wait([self._receiving], timeout=timeout)
        if not done:
            return None
        received, self._receiving = self._receiving, None
        return received.result()

    async def _receive(self) -> CallerSound | ClientMessage | KeyPressed:
        with foreign_code():
            return await self._transport.receive()

    async def _hear(self, sound: CallerSound, received: float) -> float:
        """Take sound of the caller. Returns for how many seconds the client is not to be read."""
        hold_s = self._count(sound.size, len(sound.samples), sound.overhead)
        if self._call is None:
            return hold_s
        for frame in self._framer.frames(sound.samples):
            if dropped := self._clock.add((frame, received, sound.decode_ms)):
                self._note_dropped(dropped)
                if self._rate_limits:
                    self._rate_limits.too_fast()
            await self._push_due()
        return hold_s

    async def _push_due(self) -> None:
        """Give the engine the frames whose time has come."""
        for frame, received, decode_ms in self._clock.due():
            transforms: Times = ()
            if self._chain.plugins:
                frame, transforms = await self._threads.run_chain(self._chain, self._host, self._transform, frame)
            if self._call is None:
                return
            self._time_limits.observe(frame)
            if self._acting.muted("caller"):
                frame = np.zeros_like(frame)
            self.frames += 1
            before = self._in_flight.dropped
            self._in_flight.push(FrameInFlight(received, decode_ms, transforms), self._call.push(frame))
            self._note_dropped(self._in_flight.dropped - before)
            self._acting.frame("caller_frame", frame)

    def _transform(self, frame: Frame) -> tuple[Frame, Times]:
        """Put a frame through the transforms; the time each took."""
        return self._chain.process(frame), self._chain.times

    def _count(self, size: int, samples: int = 0, overhead: int = 0) -> float:
        return self._rate_limits.count(size, samples, overhead) if self._rate_limits else 0.0

    def _note_dropped(self, count: int) -> None:
        if count:
            self.dropped += count
            self._fire(FramesDropped(count))
