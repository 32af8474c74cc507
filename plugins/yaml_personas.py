"""Personas from the YAML files of `personas.folder`. Edits count from the next call; a broken one changes nothing."""

from collections.abc import Sequence
from pathlib import Path

from core import Config, ConfigError, Persona, get_logger, hookimpl, load_personas

Stamp = tuple[object, ...]
"""What changes whenever a file is added, removed or edited, or other voices are offered."""


class Plugin:
    """Keeps the last good state of the folder."""

    def __init__(self) -> None:
        self._folder = Path()
        self._max_prompt_chars = 0
        self._good: tuple[Persona, ...] | None = None
        self._seen: Stamp | None = None
        self._problems: tuple[str, ...] = ()
        """Why the last edit is not in use."""
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
        """The personas, read anew when anything changed. Raises ConfigError when there is no good state yet."""
        stamp = self._stamp(voices)
        if self._good is None or stamp != self._seen:
            try:
                self._good = load_personas(self._folder, voices, self._max_prompt_chars)
                self._problems = ()
            except ConfigError as error:
                if self._good is None:
                    raise
                self._problems = error.problems
                self._log.error("personas kept as they were", problems=list(error.problems))
            self._seen = stamp
        return self._good

    def _stamp(self, voices: Sequence[str]) -> Stamp:
        try:
            paths = sorted(path for path in self._folder.iterdir() if path.suffix == ".yaml")
            files = [(path.name, path.stat()) for path in paths]
        except OSError as error:  # `load_personas` meets it too, and explains it
            return (str(error), *voices)
        return (*((name, status.st_mtime_ns, status.st_size, status.st_ino) for name, status in files), *voices)
