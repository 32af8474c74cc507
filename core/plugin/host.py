"""The plugin host: asks the plugins, one after another, and keeps what one does wrong from everybody else.

Order: installed packages, files in the plugin folders, built-ins; the first answer counts, and the first of two plugins
of the same name. pluggy's `tryfirst` and `trylast` change a hook's place in this order.

What happens when a plugin raises, or answers with something that is no answer:

- `startup`, `register_routes`: the boot stops, naming the plugin. `shutdown`: logged.
- `authenticate`, `authorize`: denied; a RefusedError of `authenticate` says with which status.
- personas, voices: logged, and the next plugin is asked; when none has an answer, this caller gets an error.
- audio: the transform is left out for this session, which is told.
- `session_event`, `service_event`: logged, the first time.
- `notices`, `problems`: logged, and those of the others are shown. `login_path`: logged, and the next plugin is asked.

Every failure of a hook is a PluginFailed for `service_event`.
"""

from collections.abc import Callable
from typing import Any

from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from core.engine.call import Engine
from core.engine.prompt import Voice
from core.errors import ConfigError, PersonaError, PluginError, RefusedError
from core.events import Identity, ServiceEvent, SessionEvent, SessionInfo, TransformFailed
from core.plugin.catalogue import Catalogue
from core.plugin.hook_calls import FAULTS, Hooks, ask, call_sync, describe
from core.plugin.hookspecs import Transform
from core.plugin.loading import PluginInfo, PluginSet, load_plugins, remake_plugins
from core.plugin.personas import Persona
from core.plugin.transforms import Chain
from core.settings.config import Config
from core.settings.log import get_logger

__all__ = ["Chain", "PluginHost", "PluginInfo"]

ANONYMOUS = Identity("anonymous")


