"""The seam between a session and the engine: one conversation's call, and the engine that opens it."""

import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from core.engine.prompt import Prompt, Voice
from core.engine.sampling import USUAL, Sampling

SAMPLE_RATE = 24_000
"""The sample rate, in Hz, of all audio inside the service."""
FRAME_SAMPLES = 1920
FRAME_S = FRAME_SAMPLES / SAMPLE_RATE
"""The duration of a frame: 80 ms, the model's step."""
MAX_SENTENCE = 1000
"""Characters of a sentence that an agent is given to say."""
MAX_SENTENCES = 16
"""Sentences that may wait to be said in a call."""
Frame = npt.NDArray[np.float32]
"""80 ms of one side's audio: float32[1920], mono, 24 kHz, full scale at 1.0."""


def frames_of(pcm: Frame) -> Frame:
    """Cut audio of any length, float32[n], into float32[frames, 1920]; the last frame is padded with silence."""
    return np.pad(pcm, (0, -len(pcm) % FRAME_SAMPLES)).reshape(-1, FRAME_SAMPLES)


@dataclass(frozen=True)
class OutputFrame:
    """One frame of the agent, and how long it took.

    `index` counts from 0 and equals the index of the user frame it answers; dropped frames are not counted.
    `tokens` is int64[9]: the text token, then the agent's 8 codebooks. `text` is the text that the frame
    completes, often "".
    """

    index: int
    pcm: Frame
    text: str
    tokens: npt.NDArray[np.int64]
    wait_ms: float
    """Milliseconds from `push` to the start of the step."""
    step_ms: float
    """Milliseconds that the step itself takes: encoding, language model and decoding."""
    position: int | None = None
    """The number of the user's frame that it answers among all that were pushed, from 0, dropped ones counted.

    None where the engine does not tell: then only `push` says what was dropped.
    """
    said: bool = False
    """Whether the text token belongs to a sentence that was given to `Call.say`; the agent chose the others itself."""
    sentence_ended: bool = False
    """Whether the text token is the last of such a sentence. Of one that is dropped, no frame says so."""
    window: float = 0.0
    """How full the call's window is after the frame, from 0 to 1; at 1, each new frame takes the place of an old one.
    0 where an engine has no window.
    """


class Call(Protocol):
    """A slot occupied by one conversation. Use it from one event loop; the engine's thread does the work."""

    seed: int
    """The seed in use, also when the caller chose none."""

    async def ready(self) -> None:
        """Wait until the prompt is in the slot and frames may be pushed. Raises PromptError or EngineError."""

    def push(self, frame: Frame) -> int:
        """Pass on the user's next frame. Returns how many of the oldest waiting frames were dropped since the last one.

        Frames that come together are caught up as fast as the engine steps; the oldest are dropped when that takes
        longer than the lag allowed (`engine.max_lag_ms`). Samples beyond full scale are clipped, and those that are not
        numbers become silence. Raises ValueError for an array of another shape.
        """

    def frames(self) -> AsyncIterator[OutputFrame]:
        """Yield the agent's frames, one for each user frame, as soon as they are computed.

        Ends at `close`. Raises EngineError when the engine fails.
        """

    def say(self, text: str, interrupt: bool = False) -> None:
        """Have the agent say a sentence, word for word and in its own voice and pace; returns at once.

        The sentence waits for those before it, and until the agent pauses in words of its own, for five seconds at
        most. With `interrupt` it takes the place of all that waits and begins at the next word. A call takes sentences
        as soon as it is open; one that is given before `ready` is what the agent says first.

        `text` has at most MAX_SENTENCE characters, and MAX_SENTENCES may wait. Spaces and compatible characters are
        normalized as the tokenizer does; what the vocabulary lacks is spelled in bytes. Raises SayError for text that
        is empty, too long or not text, when too many sentences wait, and after the call's end.
        """

    def hush(self) -> None:
        """Drop what waits to be said and let the agent fall silent; returns at once, and does nothing after the end.

        The word that has begun is finished. The agent's own words are withheld until it has none for 0.8 s, for five
        seconds at most; `say` ends this.
        """

    async def close(self) -> None:
        """Release the slot. May be called at any time, and more than once.

        Returns when the slot is free, or after a short time when the engine does not answer.
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
    """What the engine runs: for `/health`, the log, the page and the command line."""

    name: str
    """The checkpoint's own name, such as `personaplex` or `nano`."""
    notice: str
    """A sentence that callers must be told about this model, or ""."""
    device: str
    slots: int
    sampling: Sampling = USUAL
    """The default sampling of calls."""
    limits: SlotLimits = SlotLimits()
    """What `slots` is the least of, where it is `auto`."""
    longest_s: float = math.inf
    """The longest call that the memory is enough for, in seconds of audio."""
    context_s: float = 0.0
    """How much of a conversation the model attends to, in seconds; 0 where that is unknown."""


@dataclass(frozen=True)
class EngineHealth:
    """The current state of the engine. `problem` is "" while it serves; otherwise a sentence for the operator."""

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
    """An engine: slots for conversations, behind one thread that owns the device."""

    @property
    def info(self) -> EngineInfo: ...

    def health(self) -> EngineHealth: ...

    def devices(self) -> tuple[DeviceHealth, ...]:
        """How each device is now; quick, from any thread."""

    def voices(self) -> tuple[str, ...]:
        """The names of the voices packaged with the checkpoint."""

    def voice(self, name: str) -> Voice | None:
        """Read a packaged voice, or return None when the checkpoint has none of that name. Blocks on the disk."""

    def prepare(self, voice: Voice) -> None:
        """Have a recording encoded while nobody talks, so that the first call in this voice need not wait for that.

        Other voices need nothing of the kind, and one that is known already is not encoded again. Returns before it is
        done. May block on the disk; from any thread but the event loop's.
        """

    def open(self, prompt: Prompt, sampling: Sampling, longest_s: float | None = None) -> Call:
        """Occupy a slot and start the prefill of its prompt. Raises EngineBusyError at once when none is free.

        `longest_s` is how many seconds of sound the call may last at most, after which the engine ends it; shorter
        calls take less memory. None means no limit.
        """

    def close(self) -> None:
        """End every call with an error and stop the thread."""
