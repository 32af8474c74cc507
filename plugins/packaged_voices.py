"""The voices that come with the model's checkpoint."""

import asyncio

from core import Engine, Voice, hookimpl

PERSONAPLEX_VOICES = (
    *(f"NATF{number}" for number in range(4)),
    *(f"NATM{number}" for number in range(4)),
    *(f"VARF{number}" for number in range(5)),
    *(f"VARM{number}" for number in range(5)),
)
"""The voices in PersonaPlex's checkpoint, for where only settings are checked and there is no engine to ask."""


class Plugin:
    """Offers the voices that the engine reads from its checkpoint."""

    def __init__(self) -> None:
        self._engine: Engine | None = None

    @hookimpl
    def startup(self, engine: Engine | None) -> None:
        self._engine = engine

    @hookimpl
    def list_voices(self) -> tuple[str, ...]:
        return self._engine.voices() if self._engine else PERSONAPLEX_VOICES

    @hookimpl
    async def load_voice(self, name: str) -> Voice | None:
        return await asyncio.to_thread(self._engine.voice, name) if self._engine else None