class PluginHost:
    """All plugins of one app, with the settings they run by. Neither changes: an edit of the settings makes another.

    Made by `load`; `startup` before the first caller, `shutdown` after the last.
    """

    def __init__(self, config: Config, plugins: PluginSet) -> None:
        self.config = config
        self._plugins = plugins
        self._manager = plugins.manager
        self._hooks = Hooks(plugins.manager)
        self._catalogue = Catalogue(config, self._hooks)
        self._running: set[str] = set()
        self._routes: list[BaseRoute] | None = None

    @classmethod
    def load(cls, config: Config) -> "PluginHost":
        """Find and load every plugin. Raises ConfigError with all that must stop the boot."""
        host = cls(config, load_plugins(config))
        for info in host.describe():
            if info.problem:
                get_logger("plugins").warning("plugin skipped", plugin=info.name, problem=info.problem)
        return host

    def reloaded(self, config: Config) -> "PluginHost":
        """A host for other settings, not started yet, that shares with this one all plugins but those that depend on
        what changed: their own options, or, where their `startup` takes `config`, anything.

        Raises ConfigError with everything that is wrong.
        """
        changed = {name for name in self._names() if config.options(name) != self.config.options(name)}
        changed |= {hook.plugin_name for hook in self._hooks.of("startup") if "config" in hook.argnames}
        host = PluginHost(config, remake_plugins(self._plugins, changed, config))
        host._running = self._running - changed
        return host

    def describe(self) -> list[PluginInfo]:
        """Every plugin that was found, in order of precedence."""
        return [one.info for one in self._plugins.found]

    async def startup(self, engine: Engine | None) -> None:
        """Start every plugin that does not run, and check that personas and voices fit. With None only settings are
        checked.

        Raises PluginError naming the plugin that failed, or ConfigError with every problem; plugins that had started
        are shut down before.
        """
        carried = frozenset(self._running)
        starts = [hook for hook in self._hooks.of("startup") if hook.plugin_name not in carried]
        self._running |= {name for name, _ in self._manager.list_name_plugin()} - {hook.plugin_name for hook in starts}
        problems: list[str] = []
        try:
            for hook in starts:
                try:
                    await ask(hook, config=self.config, engine=engine)
                except ConfigError as error:
                    problems.extend(error.problems)
                except FAULTS as error:
                    raise PluginError(f"plugin {hook.plugin_name}: startup failed: {describe(error)}") from error
                else:
                    self._running.add(hook.plugin_name)
            problems.extend(await self._catalogue.check())
            if problems:
                raise ConfigError(problems)
        except BaseException:
            self._running -= carried  # they go on in the host that they come from
            await self.shutdown()
            raise

    async def shutdown(self, heir: "PluginHost | None" = None) -> None:
        """Stop every plugin that has started, the last one first, but not those that `heir` has too.

        One that raises is logged.
        """
        for hook in reversed(self._hooks.of("shutdown")):
            inherited = heir is not None and heir._manager.is_registered(hook.plugin)
            if hook.plugin_name in self._running and not inherited:
                try:
                    await ask(hook)
                except FAULTS as error:
                    self._hooks.fault(hook, error)
        self._running = set()

    def routes(self) -> list[BaseRoute]:
        """The routes that plugins serve. Raises PluginError naming the plugin that failed."""
        if self._routes is None:
            self._routes = self._ask_for_routes()
        return self._routes

    def _ask_for_routes(self) -> list[BaseRoute]:
        routes: list[BaseRoute] = []
        for hook in self._hooks.of("register_routes"):
            try:
                given: list[Any] = list(call_sync(hook))
            except FAULTS as error:
                raise PluginError(f"plugin {hook.plugin_name}: register_routes failed: {describe(error)}") from error
            wrong = [route for route in given if not isinstance(route, BaseRoute)]
            if wrong:
                raise PluginError(
                    f"plugin {hook.plugin_name}: register_routes gave {wrong[0]!r}, not a Starlette route."
                )
            routes.extend(given)
        return routes

    @property
    def protected(self) -> bool:
        """Whether any plugin authenticates; without one, everybody is `anonymous`."""
        return bool(self._hooks.of("authenticate"))

    def notices(self) -> list[str]:
        """What callers must read before they call."""
        return self._hooks.sentences("notices")

    def problems(self) -> list[str]:
        """What the plugins find wrong now, for the operator."""
        return self._hooks.sentences("problems")

    async def authenticate(self, connection: HTTPConnection) -> Identity | None:
        """Who is calling; None is denied. Raises RefusedError when a plugin does."""
        if not self.protected:
            return ANONYMOUS
        for hook in self._hooks.of("authenticate"):
            try:
                identity = await ask(hook, connection=connection)
            except RefusedError:
                raise
            except FAULTS as error:
                self._hooks.fault(hook, error, secret=True)
                return None
            if isinstance(identity, Identity):
                return identity
            if identity is not None:
                self._hooks.report(hook, f"gave {type(identity).__name__}, not an Identity")
                return None
        return None

    def login_path(self) -> str | None:
        """The path at which a plugin takes a password, or None when callers cannot log in with one."""
        for hook in self._hooks.of("login_path"):
            try:
                path = call_sync(hook)
            except FAULTS as error:
                self._hooks.fault(hook, error)
                continue
            if isinstance(path, str):
                return path
            if path is not None:
                self._hooks.report(hook, f"gave {type(path).__name__}, not a path")
        return None

    async def authorize(self, identity: Identity, persona: Persona) -> bool:
        """Whether no plugin refuses this persona to this caller."""
        for hook in self._hooks.of("authorize"):
            try:
                answer = await ask(hook, identity=identity, persona=persona)
                if answer is not None and not answer:
                    return False
            except FAULTS as error:
                self._hooks.fault(hook, error, secret=True)
                return False
        return True

    async def list_personas(self, identity: Identity) -> list[Persona]:
        """The personas this caller may use: the default one first, then in the plugins' order.

        Raises PersonaError when there is none because a plugin failed.
        """
        found, failed = await self._catalogue.personas(identity)
        allowed = [persona for persona in found if await self.authorize(identity, persona)]
        if failed and not allowed:
            raise PersonaError(f"The personas cannot be listed just now: the plugin {failed} failed. The log says why.")
        return allowed

    async def resolve_persona(self, name: str, identity: Identity) -> Persona:
        """The persona of that id; "" is the first of this caller's list. Raises PersonaError.

        Whether the caller may use it is for `authorize` to say.
        """
        if not name:
            personas = await self.list_personas(identity)
            if not personas:
                raise PersonaError("There is no persona for you here. Ask the operator for one.")
            return personas[0]
        return await self._catalogue.persona(name, identity)

    async def list_voices(self) -> list[str]:
        """Names of the voices on offer, in the order of `voices.allow`."""
        return await self._catalogue.voices()

    async def load_voice(self, name: str) -> Voice:
        """The voice of that name. Raises VoiceError when it is not offered or cannot be read."""
        return await self._catalogue.voice(name)

    def input_chain(self, session: SessionInfo, on_failure: Callable[[TransformFailed], None]) -> Chain:
        """The transforms of the caller's frames, new for this session."""
        return self._chain("transform_input", session, on_failure)

    def output_chain(self, session: SessionInfo, on_failure: Callable[[TransformFailed], None]) -> Chain:
        """The transforms of the agent's frames, new for this session."""
        return self._chain("transform_output", session, on_failure)

    def event(self, session: SessionInfo, event: SessionEvent) -> None:
        """Tell every plugin what happened in a session. Never raises for what a plugin does."""
        self._hooks.tell("session_event", session=session, event=event)

    def service_event(self, event: ServiceEvent) -> None:
        """Tell every plugin what happened outside of any session. Never raises for what a plugin does."""
        self._hooks.tell("service_event", event=event)

    def _chain(self, name: str, session: SessionInfo, on_failure: Callable[[TransformFailed], None]) -> Chain:
        transforms: list[tuple[str, Transform]] = []
        for hook in self._hooks.of(name):
            try:
                transform = call_sync(hook, session=session)
                if transform is None:
                    continue
                if not callable(getattr(transform, "process", None)):
                    raise TypeError(f"{type(transform).__name__} has no method process(frame)")
            except FAULTS as error:
                self._hooks.log_fault(hook, error)
                on_failure(TransformFailed(hook.plugin_name, describe(error)))
            else:
                transforms.append((hook.plugin_name, transform))
        return Chain(transforms, self.config.session.transform_budget_ms, on_failure)

    def _names(self) -> list[str]:
        return [one.info.name for one in self._plugins.found]
