"""What the page must know of the checkpoint, in a small file that `download` writes beside it.

So the page's container imports no torch and opens none of the 17 GiB.
"""

from pathlib import Path

import msgspec

from core.engine.call import Call, DeviceHealth, Engine, EngineHealth, EngineInfo
from core.engine.prompt import Prompt, Voice
from core.engine.sampling import Sampling
from core.errors import CheckpointError, EngineError

INDEX = "personaplex.json"
"""The file's name, on the Volume."""


class VoiceIndex(msgspec.Struct, frozen=True):
    """A checkpoint's name, what callers are told of it, and its voices."""

    name: str
    notice: str
    voices: tuple[str, ...]

    @classmethod
    def of(cls, engine: Engine) -> "VoiceIndex":
        """What an engine says of itself."""
        return cls(engine.info.name, engine.info.notice, tuple(engine.voices()))

    @classmethod
    def read(cls, folder: Path) -> "VoiceIndex":
        """The index in a folder. Raises CheckpointError when there is none."""
        try:
            return msgspec.json.decode((folder / INDEX).read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError) as error:
            raise CheckpointError(f"{folder / INDEX}: {error}") from error

    def write(self, folder: Path) -> None:
        """Put it into a folder."""
        (folder / INDEX).write_bytes(msgspec.json.encode(self))


class IndexedEngine:
    """An `Engine` that knows the names of its voices, and neither opens calls nor reads the voices."""

    def __init__(self, index: VoiceIndex) -> None:
        self.info = EngineInfo(index.name, index.notice, device="elsewhere", slots=0)
        self._voices = index.voices

    def health(self) -> EngineHealth:
        """No problem: the calls' container reports its own."""
        return EngineHealth(busy=0, slots=0, problem="")

    def devices(self) -> tuple[DeviceHealth, ...]:
        """None."""
        return ()

    def voices(self) -> tuple[str, ...]:
        """Their names."""
        return self._voices

    def voice(self, name: str) -> Voice | None:  # noqa: ARG002 - it has none
        """None: no call is served here that could need one."""
        return None

    def open(
        self,
        prompt: Prompt,  # noqa: ARG002 - there is nothing to open
        sampling: Sampling,  # noqa: ARG002
        longest_s: float | None = None,  # noqa: ARG002
    ) -> Call:
        """Raises EngineError."""
        raise EngineError("Calls are not served here. POST /calls says where they are.")

    def prepare(self, voice: Voice) -> None:
        """Nothing to do: no call is served here."""

    def close(self) -> None:
        """Nothing to close."""
