"""The operator's own voices: `.safetensors` and `.wav` files in `voices.folder`, read again when they change.

A recording that is offered is encoded before its first call: after the start, and after each edit of its file.
"""

import asyncio
from fnmatch import fnmatchcase
from pathlib import Path

from core import Config, ConfigError, Engine, Voice, VoiceError, VoiceFolder, get_logger, hookimpl

LOOK_S = 2.0
"""How often the recordings are looked at for edits."""


class Plugin:
    """Offers the voices of one folder. A file's name is the voice's name."""

    def __init__(self) -> None:
        self._voices: VoiceFolder | None = None
        self._names: list[str] = []
        self._problems: list[str] = []
        """Files that are left out; or why the folder cannot be read, while the voices that it had are still offered."""
        self._preparing: asyncio.Task[None] | None = None
        self._log = get_logger("voices")

    @hookimpl
    async def startup(self, config: Config, engine: Engine | None) -> None:
        voices = VoiceFolder(Path(config.voices.folder))
        try:
            await asyncio.to_thread(self._look, voices)
        except VoiceError as error:
            raise ConfigError([str(error)]) from error
        self._voices = voices
        if engine is not None:
            self._preparing = asyncio.create_task(self._keep_prepared(voices, config.voices.allow, engine))

    @hookimpl
    async def shutdown(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()

    @hookimpl
    def list_voices(self) -> list[str]:
        if self._voices is not None:
            try:
                self._look(self._voices)
            except VoiceError as error:
                self._note([str(error)])
        return self._names

    @hookimpl
    def load_voice(self, name: str) -> Voice | None:
        return self._voices.load(name) if self._voices else None

    @hookimpl
    def problems(self) -> list[str]:
        return self._problems

    async def _keep_prepared(self, voices: VoiceFolder, allow: tuple[str, ...], engine: Engine) -> None:
        """Have the recordings on offer encoded, those first that are there now, then those that are added or edited."""

        def prepare() -> None:
            for name in voices.names():
                if any(fnmatchcase(name, pattern) for pattern in allow):
                    try:
                        voice = voices.load(name)
                    except VoiceError:
                        continue  # whoever calls hears it, and `faults` has told the operator
                    if voice is not None and voice.pcm is not None:
                        engine.prepare(voice)

        while True:
            try:
                await asyncio.to_thread(prepare)
            except Exception as error:
                self._log.warning("voices cannot be prepared", problem=str(error))
            await asyncio.sleep(LOOK_S)

    def _look(self, voices: VoiceFolder) -> None:
        """See which voices there are now. Raises VoiceError."""
        self._names = voices.names()
        self._note(voices.problems())

    def _note(self, problems: list[str]) -> None:
        for problem in problems:
            if problem not in self._problems:
                self._log.warning("voices left out, or kept as they were", problem=problem)
        self._problems = problems
