"""A running service over real sockets, with an engine that echoes."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml

from core.http.app import create_app
from core.http.listening import bind
from core.http.uvicorn_server import GracefulServer
from core.plugin.discovery import find_plugins, object_candidate
from core.plugin.host import PluginHost
from core.session.call_service import CallService
from core.settings.config import load_config
from core.testing import EchoEngine, EventRecorder
from tests.stoppable import Stoppable

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when it is imported, by whichever test comes first
torch.set_num_threads(1)  # as the engine does: tiny models gain nothing from more

pytest_plugins = ["tests.selection"]

PERSONAS = {
    "assistant": {"name": "Assistant", "description": "Helps.", "voice": "NATF2", "prompt": "You are helpful."},
    "teacher": {"name": "Teacher", "voice": "NATM2", "prompt": "You teach.", "sampling": {"temperature": 0.5}},
}


def speech(seconds: float, seed: int = 0) -> npt.NDArray[np.float32]:
    """Something like a voice, float32[n] at 24 kHz: a gliding buzz with formants, syllables and pauses."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * 24_000)) / 24_000
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * t + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / 24_000
    buzz = sum(np.sin(k * phase) / k for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 3 * t + rng.uniform(0, 6)), 0, 1)
    return (0.2 * buzz * syllables + 0.001 * rng.standard_normal(len(t))).astype(np.float32)


@dataclass
class Running:
    """A service that callers can reach."""

    engine: EchoEngine
    service: CallService
    record: EventRecorder
    server: GracefulServer
    port: int

    def url(self, path: str = "/ws/chat", scheme: str = "ws") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"


Serve = Callable[..., Awaitable[Running]]


class StoppableServer(Stoppable, GracefulServer):
    """The service's server, for tests."""


def write_config(folder: Path, settings: dict[str, Any]) -> Path:
    """A config.yaml with personas and a page beside it."""
    (folder / "personas").mkdir(exist_ok=True)
    for name, persona in PERSONAS.items():
        (folder / "personas" / f"{name}.yaml").write_text(yaml.safe_dump(persona))
    (folder / "page").mkdir(exist_ok=True)
    (folder / "page" / "index.html").write_text("<!doctype html><title>page</title>")
    (folder / "page" / "app.js").write_text("export {}\n")
    sections: dict[str, Any] = {"voices": {"allow": ["NATF2", "NATM2"]}, **settings}
    sections["server"] = {"port": 0, "web": "page", **sections.get("server", {})}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Commands that are run in this process configure logging for all of it; the next test has it as it was."""
    root, ours = logging.getLogger(), logging.getLogger("personaplex")
    before = root.level, list(root.handlers), ours.level
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    ours.setLevel(before[2])


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """`await serve(engine, extra=plugins, **sections of config.yaml)`: a server that stops when the test is over."""
    async with AsyncExitStack() as stack:

        async def start(
            engine: EchoEngine | None = None, extra: tuple[object, ...] = (), sndbuf: int = 0, **settings: Any
        ) -> Running:
            config = load_config(write_config(tmp_path, settings), {})
            engine = engine or EchoEngine()
            record = EventRecorder()
            plugins = [object_candidate(type(plugin).__name__, plugin) for plugin in (record, *reversed(extra))]
            host = PluginHost.load(config, [*plugins, *find_plugins(config)])
            app = create_app(config, engine, host)
            await stack.enter_async_context(app.router.lifespan_context(app))
            listener = bind(config.server)
            if sndbuf:
                listener.setsockopt(1, 7, sndbuf)
            ready = asyncio.Event()
            server = StoppableServer(app, config.server, ready.set)
            task = asyncio.create_task(server.serve(sockets=[listener]))

            stack.push_async_callback(server.stop, task)
            await ready.wait()
            return Running(engine, app.state.service, record, server, listener.getsockname()[1])

        yield start
