"""The operator's own voices: `.safetensors` and `.wav` files in `voices.folder`, read again when they change."""

import asyncio
from pathlib import Path

from core import Config, ConfigError, Voice, VoiceError, VoiceFolder, get_logger, hookimpl


class Plugin:
    """Offers the voices of one folder. A file's name is the voice's name."""

    def __init__(self) -> None:
        self._voices: VoiceFolder | None = None
        self._names: list[str] = []
        self._problem = ""
        """Why the folder cannot be read now, while the voices that it had are still offered."""
        self._log = get_logger("voices")

    @hookimpl
    def startup(self, config: Config) -> None:
        voices = VoiceFolder(Path(config.voices.folder))
        try:
            self._names = voices.names()
            for problem in voices.problems():
                self._log.warning("voice file left out", problem=problem)
        except VoiceError as error:
            raise ConfigError([str(error)]) from error
        self._voices = voices

    @hookimpl
    async def list_voices(self) -> list[str]:
        if self._voices is not None:
            try:
                self._names, self._problem = await asyncio.to_thread(self._voices.names), ""
            except VoiceError as error:
                if str(error) != self._problem:
                    self._log.error("voices kept as they were", problem=str(error))
                self._problem = str(error)
        return self._names

    @hookimpl
    async def load_voice(self, name: str) -> Voice | None:
        return await asyncio.to_thread(self._voices.load, name) if self._voices else None

    @hookimpl
    def problems(self) -> list[str]:
        return [self._problem] if self._problem else []
