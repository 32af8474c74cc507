"""What the processes of a service tell each other. `core.workers.envelopes` has the bytes of it."""

from typing import ClassVar

from msgspec import Struct

from core.engine.call import DeviceHealth, EngineHealth, EngineInfo
from core.engine.sampling import Sampling
from core.errors import EngineBusyError, EngineError, PromptError
from core.session.admission import Caller, TooManyCallsError
from core.session.resumption import Pickup

HEARTBEAT_S = 1.0
"""How often every process shows that it is alive."""


class Failure(Struct, frozen=True):
    """An error that crosses to another process: what it means, and its sentence."""

    kind: str
    message: str

    ERRORS: ClassVar[dict[str, type[EngineError]]] = {
        "busy": EngineBusyError,
        "too_many_calls": TooManyCallsError,
        "prompt": PromptError,
        "engine": EngineError,
    }

    @classmethod
    def of(cls, error: EngineError) -> "Failure":
        """The failure that this error is."""
        kind = next((kind for kind, known in cls.ERRORS.items() if type(error) is known), "engine")
        return cls(kind, str(error))

    def error(self) -> EngineError:
        """The error again."""
        return self.ERRORS[self.kind](self.message)


class SentPrompt(Struct, frozen=True):
    """A prompt whose voice lies in the voice files, under its fingerprint."""

    text: str
    voice: str | None
    fingerprint: str | None
    pin: bool | None = None


# Between any process and the desk.


class Hello(Struct, frozen=True, tag=True):
    """The first message on a connection to the desk: who this is, such as engine 0 or worker 1."""

    role: str
    number: int


class Started(Struct, frozen=True, tag=True):
    """This process serves now. `about` is what a worker has to tell the operator, by title."""

    about: dict[str, str]


class Broken(Struct, frozen=True, tag=True):
    """This process cannot start, and why."""

    problems: tuple[str, ...]


class Report(Struct, frozen=True, tag=True):
    """What an engine or worker is doing while it starts."""

    line: str


class Alive(Struct, frozen=True, tag=True):
    """A worker's event loop goes round. Engines say so with their Heartbeat."""


class Silent(Struct, frozen=True, tag=True):
    """The desk's own: a process that served says nothing any more."""


class Settings(Struct, frozen=True, tag=True):
    """A worker has taken an edit: a Config, pickled, for workers that are started later. It may hold secrets, so it
    stays in memory."""

    config: bytes


class Stop(Struct, frozen=True, tag=True):
    """End: a worker lets its calls end first, unless `at_once`."""

    at_once: bool


class EngineState(Struct, frozen=True):
    """One engine as the desk knows it. `health` is the last that is known, with a problem while the engine is gone."""

    info: EngineInfo
    device: DeviceHealth
    voices: tuple[str, ...]


class State(Struct, frozen=True, tag=True):
    """For workers: all engines by number, and how many callers wait."""

    engines: tuple[EngineState | None, ...]
    waiting: int


# Between a worker and the desk. `ask` numbers the calls that this worker asks for.


class Ask(Struct, frozen=True, tag=True):
    """A caller wants a slot."""

    ask: int
    caller: Caller
    prompt: SentPrompt
    sampling: Sampling
    longest_s: float | None


class Waits(Struct, frozen=True, tag=True):
    """The caller's place in the queue, from 1."""

    ask: int
    place: int


class Granted(Struct, frozen=True, tag=True):
    """The caller has a slot: this call of this engine."""

    ask: int
    engine: int
    call: int
    seed: int


class Refused(Struct, frozen=True, tag=True):
    """The caller gets no slot."""

    ask: int
    failure: Failure


class Leave(Struct, frozen=True, tag=True):
    """The caller is gone: from the queue, or from the slot."""

    ask: int


class Left(Struct, frozen=True, tag=True):
    """The slot is free again."""

    ask: int


# Between the desk and an engine. `call` is unique in one life of the desk.


class EngineUp(Struct, frozen=True, tag=True):
    """The engine takes calls."""

    info: EngineInfo
    voices: tuple[str, ...]


class Heartbeat(Struct, frozen=True, tag=True):
    """How the engine is, every HEARTBEAT_S."""

    health: EngineHealth
    device: DeviceHealth


class Open(Struct, frozen=True, tag=True):
    """Take a slot, as `Engine.open`."""

    call: int
    prompt: SentPrompt
    sampling: Sampling
    longest_s: float | None


class Opened(Struct, frozen=True, tag=True):
    """The slot is taken."""

    call: int
    seed: int


class NotOpened(Struct, frozen=True, tag=True):
    """There is no slot for this call."""

    call: int
    failure: Failure


class Close(Struct, frozen=True, tag=True):
    """Give the slot back."""

    call: int


class Closed(Struct, frozen=True, tag=True):
    """The slot is free."""

    call: int


# Between a worker and an engine.


class Attach(Struct, frozen=True, tag=True):
    """Frames of this call go over this connection from now on."""

    call: int


class Say(Struct, frozen=True, tag=True):
    """Have the agent say a sentence, as `Call.say`."""

    call: int
    text: str
    interrupt: bool


class Unsaid(Struct, frozen=True, tag=True):
    """A sentence cannot be said after all."""

    call: int


class Hush(Struct, frozen=True, tag=True):
    """Let the agent fall silent, as `Call.hush`."""

    call: int


class Prepare(Struct, frozen=True, tag=True):
    """Encode a recording ahead of its calls, as `Engine.prepare`. It lies in the voice files."""

    voice: str
    fingerprint: str


class Prefilled(Struct, frozen=True, tag=True):
    """The prompt is in the slot; frames may be pushed."""

    call: int


class Failed(Struct, frozen=True, tag=True):
    """The call is over because of an error."""

    call: int
    failure: Failure


class FindVoice(Struct, frozen=True, tag=True):
    """Put a packaged voice into the voice files."""

    name: str


class FoundVoice(Struct, frozen=True, tag=True):
    """Where it lies; None when it cannot be had."""

    name: str
    fingerprint: str | None


# Between two workers, one of which has the call and the other one its client's new connection.


class Resume(Struct, frozen=True, tag=True):
    """A client wants to pick a call up again."""

    pickup: Pickup


class Found(Struct, frozen=True, tag=True):
    """The call is here: from now on what comes over the client's WebSocket, and what goes, crosses as it is."""


class NotFound(Struct, frozen=True, tag=True):
    """There is no such call for this client: the refusal to answer with."""

    status: int
    reason: str
    message: str


class SocketText(Struct, frozen=True, tag=True):
    """The client has sent a text message, which the protocol does not have."""


class SocketClosed(Struct, frozen=True, tag=True):
    """The WebSocket is closed, by the client, or is to be closed."""

    code: int
    reason: str


Message = (
    Hello
    | Started
    | Broken
    | Report
    | Alive
    | Silent
    | Settings
    | Stop
    | State
    | Ask
    | Waits
    | Granted
    | Refused
    | Leave
    | Left
    | EngineUp
    | Heartbeat
    | Open
    | Opened
    | NotOpened
    | Close
    | Closed
    | Attach
    | Say
    | Unsaid
    | Hush
    | Prepare
    | Prefilled
    | Failed
    | FindVoice
    | FoundVoice
    | Resume
    | Found
    | NotFound
    | SocketText
    | SocketClosed
)
