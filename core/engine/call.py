"""One conversation's place in the engine, as a session sees it."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from core.engine.prompt import Prompt, Voice
from core.engine.sampling import USUAL, Sampling

SAMPLE_RATE = 24_000
"""Hz, of all audio beyond the wire."""
FRAME_SAMPLES = 1920
FRAME_S = FRAME_SAMPLES / SAMPLE_RATE
"""80 ms: the model's step."""
Frame = npt.NDArray[np.float32]
"""80 ms of one side: float32[1920], mono, 24 kHz, full scale at 1.0."""


def frames_of(pcm: Frame) -> Frame:
    """A sound of any length, float32[n], as float32[frames, 1920]; the last frame is filled up with silence."""
    return np.pad(pcm, (0, -len(pcm) % FRAME_SAMPLES)).reshape(-1, FRAME_SAMPLES)


@dataclass(frozen=True)
class OutputFrame:
    """What the agent says in one frame, and how long it took.

    `index` counts from 0 and equals the index of the user frame it answers, dropped ones not counted.
    `tokens` is int64[9]: the text token, then the agent's 8 codebooks. `text` is the piece of text to show, often "".
    """

    index: int
    pcm: Frame
    text: str
    tokens: npt.NDArray[np.int64]
    wait_ms: float
    """From `push` to the start of the step."""
    step_ms: float
    """The step itself: encode, language model, decode."""


class Call(Protocol):
    """A slot taken by one conversation. Used from one asyncio task group; the engine's thread does the work."""

    seed: int
    """The seed in use, also when none was asked for."""

    async def ready(self) -> None:
        """Return when the prompt is in the slot and frames may be pushed. Raises PromptError or EngineError."""

    def push(self, frame: Frame) -> int:
        """Give the user's next frame. Returns how many of the oldest waiting frames were dropped to bound the lag."""

    def frames(self) -> AsyncIterator[OutputFrame]:
        """The agent's frames, one for each user frame, as they are made.

        Ends at `close`; raises EngineError on a fault.
        """

    async def close(self) -> None:
        """Give the slot back. May be called at any time, and again.

        Returns when the slot is free, or soon when the engine does not answer.
        """


@dataclass(frozen=True)
class SlotLimits:
    """How many callers each part can take; `engine.slots: auto` takes the least. None where a part sets no limit."""

    memory: int | None = None
    """The device's memory."""
    step: int | None = None
    """The time of a step."""
    service: int | None = None
    """The machine's cores, which code the audio and serve the sockets."""


@dataclass(frozen=True)
class EngineInfo:
    """What runs: for `/health`, the log, the page and the command line."""

    name: str
    """`personaplex` or `nano`, or as the checkpoint calls itself."""
    notice: str
    """A sentence that callers must be told about this model, or ""."""
    device: str
    slots: int
    sampling: Sampling = USUAL
    """How calls are sampled that do not ask otherwise."""
    limits: SlotLimits = SlotLimits()
    """What `slots` was taken from, where it is `auto`."""


@dataclass(frozen=True)
class EngineHealth:
    """How the engine is now. `problem` is "" while it serves; otherwise a sentence for the operator."""

    busy: int
    slots: int
    problem: str


@dataclass(frozen=True)
class DeviceHealth:
    """How one device of an engine is now, for the operator's metrics."""

    device: str
    """Its number among those in use, and what a person calls it: `0 NVIDIA H100`."""
    busy: int
    slots: int
    problem: str
    memory: Mapping[str, int] = field(default_factory=dict)
    """Bytes of a GPU's memory, by kind: `total`, `reserved`, `allocated`."""


class Engine(Protocol):
    """Slots behind one thread that owns the device."""

    @property
    def info(self) -> EngineInfo: ...

    def health(self) -> EngineHealth: ...

    def devices(self) -> tuple[DeviceHealth, ...]:
        """How each device is now; quick, from any thread."""

    def voices(self) -> tuple[str, ...]:
        """Names of the voices packaged with the checkpoint."""

    def voice(self, name: str) -> Voice | None:
        """Read a packaged voice; None when the checkpoint has none of that name. Blocks on the disk."""

    def open(self, prompt: Prompt, sampling: Sampling, longest_s: float | None = None) -> Call:
        """Take a slot and start preparing its prompt. Raises EngineBusyError at once when none is free.

        `longest_s` is how many seconds of sound the call may take at most, after which the engine ends it: a shorter
        one takes less memory. None is without end.
        """

    def close(self) -> None:
        """End every call with an error and stop the thread."""
