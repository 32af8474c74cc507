"""The operator's own voices: `.safetensors` and `.wav` files in `voices.folder`, read again when they change."""

import asyncio
from pathlib import Path

from core import Config, Voice, VoiceFolder, get_logger, hookimpl


class Plugin:
    """Offers the voices of one folder. A file's name is the voice's name."""

    def __init__(self) -> None:
        self._voices: VoiceFolder | None = None

    @hookimpl
    def startup(self, config: Config) -> None:
        self._voices = VoiceFolder(Path(config.voices.folder))
        for problem in self._voices.problems():
            get_logger("voices").warning("voice file left out", problem=problem)

    @hookimpl
    def list_voices(self) -> list[str]:
        return self._voices.names() if self._voices else []

    @hookimpl
    async def load_voice(self, name: str) -> Voice | None:
        return await asyncio.to_thread(self._voices.load, name) if self._voices else None
