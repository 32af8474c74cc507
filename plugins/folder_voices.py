"""The operator's own voices: `.safetensors` and `.wav` files in `voices.folder`, read again when they change."""

from pathlib import Path

from core import Config, ConfigError, Voice, VoiceError, VoiceFolder, get_logger, hookimpl


class Plugin:
    """Offers the voices of one folder. A file's name is the voice's name."""

    def __init__(self) -> None:
        self._voices: VoiceFolder | None = None
        self._names: list[str] = []
        self._problems: list[str] = []
        """Files that are left out; or why the folder cannot be read, while the voices that it had are still offered."""
        self._log = get_logger("voices")

    @hookimpl
    def startup(self, config: Config) -> None:
        voices = VoiceFolder(Path(config.voices.folder))
        try:
            self._look(voices)
        except VoiceError as error:
            raise ConfigError([str(error)]) from error
        self._voices = voices

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

    def _look(self, voices: VoiceFolder) -> None:
        """See which voices there are now. Raises VoiceError."""
        self._names = voices.names()
        self._note(voices.problems())

    def _note(self, problems: list[str]) -> None:
        for problem in problems:
            if problem not in self._problems:
                self._log.warning("voices left out, or kept as they were", problem=problem)
        self._problems = problems
