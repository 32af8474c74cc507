"""Personas from the YAML files of `personas.folder`. An edit applies from the next call on; a broken one is ignored."""

from collections.abc import Sequence
from pathlib import Path

from core import Config, ConfigError, Persona, get_logger, hookimpl, load_personas

FolderStamp = tuple[object, ...]
"""Changes whenever a file is added, removed or edited, and whenever the voices on offer change."""


class Plugin:
    """Offers the personas of the folder as they were when all files were last valid."""

    def __init__(self) -> None:
        self._folder = Path()
        self._max_prompt_chars = 0
        self._personas: tuple[Persona, ...] | None = None
        self._loaded_stamp: FolderStamp | None = None
        self._problems: tuple[str, ...] = ()
        """Why the last edit is ignored; empty when it is not."""
        self._log = get_logger("personas")

    @hookimpl
    def startup(self, config: Config) -> None:
        self._folder = Path(config.personas.folder)
        self._max_prompt_chars = config.personas.max_prompt_chars

    @hookimpl
    def list_personas(self, voices: Sequence[str]) -> tuple[Persona, ...]:
        return self._current(voices)

    @hookimpl
    def resolve_persona(self, name: str, voices: Sequence[str]) -> Persona | None:
        return next((persona for persona in self._current(voices) if persona.id == name), None)

    @hookimpl
    def problems(self) -> tuple[str, ...]:
        return self._problems

    def _current(self, voices: Sequence[str]) -> tuple[Persona, ...]:
        """The personas, read again when anything has changed. Raises ConfigError while they were never valid."""
        stamp = self._stamp(voices)
        if self._personas is None or stamp != self._loaded_stamp:
            try:
                self._personas = load_personas(self._folder, voices, self._max_prompt_chars)
                self._problems = ()
            except ConfigError as error:
                if self._personas is None:
                    raise
                self._problems = error.problems
                self._log.error("personas kept as they were", problems=list(error.problems))
            self._loaded_stamp = stamp
        return self._personas

    def _stamp(self, voices: Sequence[str]) -> FolderStamp:
        try:
            paths = sorted(path for path in self._folder.iterdir() if path.suffix == ".yaml")
            files = [(path.name, path.stat()) for path in paths]
        except OSError as error:  # `load_personas` meets it too, and explains it
            return (str(error), *voices)
        return (*((name, status.st_mtime_ns, status.st_size, status.st_ino) for name, status in files), *voices)
