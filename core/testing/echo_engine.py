"""An engine without a model: it answers each frame with the same frame.

What it is given to say comes as text, a word a frame, in place of its own; its sound remains the echo. It fulfils the
protocols in `core.engine.call`, so the service treats it as any other engine. It needs no memory for a call, so the
`longest_s` of `open` does not matter to it.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from core.engine.call import (
    FRAME_SAMPLES,
    MAX_SENTENCES,
    Call,
    DeviceHealth,
    EngineHealth,
    EngineInfo,
    Frame,
    OutputFrame,
)
from core.engine.input_queue import InputQueue
from core.engine.prompt import Prompt, Voice
from core.engine.sampling import Sampling
from core.engine.speech_queue import check_sentence
from core.errors import EngineBusyError, EngineError, SayError

VOICES = ("NATF2", "NATM2", "VARF0", "VARM0")
"""The voices that an EchoEngine says it packages: some of PersonaPlex's names."""
HUSHED_FRAMES = 10
"""Frames without text after `EchoCall.hush`."""
WORD_INTERVAL = 5
"""Frames from one piece of text to the next: " word0" comes with frame 0, " word1" with frame 5."""


@dataclass
class EngineFaults:
    """The errors that an EchoEngine raises. A test sets them while the engine runs; None raises nothing."""

    open: Exception | None = None
    """Raised by `Engine.open`."""
    ready: Exception | None = None
    """Raised by `Call.ready`."""
    push: Exception | None = None
    """Raised by `Call.push`."""
    frames: Exception | None = None
    """Raised by `Call.frames` in place of the frame with index `frames_at`."""
    frames_at: int = 0
    only: str = ""
    """The name of a voice: `ready`, `push` and `frames` fail only for calls in that voice. "" is every call."""

    def applies_to(self, call: "EchoCall") -> bool:
        """Whether this call is one that fails."""
        return not self.only or (call.prompt.voice is not None and call.prompt.voice.name == self.only)


@dataclass
class EchoEngine:
    """An engine whose calls echo.

    `prompts` and `steps` are gates, set at first: while `prompts` is cleared no prompt becomes ready, and while `steps`
    is cleared no frame is answered.
    """

    slots: int = 2
    max_waiting: int = 5
    """Frames of a call that may wait; beyond them the oldest are dropped."""
    notice: str = "This is an echo."
    longest_s: float = math.inf
    """The longest call that it says it has the memory for."""
    window: float = 0.0
    """How full it says that every call's window is."""
    text: Sequence[str] = ()
    """What its agents say by themselves, a piece a frame, and then nothing; without it a word every fifth frame."""
    faults: EngineFaults = field(default_factory=EngineFaults)
    calls: list["EchoCall"] = field(default_factory=list)
    """The calls that hold a slot."""
    opened: int = 0
    """How many calls have been opened so far."""
    closed: bool = False
    prepared: list[Voice] = field(default_factory=list)
    """The voices that `prepare` was called with."""

    def __post_init__(self) -> None:
        self.prompts = asyncio.Event()
        self.prompts.set()
        self.steps = asyncio.Event()
        self.steps.set()

    @property
    def info(self) -> EngineInfo:
        """See Engine."""
        return EngineInfo("echo", self.notice, "cpu", self.slots, longest_s=self.longest_s)

    def health(self) -> EngineHealth:
        """See Engine."""
        return EngineHealth(len(self.calls), self.slots, "The engine is closed." if self.closed else "")

    def devices(self) -> tuple[DeviceHealth, ...]:
        """See Engine."""
        return (DeviceHealth("0 cpu", len(self.calls), self.slots, self.health().problem),)

    def voices(self) -> tuple[str, ...]:
        """See Engine."""
        return VOICES

    def voice(self, name: str) -> Voice | None:
        """See Engine."""
        return Voice(name, codes=np.zeros((10, 8), np.int64)) if name in VOICES else None

    def prepare(self, voice: Voice) -> None:
        """See Engine. An echo needs no codes; `prepared` has the voices."""
        self.prepared.append(voice)

    def open(
        self,
        prompt: Prompt,
        sampling: Sampling,
        longest_s: float | None = None,  # noqa: ARG002 - an echo takes no memory, however long
    ) -> Call:
        """See Engine."""
        if self.faults.open is not None:
            raise self.faults.open
        if self.closed:
            raise EngineError("The engine is closed.")
        if len(self.calls) >= self.slots:
            raise EngineBusyError("Every slot is taken.")
        self.opened += 1
        call = EchoCall(self, prompt, sampling.seed if sampling.seed is not None else 1000 + self.opened)
        self.calls.append(call)
        return call

    def close(self) -> None:
        """See Engine."""
        self.closed = True
        for call in list(self.calls):
            call.fail(EngineError("The engine was closed."))


