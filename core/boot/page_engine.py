"""The engine of a process that serves only the page, while another process serves the calls."""

from collections.abc import Callable

import torch

from core.boot.checkpoint_source import find_checkpoint, packaged_voices
from core.engine.call import Call, DeviceHealth, EngineHealth, EngineInfo
from core.engine.checkpoint import Checkpoint
from core.engine.prompt import Prompt, Voice
from core.engine.sampling import Sampling
from core.errors import EngineError
from core.media.voices import VoiceFolder
from core.settings.sections import EngineConfig

GPU = torch.device("cuda")
"""The device of the other process, which decides on the checkpoint; this process never uses it."""


class PageEngine:
    """An `Engine` that knows a checkpoint's name and voices from its folder, and opens no calls."""

    def __init__(self, info: EngineInfo, voices: VoiceFolder) -> None:
        self.info = info
        self._voices = voices

    @classmethod
    def find(cls, config: EngineConfig, report: Callable[[str], None]) -> "PageEngine":
        """Read the folder of the checkpoint that `config` asks for, downloading it if need be; weights are not loaded.

        Blocks. Raises CheckpointError.
        """
        checkpoint = Checkpoint.read(find_checkpoint(config, GPU, report))
        info = EngineInfo(checkpoint.name, checkpoint.notice, device="elsewhere", slots=0)
        return cls(info, packaged_voices(checkpoint.folder, config))

    def health(self) -> EngineHealth:
        """Report no problem: the other process's own `/health` reports on that process."""
        return EngineHealth(busy=0, slots=0, problem="")

    def devices(self) -> tuple[DeviceHealth, ...]:
        return ()

    def voices(self) -> tuple[str, ...]:
        return tuple(self._voices.names())

    def voice(self, name: str) -> Voice | None:
        return self._voices.load(name)

    def prepare(self, voice: Voice) -> None:
        """Nothing to do: no call is served here."""

    def open(
        self,
        prompt: Prompt,  # noqa: ARG002 - there is nothing to open
        sampling: Sampling,  # noqa: ARG002
        longest_s: float | None = None,  # noqa: ARG002
    ) -> Call:
        raise EngineError("Calls are not served here. GET /session says where they are.")

    def close(self) -> None:
        """Nothing to close."""
