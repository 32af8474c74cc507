"""A call of an engine in another process, as a session holds it."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np

from core.engine.call import FRAME_SAMPLES, MAX_SENTENCES, Frame, OutputFrame
from core.engine.input_queue import InputQueue, WaitingFrame
from core.engine.speech_queue import check_sentence
from core.errors import EngineError, SayError
from core.workers import envelopes
from core.workers.connection import Connection
from core.workers.envelopes import AGENT_FRAME
from core.workers.messages import (
    Attach,
    Failed,
    FindVoice,
    FoundVoice,
    Hush,
    Message,
    Prefilled,
    Prepare,
    Say,
    Unsaid,
)

MAX_UNREAD = 128
"""Frames (10 s) a session may leave unread before the oldest are dropped."""
CREDIT = 2
"""Frames of a call that may be with the engine, unanswered: one in the step, one for the next. The others wait here,
so that neither side can make the other hoard, and the oldest can be dropped without asking."""
CALL_LOST = "The engine has stopped, and this call with it. Please call again in a minute."


class EngineLink(Connection):
    """A worker's connection to one engine, for all its calls there."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[int, RemoteCall] = {}
        self._finding: dict[str, asyncio.Future[str | None]] = {}
        self._prepared: set[str] = set()

    def attach(self, call: int, seed: int, max_waiting: int) -> "RemoteCall":
        """The call of that number, which the desk has opened. Raises EngineError when the engine is gone."""
        if not self.alive:
            raise EngineError(CALL_LOST)
        attached = self._calls[call] = RemoteCall(self, call, seed, max_waiting)
        self.send(Attach(call))
        return attached

    def detach(self, call: int) -> None:
        """Nobody listens to this call any more."""
        self._calls.pop(call, None)

    async def find_voice(self, name: str) -> str | None:
        """The fingerprint of a packaged voice, which is then in the voice files; None when it cannot be had."""
        if name not in self._finding:
            self._finding[name] = self._loop.create_future()
            self.send(FindVoice(name))
        return await asyncio.shield(self._finding[name])

    def prepare(self, name: str, fingerprint: str) -> None:
        """Have the engine encode a recording of the voice files ahead, once."""
        if fingerprint not in self._prepared:
            self._prepared.add(fingerprint)
            self.send(Prepare(name, fingerprint))

    def received(self, message: Message) -> None:
        match message:
            case Prefilled(call=number) if number in self._calls:
                self._calls[number].prefilled()
            case Failed(call=number, failure=failure) if number in self._calls:
                self._calls[number].fail(failure.error())
            case Unsaid(call=number) if number in self._calls:
                self._calls[number].sentence_over()
            case FoundVoice(name=name, fingerprint=fingerprint) if name in self._finding:
                self._finding.pop(name).set_result(fingerprint)

    def framed(self, kind: int, body: memoryview) -> None:
        if kind == AGENT_FRAME:
            number, output = envelopes.decode_agent_frame(body)
            if number in self._calls:
                self._calls[number].answer(output)

    def lost(self) -> None:
        for call in self._calls.values():
            call.fail(EngineError(CALL_LOST))
        for finding in self._finding.values():
            finding.set_result(None)
        self._finding.clear()


class RemoteCall:
    """See `core.engine.call.Call`."""

    def __init__(self, link: EngineLink, number: int, seed: int, max_waiting: int) -> None:
        self.seed = seed
        self._link, self._number = link, number
        self._credit = min(CREDIT, max_waiting)  # never more than wait there without loss
        self._held = InputQueue(max_waiting)
        """Frames that wait for credit."""
        self._sent: deque[WaitingFrame] = deque()
        """Those that the engine has."""
        self._outputs: deque[OutputFrame] = deque(maxlen=MAX_UNREAD)
        self._sentences = 0
        """How many were given and are not said."""
        self._prefilled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()
        self._error: EngineError | None = None
        self._closed = False

    async def ready(self) -> None:
        await asyncio.shield(self._prefilled)

    def push(self, frame: Frame) -> int:
        if frame.shape != (FRAME_SAMPLES,):
            raise ValueError(f"a frame is float32[{FRAME_SAMPLES}], not {frame.dtype}{list(frame.shape)}")
        dropped = self._held.push(np.array(frame, np.float32))
        self._send_held()
        return dropped

    async def frames(self) -> AsyncIterator[OutputFrame]:
        while True:
            while self._outputs:
                yield self._outputs.popleft()
            if self._error is not None:
                raise self._error
            if self._closed:
                return
            self._changed.clear()
            await self._changed.wait()

    def say(self, text: str, interrupt: bool = False) -> None:
        check_sentence(text)
        if self._closed or self._error is not None:
            raise SayError("The call has ended: nothing can be said in it any more.")
        if interrupt:
            self._sentences = 0
        elif self._sentences >= MAX_SENTENCES:
            raise SayError(f"{MAX_SENTENCES} sentences are waiting to be said: wait until the agent has said some.")
        self._sentences += 1
        self._link.send(Say(self._number, text, interrupt))

    def hush(self) -> None:
        self._sentences = 0
        self._link.send(Hush(self._number))

    async def close(self) -> None:
        """Stop listening. The slot is the desk's to give back, whom admission tells."""
        self._closed = True
        self._link.detach(self._number)
        self._prefilled.cancel()
        self._changed.set()

    # What the link reports.

    def prefilled(self) -> None:
        """The prompt is in the slot."""
        if not self._prefilled.done():
            self._prefilled.set_result(None)

    def answer(self, output: OutputFrame) -> None:
        """The engine has answered the oldest frame that it had; all time that was no step was a wait."""
        if self._sent:
            answered = self._sent.popleft()
            passed_ms = (time.perf_counter() - answered.pushed) * 1000
            output = replace(output, wait_ms=max(0.0, passed_ms - output.step_ms), position=answered.position)
        if output.sentence_ended:
            self.sentence_over()
        self._outputs.append(output)
        self._changed.set()
        self._send_held()

    def sentence_over(self) -> None:
        """A sentence is said, or cannot be."""
        self._sentences = max(0, self._sentences - 1)

    def fail(self, error: EngineError) -> None:
        """The call is over because of `error`."""
        self._error = self._error or error
        if not self._prefilled.done():
            self._prefilled.set_exception(error)
            self._prefilled.exception()  # nobody need be waiting for it
        self._changed.set()

    def _send_held(self) -> None:
        while self._held and len(self._sent) < self._credit:
            waiting = self._held.pop()
            self._sent.append(waiting)
            self._link.send_bytes(envelopes.encode_caller_frame(self._number, waiting.frame))
