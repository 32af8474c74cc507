"""The event loop's side of a slot: the call that a session uses."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from core.engine.call import FRAME_SAMPLES, Frame, OutputFrame
from core.engine.input_queue import InputQueue
from core.engine.speech_queue import SpeechQueue, check_sentence
from core.engine.tokenizer import Tokenizer
from core.errors import EngineError, PersonaplexError, SayError

MAX_UNREAD = 128
"""Frames (10 s) that a session may leave unread before the oldest are dropped."""
ANSWER_SECONDS = 15.0
"""How long a pushed frame may wait for its answer before the engine counts as stuck."""
CLOSE_SECONDS = 2.0
"""How long `close` waits for a thread that may be stuck; the slot is freed when the thread continues."""


class Slots(Protocol):
    """What a call needs of the engine that it belongs to."""

    def inputs_changed(self) -> AbstractContextManager[threading.Condition]: ...

    def release(self, call: "SlotCall") -> bool: ...


class SlotCall:
    """A call of a `SlotEngine`; `core.engine.call.Call` documents its interface.

    It is created on the event loop. `begun` and `detokenizer` belong to the engine's thread; `speech` is both sides'.
    """

    def __init__(self, engine: Slots, slot: int, seed: int, max_waiting: int, tokenizer: Tokenizer) -> None:
        self.slot, self.seed, self.detokenizer = slot, seed, tokenizer.detokenizer()
        self.speech = SpeechQueue()
        self._words = tokenizer.words
        self.loop = asyncio.get_running_loop()
        self.inputs = InputQueue(max_waiting)
        self.begun = False
        self._engine = engine
        self._answered = 0
        self._pushed = self._settled = 0
        self._waiting_since = 0.0
        self._outputs: deque[OutputFrame] = deque(maxlen=MAX_UNREAD)
        self._changed = asyncio.Event()
        self._ready: asyncio.Future[None] = self.loop.create_future()
        self._released: asyncio.Future[None] | None = None
        self._error: PersonaplexError | None = None

    async def ready(self) -> None:
        await asyncio.shield(self._ready)

    def push(self, frame: Frame) -> int:
        if frame.shape != (FRAME_SAMPLES,):
            raise ValueError(f"a frame is float32[{FRAME_SAMPLES}], not {frame.dtype}{list(frame.shape)}")
        # The one place where samples are made harmless: behind it, the codec trusts them.
        pcm = np.clip(np.nan_to_num(frame, nan=0.0), -1.0, 1.0).astype(np.float32)
        with self._engine.inputs_changed() as changed:
            dropped = self.inputs.push(pcm)
            changed.notify()
        if self._pushed == self._settled:
            self._waiting_since = self.loop.time()
        self._pushed += 1
        return dropped

    async def frames(self) -> AsyncIterator[OutputFrame]:
        while True:
            while self._outputs:
                yield self._outputs.popleft()
            if self._error is not None:
                raise self._error
            if self._released is not None:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                if self._pushed > self._settled and self.loop.time() - self._waiting_since >= ANSWER_SECONDS:
                    raise EngineError("The engine does not answer. Please call again in a moment.") from None

    def say(self, text: str, interrupt: bool = False) -> None:
        check_sentence(text)
        if self._released is not None or self._error is not None:
            raise SayError("The call has ended: nothing can be said in it any more.")
        words = self._words(text)
        if not words:
            raise SayError("A sentence to be said is empty but for characters without a sound.")
        self.speech.add(words, interrupt)

    def hush(self) -> None:
        self.speech.hush()

    async def close(self) -> None:
        if self._released is None:
            self._released = self.loop.create_future()
            self._changed.set()
            self._ready.cancel()
            if not self._engine.release(self):
                self._released.set_result(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.shield(self._released)

    # The interface for the engine's thread.

    def tell(self, method: Callable[..., None], *arguments: Any) -> None:
        """Have the event loop call one of the methods below, if it still runs."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(method, *arguments)

    def next_index(self) -> int:
        """The index of the next answer, counted from 0."""
        self._answered += 1
        return self._answered - 1

    # What the engine's thread has the event loop call.

    def became_ready(self) -> None:
        """Note that the prompt is in the slot."""
        if not self._ready.done():
            self._ready.set_result(None)

    def receive(self, output: OutputFrame) -> None:
        """Take over the answer to a frame."""
        self._settled = output.index + 1 if output.position is None else output.position + 1
        self._waiting_since = self.loop.time()
        self._outputs.append(output)
        self._changed.set()

    def fail(self, error: PersonaplexError) -> None:
        """End the call because of `error`."""
        self._error = error
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # Retrieved, since nobody may be waiting for it.
        self._changed.set()

    def released(self) -> None:
        """Note that the slot is free."""
        if self._released is not None and not self._released.done():
            self._released.set_result(None)
