"""What stands in for the engine where the calls are served by another process, and this one has the page alone."""

from collections.abc import Callable

import torch

from core.boot.local_engine import find_checkpoint, packaged_voices
from core.engine.call import Call, DeviceHealth, EngineHealth, EngineInfo
from core.engine.checkpoint import Checkpoint
from core.engine.prompt import Prompt, Voice
from core.engine.sampling import Sampling
from core.errors import EngineError
from core.media.voices import VoiceFolder
from core.settings.config import EngineConfig

CARD = torch.device("cuda")
"""The other process has one, so its checkpoint is the one to look at. Nothing here touches a card."""


class RemoteEngine:
    """Knows the checkpoint's name and its voices, from its folder; takes no call. See `core.engine.call.Engine`."""

    def __init__(self, info: EngineInfo, voices: VoiceFolder) -> None:
        self.info = info
        self._voices = voices

    @classmethod
    def find(cls, config: EngineConfig, report: Callable[[str], None]) -> "RemoteEngine":
        """Look at the checkpoint that `config` asks for, fetching it if need be and allowed; its weights stay unread.

        Blocks. Raises CheckpointError.
        """
        checkpoint = Checkpoint.read(find_checkpoint(config, CARD, report))
        info = EngineInfo(checkpoint.name, checkpoint.notice, device="elsewhere", slots=0)
        return cls(info, packaged_voices(checkpoint.folder, config))

    def health(self) -> EngineHealth:
        """Always well: how the other process is, its own `/health` says."""
        return EngineHealth(busy=0, slots=0, problem="")

    def devices(self) -> tuple[DeviceHealth, ...]:
        return ()

    def voices(self) -> tuple[str, ...]:
        return tuple(self._voices.names())

    def voice(self, name: str) -> Voice | None:
        return self._voices.load(name)

    def open(
        self,
        prompt: Prompt,  # noqa: ARG002 - there is nothing to open
        sampling: Sampling,  # noqa: ARG002
        longest_s: float | None = None,  # noqa: ARG002
    ) -> Call:
        raise EngineError("Calls are not served here. GET /session says where they are.")

    def close(self) -> None:
        """Nothing to close."""
