"""The plugin host: calls the plugins one after another, and contains the failure of any of them.

Order: installed packages, files in the plugin folders, built-ins. The first result that is not None counts, and the
first of two plugins of the same name. pluggy's `tryfirst` and `trylast` change a hook's place in this order.

What happens when a plugin raises or returns an invalid result:

- `startup`, `register_routes`: the boot stops, naming the plugin. `shutdown`: it is logged.
- `authenticate`, `authorize`: the caller is denied; a RefusedError sets the HTTP status, the message and headers.
- personas, voices: it is logged and the next plugin is called; when none has a result, this caller gets an error.
- audio: the transform is left out for this session, which gets a TransformFailed event.
- `session_event`, `service_event`: it is logged, the first time.
- `notices`, `problems`: it is logged, and the sentences of the other plugins are shown.
- `login_path`: it is logged, and the next plugin is called.

Every failure of a hook is also a PluginFailed event for `service_event`; a transform's is a TransformFailed event.
"""

from collections.abc import Callable, Iterable
from typing import Any

from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from core.engine.call import Engine
from core.engine.prompt import Voice
from core.errors import ConfigError, PersonaError, PluginError, RefusedError
from core.events import Identity, ServiceEvent, SessionEvent, SessionInfo, TransformFailed
from core.plugin.catalogue import Catalogue
from core.plugin.discovery import Candidate, find_plugins
from core.plugin.hook_calls import PLUGIN_ERRORS, HookCaller, call_async, call_sync, describe_error
from core.plugin.hookspecs import Transform
from core.plugin.loading import PluginInfo, PluginSet, load_plugins, reload_plugins
from core.plugin.personas import Persona
from core.plugin.store import MemoryStore, Store
from core.plugin.transforms import Chain
from core.settings.config import Config
from core.settings.log import get_logger

ANONYMOUS = Identity("anonymous")


