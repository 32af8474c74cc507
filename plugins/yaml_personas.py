"""Personas from the YAML files of `personas.folder`. An edit applies from the next call on; a broken one is ignored."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from core import Config, ConfigError, Persona, PersonaFolder, get_logger, hookimpl


class Plugin:
    """Offers the personas of the folder as they were when all files were last valid."""

    def __init__(self) -> None:
        self._folder: PersonaFolder | None = None
        self._personas: tuple[Persona, ...] | None = None
        self._problems: tuple[str, ...] = ()
        """Why the last edit is ignored; empty when it is not."""
        self._log = get_logger("personas")

    @hookimpl
    def startup(self, config: Config) -> None:
        self._folder = PersonaFolder(Path(config.personas.folder), config.personas.max_prompt_chars)

    @hookimpl
    async def list_personas(self, voices: Sequence[str]) -> tuple[Persona, ...]:
        return await self._current(voices)

    @hookimpl
    async def resolve_persona(self, name: str, voices: Sequence[str]) -> Persona | None:
        return next((persona for persona in await self._current(voices) if persona.id == name), None)

    @hookimpl
    def problems(self) -> tuple[str, ...]:
        return self._problems

    async def _current(self, voices: Sequence[str]) -> tuple[Persona, ...]:
        """The personas, read again where a file has changed. Raises ConfigError while they were never valid."""
        if self._folder is None:
            return ()
        try:
            self._personas = await asyncio.to_thread(self._folder.load, voices)
            self._problems = ()
        except ConfigError as error:
            if self._personas is None:
                raise
            if error.problems != self._problems:
                self._log.error("personas kept as they were", problems=list(error.problems))
            self._problems = error.problems
        return self._personas
