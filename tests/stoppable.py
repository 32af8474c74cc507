"""Servers that stop without uvicorn's pauses: tests start hundreds of them."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

HURRIED = SimpleNamespace(**{**vars(asyncio), "sleep": lambda seconds: asyncio.sleep(seconds / 100)})
"""asyncio, for whom a second is ten milliseconds."""


class Stoppable(uvicorn.Server):
    """Stops when it is told to, where uvicorn looks ten times a second: first for that, then for its connections."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._told = asyncio.Event()

    async def stop(self, serving: asyncio.Task[None]) -> None:
        """Shut down and return when it is done. `serving` is the task of `serve`."""
        self.should_exit = True
        self._told.set()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("uvicorn.server.asyncio", HURRIED)
            await serving

    async def main_loop(self) -> None:
        """Return when it is told to, or when `should_exit` is seen."""
        waits = [asyncio.create_task(super().main_loop()), asyncio.create_task(self._told.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
