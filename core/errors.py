"""The errors of this project. Each message is for a person: it names what is wrong and says what to do."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus


class PersonaplexError(Exception):
    """Base of all errors of this project. `str(error)` may be shown to callers."""


class ConfigError(PersonaplexError):
    """One or more problems in the configuration, the personas or the options of plugins.

    `problems` holds all of them, one sentence each, which names file and key.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class PluginError(PersonaplexError):
    """A plugin cannot be loaded, or failed in a hook that the service cannot do without."""


class PersonaError(PersonaplexError):
    """A persona does not exist for this caller, or cannot be used."""


class VoiceError(PersonaplexError):
    """A voice does not exist, is not offered, or its file cannot be used."""


class AudioError(PersonaplexError):
    """Audio from a client or a file is invalid: broken Ogg, a wrong length or a wrong format."""


class ProtocolError(PersonaplexError):
    """A client asked for something the wire protocol does not have, or out of its limits."""


class SamplingError(PersonaplexError):
    """A sampling value is out of its limits, whether a caller, a persona or a checkpoint asks for it."""


class CallError(PersonaplexError):
    """A call to a server cannot be placed, or the server broke it off. Raised by the client only."""


class CheckpointError(PersonaplexError):
    """A checkpoint cannot be fetched or read, or its tensors do not match its configuration."""


class EngineError(PersonaplexError):
    """The engine cannot start, or failed while it served a call."""


class EngineBusyError(EngineError):
    """Every slot is taken. A later call may succeed."""


class PromptError(EngineError):
    """A prompt cannot be used: it is too long for the context, or its voice belongs to another checkpoint."""


class ControlError(PersonaplexError):
    """What a plugin asks of a session cannot be done: it is no such thing, or it comes too often."""


class SessionOverError(ControlError):
    """What a plugin asks of a session cannot be done: the session is over."""


class SayError(ControlError):
    """A sentence cannot be said: its text cannot be used, too many are waiting, or the call has ended."""


class RefusedError(PersonaplexError):
    """A request is refused. When `authenticate` or `authorize` raises it, no other plugin is called."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        reason: str = "",
        headers: Mapping[str, str | tuple[str, ...]] | None = None,
        setting: str = "",
    ) -> None:
        """`status` is the HTTP status, and `headers` are added to the response, once for each of their values.

        `reason` is one word for logs and metrics; "" takes the name of the status, such as `forbidden`. `setting` is
        the key of config.yaml that refuses it, for the operator's log.
        """
        self.status = status
        self.setting = setting
        self.reason = reason or HTTPStatus(status).name.lower()
        self.headers = dict(headers or {})
        super().__init__(message)
