"""A host with one plugin, and the service around it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from msgspec.structs import replace

from core.engine.call import Engine
from core.engine.prompt import Voice
from core.http.app import create_app
from core.plugin.discovery import file_candidate, object_candidate
from core.plugin.hookspecs import hookimpl
from core.plugin.host import PluginHost
from core.plugin.personas import Persona
from core.settings.config import Config
from core.settings.sections import SessionConfig
from core.testing.echo_engine import EchoEngine
from core.testing.event_recorder import EventRecorder
from core.testing.session_driver import SessionDriver, open_session

PERSONA = Persona("echo", "Echo", "Says what you say.", "NATF2", "You are an echo.")
"""The persona on offer beside those of the plugin under test."""
PATIENT = Config(
    session=SessionConfig(max_ahead_s=3600, max_messages_per_s=1_000_000, transform_budget_ms=1000), source="the test"
)
"""Settings without limits on speed: a test may talk faster than real time, on a machine that is busy."""


class _Offer:
    """The engine's voices and one persona, so that a call is possible whatever the plugin under test does."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @hookimpl
    def list_voices(self) -> Sequence[str]:
        return self._engine.voices()

    @hookimpl
    def load_voice(self, name: str) -> Voice | None:
        return self._engine.voice(name)

    @hookimpl
    def list_personas(self) -> Sequence[Persona]:
        return (PERSONA,)

    @hookimpl
    def resolve_persona(self, name: str) -> Persona | None:
        return PERSONA if name == PERSONA.id else None


class PluginHarness:
    """One plugin in a service that is otherwise without plugins.

    `async with` starts and stops the plugin. Its parts may be used without that, to call single hooks:

    - `host`: the plugins, such as `await harness.host.list_personas(Identity("ann"))`;
    - `app`: the ASGI app, which serves the plugin's routes, for an HTTP client such as `httpx` with `ASGITransport`;
    - `engine`: the engine, such as to set `harness.engine.faults`;
    - `recorder`: the events of all sessions and of the service.
    """

    def __init__(
        self,
        plugin: object | Path,
        *,
        options: Mapping[str, Any] | None = None,
        config: Config = PATIENT,
        engine: EchoEngine | None = None,
    ) -> None:
        """`plugin` is a module, a class or an object with hooks, or the path of a plugin file.

        `options` is its block of `plugins.options`. Raises ConfigError when the plugin cannot be loaded, and
        PluginError when its routes are wrong.
        """
        name = plugin.stem if isinstance(plugin, Path) else _name_of(plugin)
        plugins = replace(config.plugins, strict=True, options={name: dict(options or {})})
        self.engine = engine or EchoEngine()
        self.recorder = EventRecorder()
        self.host = PluginHost.load(
            replace(config, plugins=plugins),
            [
                file_candidate(plugin) if isinstance(plugin, Path) else object_candidate(name, plugin),
                object_candidate("recorder", self.recorder),
                object_candidate("offer", _Offer(self.engine)),
            ],
        )
        self.app = create_app(self.host.config, self.engine, self.host)
        self._running = AsyncExitStack()

    async def __aenter__(self) -> "PluginHarness":
        await self._running.enter_async_context(self.app.router.lifespan_context(self.app))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._running.aclose()

    def session(
        self, *, headers: Mapping[str, str] | None = None, **query: str
    ) -> AbstractAsyncContextManager[SessionDriver]:
        """A session that has had its handshake: `async with harness.session(persona="echo") as session`.

        `query` holds parameters of `/ws/chat`, such as `persona`, `voice` and `seed`; `headers` those of the request,
        such as `authorization`. Raises RefusedError when the request is refused, and SessionClosedError when the
        session ends before its handshake. Leaving the context hangs up and waits until the session has ended.
        """
        return open_session(self.app, self.recorder, headers or {}, query)


def _name_of(plugin: object) -> str:
    """The last part of a module's or class's name, or the name of an object's class."""
    return str(getattr(plugin, "__name__", type(plugin).__name__)).rpartition(".")[2]
