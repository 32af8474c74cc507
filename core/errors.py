"""Every error a person may meet. Each message names the thing that is wrong and says what to do."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus


class PersonaplexError(Exception):
    """Base of all errors of this project; `str(error)` is fit to be shown to a person."""


class ConfigError(PersonaplexError):
    """One or more things are wrong in configuration, personas or plugin options.

    `problems` holds them all, one sentence each, every one naming its file and key.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class PluginError(PersonaplexError):
    """A plugin cannot be loaded, or raised where the core cannot go on without it."""


class PersonaError(PersonaplexError):
    """A persona does not exist for this caller, or cannot be used."""


class VoiceError(PersonaplexError):
    """A voice does not exist, is not offered, or its file cannot be used."""


class AudioError(PersonaplexError):
    """Audio from outside cannot be understood: broken Ogg, wrong length, wrong format."""


class ProtocolError(PersonaplexError):
    """A client asked for something the wire protocol does not have, or out of its limits."""


class SamplingError(PersonaplexError):
    """A sampling value is out of its limits, whether a caller, a persona or a checkpoint asks for it."""


class CallError(PersonaplexError):
    """A call to a server cannot be placed, or the server broke it off. Raised by the client only."""


class CheckpointError(PersonaplexError):
    """A checkpoint cannot be fetched or read, or its tensors are not those of its config."""


class EngineError(PersonaplexError):
    """The engine failed while it served a call, or cannot start."""


class EngineBusyError(EngineError):
    """Every slot is taken; try again when a call has ended."""


class PromptError(EngineError):
    """A prompt cannot be used: too long for the context, or a voice of another checkpoint."""


class RefusedError(PersonaplexError):
    """A request is not served. Raised by `authenticate`, it refuses at once; no other plugin is asked."""

    def __init__(
        self, status: int, message: str, *, reason: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """`status` is that of HTTP; `reason` is a word for logs and metrics, the status' own name unless given."""
        self.status = status
        self.reason = reason or HTTPStatus(status).name.lower()
        self.headers = dict(headers or {})
        super().__init__(message)