class EchoCall:
    """One slot of an EchoEngine."""

    def __init__(self, engine: EchoEngine, prompt: Prompt, seed: int) -> None:
        self.prompt = prompt
        self.seed = seed
        self._engine = engine
        self._waiting = InputQueue(engine.max_waiting)
        self._changed = asyncio.Event()
        self._error: Exception | None = None
        self._closed = False
        self._index = 0
        self._sentences: deque[deque[str]] = deque()
        """The words that are still to be said, of each sentence."""
        self._hushed = 0

    async def ready(self) -> None:
        """See Call."""
        await self._engine.prompts.wait()
        faults = self._engine.faults
        if faults.ready is not None and faults.applies_to(self):
            raise faults.ready

    def push(self, frame: Frame) -> int:
        """See Call. Raises ValueError for what is not a frame."""
        if frame.shape != (FRAME_SAMPLES,) or frame.dtype != np.float32:
            raise ValueError(f"expected float32[{FRAME_SAMPLES}], got {frame.dtype}{list(frame.shape)}")
        faults = self._engine.faults
        if faults.push is not None and faults.applies_to(self):
            raise faults.push
        self._changed.set()
        return self._waiting.push(frame.copy())

    async def frames(self) -> AsyncIterator[OutputFrame]:
        """See Call."""
        while True:
            await self._engine.steps.wait()
            if self._error is not None:
                raise self._error
            if self._closed:
                return
            if not self._waiting:
                self._changed.clear()
                await self._changed.wait()
                continue
            waiting = self._waiting.pop()
            faults = self._engine.faults
            if faults.frames is not None and faults.applies_to(self) and self._index >= faults.frames_at:
                raise faults.frames
            text, said, ended = self._next_text()
            tokens = np.full(9, self._index, np.int64)
            wait_ms = (time.perf_counter() - waiting.pushed) * 1000
            rest = 0.1, waiting.position, said, ended, self._engine.window
            yield OutputFrame(self._index, waiting.frame, text, tokens, wait_ms, *rest)
            self._index += 1

    def _next_text(self) -> tuple[str, bool, bool]:
        """A frame's text, whether it was given, and whether it ends a sentence."""
        if self._sentences:
            words = self._sentences[0]
            text = f" {words.popleft()}"
            if not words:
                self._sentences.popleft()
            return text, True, not words
        self._hushed = max(0, self._hushed - 1)
        if self._engine.text:
            pieces = self._engine.text[self._index : self._index + 1]
            return "".join(pieces) if not self._hushed else "", False, False
        speaks = self._index % WORD_INTERVAL == 0 and not self._hushed
        return f" word{self._index // WORD_INTERVAL}" if speaks else "", False, False

    def say(self, text: str, interrupt: bool = False) -> None:
        """See Call. Its words are what spaces part."""
        check_sentence(text)
        if self._closed or self._error is not None:
            raise SayError("The call has ended: nothing can be said in it any more.")
        if interrupt:
            self._sentences.clear()
        if len(self._sentences) >= MAX_SENTENCES:
            raise SayError(f"{MAX_SENTENCES} sentences are waiting to be said: wait until the agent has said some.")
        self._hushed = 0
        self._sentences.append(deque(text.split()))

    def hush(self) -> None:
        """See Call."""
        self._sentences.clear()
        self._hushed = HUSHED_FRAMES + 1

    async def close(self) -> None:
        """See Call."""
        if not self._closed:
            self._closed = True
            self._changed.set()
            self._engine.calls.remove(self)
        await asyncio.sleep(0)

    def fail(self, error: Exception) -> None:
        """End this call with an error, as a failed step does."""
        self._error = error
        self._changed.set()
