"""An engine without a model: it says back what it hears, and keeps every promise of `core.engine.call`."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np

from core.engine.call import Call, DeviceHealth, EngineHealth, EngineInfo, Frame, OutputFrame
from core.engine.prompt import Prompt, Voice
from core.engine.sampling import Sampling
from core.errors import EngineBusyError, EngineError

VOICES = ("NATF2", "NATM2", "VARF0", "VARM0")
WORD_EVERY = 5
"""Frames between two words."""


@dataclass
class Troubles:
    """What shall go wrong. A test sets these while the engine runs."""

    open: Exception | None = None
    ready: Exception | None = None
    push: Exception | None = None
    frames: Exception | None = None
    """Raised instead of the frame of index `frames_at`."""
    frames_at: int = 0
    only: str = ""
    """The voice whose calls have trouble; "": all."""

    def hits(self, call: "EchoCall") -> bool:
        """Whether this call is one that has trouble."""
        return not self.only or (call.prompt.voice is not None and call.prompt.voice.name == self.only)


@dataclass
class EchoEngine:
    """Slots that echo. `prompts` and `steps` are gates: cleared, no prompt gets ready, or no frame is answered."""

    slots: int = 2
    max_waiting: int = 5
    notice: str = "This is an echo."
    troubles: Troubles = field(default_factory=Troubles)
    calls: list["EchoCall"] = field(default_factory=list)
    opened: int = 0
    closed: bool = False

    def __post_init__(self) -> None:
        self.prompts = asyncio.Event()
        self.prompts.set()
        self.steps = asyncio.Event()
        self.steps.set()

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("echo", self.notice, "cpu", self.slots)

    def health(self) -> EngineHealth:
        return EngineHealth(len(self.calls), self.slots, "The engine is closed." if self.closed else "")

    def devices(self) -> tuple[DeviceHealth, ...]:
        return (DeviceHealth("0 cpu", len(self.calls), self.slots, self.health().problem),)

    def voices(self) -> tuple[str, ...]:
        return VOICES

    def voice(self, name: str) -> Voice | None:
        return Voice(name, codes=np.zeros((10, 8), np.int64)) if name in VOICES else None

    def open(self, prompt: Prompt, sampling: Sampling, longest_s: float | None = None) -> Call:
        if self.troubles.open is not None:
            raise self.troubles.open
        if self.closed:
            raise EngineError("The engine is closed.")
        if len(self.calls) >= self.slots:
            raise EngineBusyError("Every slot is taken.")
        self.opened += 1
        call = EchoCall(self, prompt, sampling.seed if sampling.seed is not None else 1000 + self.opened)
        self.calls.append(call)
        return call

    def close(self) -> None:
        self.closed = True
        for call in list(self.calls):
            call.fail(EngineError("The engine was closed."))


class EchoCall:
    """One slot of an EchoEngine."""

    def __init__(self, engine: EchoEngine, prompt: Prompt, seed: int) -> None:
        self.prompt = prompt
        self.seed = seed
        self._engine = engine
        self._waiting: deque[tuple[Frame, float]] = deque()
        self._changed = asyncio.Event()
        self._error: Exception | None = None
        self._closed = False
        self._index = 0

    async def ready(self) -> None:
        await self._engine.prompts.wait()
        troubles = self._engine.troubles
        if troubles.ready is not None and troubles.hits(self):
            raise troubles.ready

    def push(self, frame: Frame) -> int:
        assert (frame.shape, frame.dtype) == ((1920,), np.float32)
        troubles = self._engine.troubles
        if troubles.push is not None and troubles.hits(self):
            raise troubles.push
        self._waiting.append((frame.copy(), time.perf_counter()))
        self._changed.set()
        dropped = max(0, len(self._waiting) - self._engine.max_waiting)
        for _ in range(dropped):
            self._waiting.popleft()
        return dropped

    async def frames(self) -> AsyncIterator[OutputFrame]:
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
            frame, pushed = self._waiting.popleft()
            troubles = self._engine.troubles
            if troubles.frames is not None and troubles.hits(self) and self._index >= troubles.frames_at:
                raise troubles.frames
            text = f" word{self._index // WORD_EVERY}" if self._index % WORD_EVERY == 0 else ""
            tokens = np.full(9, self._index, np.int64)
            yield OutputFrame(self._index, frame, text, tokens, (time.perf_counter() - pushed) * 1000, 0.1)
            self._index += 1

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._changed.set()
            self._engine.calls.remove(self)
        await asyncio.sleep(0)

    def fail(self, error: Exception) -> None:
        """End this call with an error."""
        self._error = error
        self._changed.set()