class PluginHost:
    """All plugins of one app and the settings they run with. Neither changes: `reloaded` makes a host for new settings.

    Created by `load`; `startup` comes before the first caller, `shutdown` after the last.
    """

    def __init__(self, config: Config, plugins: PluginSet, shared: Store) -> None:
        self.config = config
        self._shared = shared
        self._plugins = plugins
        self._manager = plugins.manager
        self._hooks = HookCaller(plugins.manager)
        self._catalogue = Catalogue(config, self._hooks)
        self._running: set[str] = set()
        self._routes: list[BaseRoute] | None = None

    @classmethod
    def load(
        cls, config: Config, candidates: Iterable[Candidate] | None = None, shared: Store | None = None
    ) -> "PluginHost":
        """Load the candidates, in order of precedence; without any, all plugins that `find_plugins` finds.

        `shared` keeps what plugins remember over edits; None is a store of this process alone. Raises ConfigError with
        all that must stop the boot.
        """
        found = find_plugins(config) if candidates is None else candidates
        host = cls(config, load_plugins(config, found), shared or MemoryStore())
        for info in host.describe():
            if info.problem:
                get_logger("plugins").warning("plugin skipped", plugin=info.name, problem=info.problem)
        return host

    def reloaded(self, config: Config) -> "PluginHost":
        """A host for new settings, not started yet. It shares the plugin instances with this host, except those that
        depend on what changed: their own options or, where their `startup` takes `config`, any setting.

        Raises ConfigError with everything that is wrong.
        """
        names = [one.info.name for one in self._plugins.loaded]
        changed = {name for name in names if config.options(name) != self.config.options(name)}
        changed |= {hook.plugin_name for hook in self._hooks.implementations("startup") if "config" in hook.argnames}
        host = PluginHost(config, reload_plugins(self._plugins, changed, config), self._shared)
        host._running = self._running - changed
        return host

    def describe(self) -> list[PluginInfo]:
        """Every plugin that was found, in order of precedence."""
        return [one.info for one in self._plugins.loaded]

    async def startup(self, engine: Engine | None) -> None:
        """Start every plugin that is not running yet, and check the personas and voices. `engine` is None where only
        settings are checked.

        Raises PluginError naming the plugin that failed, or ConfigError with every problem, after shutting down the
        plugins that this call started.
        """
        already_running = frozenset(self._running)
        starts = [hook for hook in self._hooks.implementations("startup") if hook.plugin_name not in already_running]
        self._running |= {name for name, _ in self._manager.list_name_plugin()} - {hook.plugin_name for hook in starts}
        problems: list[str] = []
        try:
            for hook in starts:
                try:
                    await call_async(hook, config=self.config, engine=engine, shared=self._shared)
                except ConfigError as error:
                    problems.extend(error.problems)
                except PLUGIN_ERRORS as error:
                    raise PluginError(f"plugin {hook.plugin_name}: startup failed: {describe_error(error)}") from error
                else:
                    self._running.add(hook.plugin_name)
            problems.extend(await self._catalogue.check())
            if problems:
                raise ConfigError(problems)
        except BaseException:
            self._running -= already_running  # the host that started them still uses them
            await self.shutdown()
            raise

    async def shutdown(self, successor: "PluginHost | None" = None) -> None:
        """Shut down every plugin that has started, the last one first, except those that `successor` shares.

        What a plugin raises is logged.
        """
        for hook in reversed(self._hooks.implementations("shutdown")):
            shared = successor is not None and successor._manager.is_registered(hook.plugin)
            if hook.plugin_name in self._running and not shared:
                try:
                    await call_async(hook)
                except PLUGIN_ERRORS as error:
                    self._hooks.report_failure(hook, error)
        self._running = set()

    def routes(self) -> list[BaseRoute]:
        """The routes that plugins serve. Raises PluginError naming the plugin that failed."""
        if self._routes is None:
            self._routes = self._collect_routes()
        return self._routes

    def _collect_routes(self) -> list[BaseRoute]:
        routes: list[BaseRoute] = []
        for hook in self._hooks.implementations("register_routes"):
            try:
                result: list[Any] = list(call_sync(hook))
            except PLUGIN_ERRORS as error:
                raise PluginError(
                    f"plugin {hook.plugin_name}: register_routes failed: {describe_error(error)}"
                ) from error
            wrong = [route for route in result if not isinstance(route, BaseRoute)]
            if wrong:
                raise PluginError(
                    f"plugin {hook.plugin_name}: register_routes returned {wrong[0]!r}, not a Starlette route."
                )
            routes.extend(result)
        return routes

    @property
    def protected(self) -> bool:
        """Whether any plugin authenticates callers. Without one, every caller is `anonymous`."""
        return bool(self._hooks.implementations("authenticate"))

    def notices(self) -> list[str]:
        """Sentences that callers must read before they call."""
        return self._hooks.collect_sentences("notices")

    def problems(self) -> list[str]:
        """Sentences for the operator about what the plugins find wrong at this moment."""
        return self._hooks.collect_sentences("problems")

    async def authenticate(self, connection: HTTPConnection) -> Identity | None:
        """Who is calling, or None when the caller is denied. Raises RefusedError when a plugin does."""
        if not self.protected:
            return ANONYMOUS
        for hook in self._hooks.implementations("authenticate"):
            try:
                identity = await call_async(hook, connection=connection)
            except RefusedError:
                raise
            except PLUGIN_ERRORS as error:
                self._hooks.report_failure(hook, error, hide_text=True)
                return None
            if isinstance(identity, Identity):
                return identity
            if identity is not None:
                self._hooks.report_invalid_result(hook, f"returned {type(identity).__name__}, not an Identity")
                return None
        return None

    def login_path(self) -> str | None:
        """The path at which a plugin takes a password, or None when callers cannot log in with one."""
        for hook in self._hooks.implementations("login_path"):
            try:
                path = call_sync(hook)
            except PLUGIN_ERRORS as error:
                self._hooks.report_failure(hook, error)
                continue
            if isinstance(path, str):
                return path
            if path is not None:
                self._hooks.report_invalid_result(hook, f"returned {type(path).__name__}, not a path")
        return None

    async def authorize(self, identity: Identity, persona: Persona) -> bool:
        """Whether this caller may use this persona, which is so unless a plugin refuses it."""
        for hook in self._hooks.implementations("authorize"):
            try:
                answer = await call_async(hook, identity=identity, persona=persona)
                if answer is not None and not answer:
                    return False
            except RefusedError:
                raise
            except PLUGIN_ERRORS as error:
                self._hooks.report_failure(hook, error, hide_text=True)
                return False
        return True

    async def list_personas(self, identity: Identity) -> list[Persona]:
        """The personas this caller may use: the default one first, then in the plugins' order.

        Raises PersonaError when there is none because a plugin failed.
        """
        found, failed = await self._catalogue.list_personas(identity)
        allowed = [persona for persona in found if await self._may_use(identity, persona)]
        if failed and not allowed:
            raise PersonaError(f"The personas cannot be listed just now: the plugin {failed} failed. The log says why.")
        return allowed

    async def _may_use(self, identity: Identity, persona: Persona) -> bool:
        """Whether `authorize` allows this persona, without the reason why it does not."""
        try:
            return await self.authorize(identity, persona)
        except RefusedError:
            return False

    async def resolve_persona(self, name: str, identity: Identity) -> Persona:
        """The persona of that id; "" is the first one in this caller's list.

        Raises PersonaError, or RefusedError when a plugin keeps the caller from every persona and says why.

        Does not check whether the caller may use it: `authorize` does.
        """
        if not name:
            personas = await self.list_personas(identity)
            if not personas:
                for persona in (await self._catalogue.list_personas(identity))[0]:
                    await self.authorize(identity, persona)  # which may say why
                raise PersonaError("There is no persona for you here. Ask the operator for one.")
            return personas[0]
        return await self._catalogue.resolve_persona(name, identity)

    async def list_voices(self) -> list[str]:
        """Names of the voices on offer, in the order of `voices.allow`."""
        return await self._catalogue.list_voices()

    async def load_voice(self, name: str) -> Voice:
        """The voice of that name. Raises VoiceError when it is not offered or cannot be read."""
        return await self._catalogue.load_voice(name)

    def input_chain(self, session: SessionInfo, on_failure: Callable[[TransformFailed], None]) -> Chain:
        """New transforms for the caller's frames in this session. `on_failure` is called for each one that fails."""
        return self._chain("transform_input", session, on_failure)

    def output_chain(self, session: SessionInfo, on_failure: Callable[[TransformFailed], None]) -> Chain:
        """New transforms for the agent's frames in this session. `on_failure` is called for each one that fails."""
        return self._chain("transform_output", session, on_failure)

    def event(self, session: SessionInfo, event: SessionEvent) -> None:
        """Send an event of a session to every plugin. What a plugin raises is logged, never raised here."""
        self._hooks.notify("session_event", session=session, event=event)

    def service_event(self, event: ServiceEvent) -> None:
        """Send an event of the service to every plugin. What a plugin raises is logged, never raised here."""
        self._hooks.notify("service_event", event=event)

    def _chain(self, hook_name: str, session: SessionInfo, on_failure: Callable[[TransformFailed], None]) -> Chain:
        transforms: list[tuple[str, Transform]] = []
        for hook in self._hooks.implementations(hook_name):
            try:
                transform = call_sync(hook, session=session)
                if transform is None:
                    continue
                if not callable(getattr(transform, "process", None)):
                    raise TypeError(f"{type(transform).__name__} has no method process(frame)")
            except PLUGIN_ERRORS as error:
                self._hooks.log_failure(hook, error)
                on_failure(TransformFailed(hook.plugin_name, describe_error(error)))
            else:
                transforms.append((hook.plugin_name, transform))
        return Chain(transforms, self.config.session.transform_budget_ms, on_failure)
