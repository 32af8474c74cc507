"""The plugin host: calls the plugins one after another, and contains the failure of any of them.

Order: installed packages, files in the plugin folders, built-ins. The first result that is not None counts, and the
first of two plugins of the same name. pluggy's `tryfirst` and `trylast` change a hook's place in this order.

What happens when a plugin raises or returns an invalid result:

- `startup`, `register_routes`: the boot stops, naming the plugin. `shutdown`: it is logged.
- `authenticate`, `authorize`: the caller is denied; a RefusedError sets the HTTP status, the message and headers.
- personas, voices: it is logged and the next plugin is called; when none has a result, this caller gets an error.
- any hook that does not return in the time that it has: as if it had raised; the log and `problems` name it.
- audio: the transform is left out for this session, which gets a TransformFailed event.
- `open_session`: the handler is left out for this session, which gets a HandlerFailed event.
- `session_event`, `service_event`: it is logged, the first time.
- `notices`, `problems`: it is logged, and the sentences of the other plugins are shown.
- `login`: it is logged, the first time, and the page offers the other ways. `login_secret`: it is logged, the first
  time, and its cookies and tickets count no more.

Every failure of a hook is also a PluginFailed event for `service_event`; a transform's is a TransformFailed event for
`session_event`, and a handler's a HandlerFailed event.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pluggy import HookImpl
from starlette.routing import BaseRoute

from core.engine.call import Engine
from core.engine.prompt import Voice
from core.errors import ConfigError, PersonaError, PluginError, RefusedError
from core.events import OPERATOR, HandlerFailed, Identity, ServiceEvent, SessionEvent, SessionInfo, TransformFailed
from core.plugin.acting import SessionControl
from core.plugin.authentication import Authentication
from core.plugin.catalogue import Catalogue
from core.plugin.discovery import Candidate, find_plugins
from core.plugin.doors import Calls
from core.plugin.handlers import Handler, open_handlers
from core.plugin.hook_calls import HookCaller, describe_error
from core.plugin.loading import PluginInfo, PluginSet, load_plugins, reload_plugins
from core.plugin.personas import Persona
from core.plugin.signed_tokens import SigningKeys
from core.plugin.store import MemoryStore, Store
from core.plugin.transforms import Chain, open_chain
from core.plugin.worker_threads import Job
from core.settings.config import Config
from core.settings.hosts import is_loopback
from core.settings.log import get_logger


@dataclass(frozen=True)
class Findings:
    """The result of `PluginHost.check`."""

    protected: bool
    """Whether any plugin authenticates callers."""
    personas: int
    """How many are on offer."""
    voices: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    """What is no mistake, and yet refuses clients of others: a sentence each."""


class PluginHost:
    """All plugins of one app and the settings they run with. Neither changes: `reloaded` makes a host for new settings.

    Created by `load`; `startup` comes before the first caller, `shutdown` after the last. Hosts may share plugin
    objects: `startup` starts those that no host has started, `shutdown` shuts down those that no other host uses.
    """

    def __init__(self, config: Config, plugins: PluginSet, shared: Store, keys: SigningKeys | None = None) -> None:
        self.config = config
        self._shared = shared
        self._plugins = plugins
        self._manager = plugins.manager
        self._hooks = HookCaller(plugins.manager, plugins.threads, config.session.auth_s)
        self._budget_ms = config.session.transform_budget_ms
        self._catalogue = Catalogue(config, self._hooks)
        self._keys = keys or SigningKeys()
        self.authentication = Authentication(self._hooks, config.server, shared, self._keys)
        """Who is calling, and what they may."""
        self._lifetimes = {one.info.name: one.lifetime for one in plugins.loaded if one.plugin is not None}

    @classmethod
    def load(
        cls, config: Config, candidates: Iterable[Candidate] | None = None, shared: Store | None = None
    ) -> "PluginHost":
        """Load the candidates, in order of precedence; without any, all plugins that `find_plugins` finds.

        `shared` keeps what plugins remember over edits; None is a store of this process alone. Raises ConfigError with
        all that must stop the boot.
        """
        found = find_plugins(config) if candidates is None else candidates
        problems: list[str] = []
        host = cls(config, load_plugins(config, found, problems), shared or MemoryStore())
        if problems:
            raise ConfigError(problems)
        for info in host.describe():
            if info.problem:
                get_logger("plugins").warning("plugin skipped", plugin=info.name, problem=info.problem)
        return host

    def reloaded(self, config: Config) -> "PluginHost":
        """A host for new settings, not started yet. It shares the plugin objects with this host, except for new
        instances of the classes that depend on what changed: their own options or, where their `startup` takes
        `config`, any setting. A plugin that is a module is always shared, since there is only one of it.

        Raises ConfigError with everything that is wrong. Blocks while the classes are instantiated.
        """
        names = [one.info.name for one in self._plugins.loaded]
        changed = {name for name in names if config.options(name) != self.config.options(name)}
        changed |= {hook.plugin_name for hook in self._hooks.implementations("startup") if "config" in hook.argnames}
        return PluginHost(config, reload_plugins(self._plugins, changed, config), self._shared, self._keys)

    def describe(self) -> list[PluginInfo]:
        """Every plugin that was found, in order of precedence."""
        return [one.info for one in self._plugins.loaded]

    async def startup(self, engine: Engine | None, calls: Calls | None = None) -> None:
        """Start every plugin that no host has started, and check the personas and voices. `engine` is None where only
        settings are checked, and `calls` where nobody can call.

        Raises PluginError naming the plugin that failed, or ConfigError with every problem, after shutting down the
        plugins that this call started.
        """
        try:
            problems: list[str] = []
            for failure in await self._start(engine, calls):
                if isinstance(failure, PluginError):
                    raise failure
                problems.extend(failure.problems)
            problems.extend(await self._catalogue.check())
            if problems:
                raise ConfigError(problems)
        except BaseException:
            await self.shutdown()
            raise

    @classmethod
    async def check(cls, config: Config) -> Findings:
        """Load all plugins that `find_plugins` finds, start them without an engine, look for everything that is wrong,
        and shut them down again. Raises ConfigError when not even the plugins can be found.
        """
        problems: list[str] = []
        host = cls(config, load_plugins(config, find_plugins(config), problems), MemoryStore())
        for info in host.describe():
            if info.problem and not any(problem.startswith(info.problem) for problem in problems):
                problems.append(info.problem)
        try:
            host.routes()
        except PluginError as error:
            problems.append(str(error))
        try:
            for failure in await host._start(None, None):
                problems.extend(failure.problems if isinstance(failure, ConfigError) else [f"{failure}."])
            problems.extend(await host._catalogue.check())
            problems.extend(await host._catalogue.faults(complete=False))
            problems.extend(host.problems())
            voices = await host.list_voices()
            personas, _ = await host._catalogue.list_personas(OPERATOR, voices)
            notes = await host._notes()
        finally:
            await host.shutdown()
        return Findings(host.protected, len(personas), len(voices), tuple(problems), notes)

    async def _notes(self) -> tuple[str, ...]:
        """What clients of others ask for and do not get, by the settings."""
        notes: list[str] = []
        if not self.custom:
            notes.append(
                "personas.custom: callers may not bring a prompt of their own, as NVIDIA's and LiveKit's clients do."
            )
        if left_out := await self._catalogue.left_out_voices():
            notes.append(
                f"voices.allow: not offered are {', '.join(left_out)}. Who asks for one of them is refused; NVIDIA's "
                "web client lists all of PersonaPlex's."
            )
        return tuple(notes)

    async def faults(self) -> list[str]:
        """What a call would be refused for now, a sentence each. Reads every voice that is on offer."""
        return await self._catalogue.faults(complete=True)

    async def _start(self, engine: Engine | None, calls: Calls | None) -> list[ConfigError | PluginError]:
        """Start every plugin that no host has started, and return what kept some from starting."""
        starts = self._hooks.implementations("startup")
        with_startup = {hook.plugin_name for hook in starts}
        for name, lifetime in self._lifetimes.items():
            lifetime.hosts.add(self)
            lifetime.started = lifetime.started or name not in with_startup
        failures: list[ConfigError | PluginError] = []
        for hook in starts:
            lifetime = self._lifetimes[hook.plugin_name]
            if lifetime.started:
                continue
            try:
                await self._hooks.call(
                    hook,
                    config=self.config,
                    engine=engine,
                    shared=self._shared,
                    calls=calls,
                    logins=self.authentication.logins_of(hook.plugin_name),
                )
            except ConfigError as error:
                failures.append(error)
            except Exception as error:
                failure = PluginError(f"plugin {hook.plugin_name}: startup failed: {describe_error(error)}")
                failure.__cause__ = error
                failures.append(failure)
            else:
                lifetime.started = True
        return failures

    async def shutdown(self) -> None:
        """Let go of every plugin, and shut down those that have started and that no other host uses, the last one
        first. What a plugin raises is logged.
        """
        unused = set()
        for name, lifetime in self._lifetimes.items():
            lifetime.hosts.discard(self)
            if lifetime.started and not lifetime.hosts:
                lifetime.started = False
                unused.add(name)
        for hook in reversed(self._hooks.implementations("shutdown")):
            if hook.plugin_name in unused:
                try:
                    await self._hooks.call(hook)
                except Exception as error:
                    self._hooks.report_failure(hook, error)

    def routes(self) -> list[BaseRoute]:
        """The routes that plugins serve; each plugin object is asked once. Raises PluginError naming the plugin that
        failed.
        """
        routes: list[BaseRoute] = []
        for hook in self._hooks.implementations("register_routes"):
            lifetime = self._lifetimes[hook.plugin_name]
            if lifetime.routes is None:
                lifetime.routes = self._register_routes(hook)
            routes.extend(lifetime.routes)
        return routes

    def _register_routes(self, hook: HookImpl) -> list[BaseRoute]:
        try:
            routes: list[Any] = list(self._hooks.call_on_loop(hook))
        except Exception as error:
            raise PluginError(f"plugin {hook.plugin_name}: register_routes failed: {describe_error(error)}") from error
        wrong = [route for route in routes if not isinstance(route, BaseRoute)]
        if wrong:
            raise PluginError(
                f"plugin {hook.plugin_name}: register_routes returned {wrong[0]!r}, not a Starlette route."
            )
        return routes

    @property
    def protected(self) -> bool:
        """Whether callers have to say who they are. Where no plugin asks, every caller is `anonymous`."""
        return self.authentication.required

    @property
    def private(self) -> bool:
        """Whether callers log in, or only this machine can reach the service."""
        return self.protected or is_loopback(self.config.server.host)

    @property
    def custom(self) -> bool:
        """Whether callers may choose a voice and write a prompt of their own."""
        custom = self.config.personas.custom
        return self.private if custom == "auto" else custom

    def notices(self, identity: Identity | None = None) -> list[str]:
        """Sentences that callers must read before they call; `identity` is who asks, None a visitor."""
        return self._hooks.collect_sentences("notices", identity=identity)

    def problems(self) -> list[str]:
        """Sentences for the operator about what the plugins find wrong at this moment."""
        return [*self._hooks.threads.problems(), *self._hooks.collect_sentences("problems")]

    async def authorize(self, identity: Identity, persona: Persona) -> bool:
        """Whether this caller may use this persona, which is so unless a plugin refuses it."""
        return await self.authentication.authorize(identity, persona)

    async def list_personas(self, identity: Identity, voices: Sequence[str] | None = None) -> list[Persona]:
        """The personas this caller may use: the default one first, then in the plugins' order.

        `voices`, here and below: what `list_voices` returned for this request; without them the plugins are asked.

        Raises PersonaError when there is none because a plugin failed.
        """
        found, failed = await self._catalogue.list_personas(identity, await self._offered(voices))
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

    async def resolve_persona(self, name: str, identity: Identity, voices: Sequence[str] | None = None) -> Persona:
        """The persona of that id; "" is the first one in this caller's list.

        Raises PersonaError, or RefusedError when a plugin keeps the caller from every persona and says why.

        Does not check whether the caller may use it: `authorize` does.
        """
        voices = await self._offered(voices)
        if not name:
            personas = await self.list_personas(identity, voices)
            if not personas:
                for persona in (await self._catalogue.list_personas(identity, voices))[0]:
                    await self.authorize(identity, persona)  # which may say why
                raise PersonaError("There is no persona for you here. Ask the operator for one.")
            return personas[0]
        return await self._catalogue.resolve_persona(name, identity, voices)

    async def list_voices(self) -> list[str]:
        """Names of the voices on offer, in the order of `voices.allow`."""
        return await self._catalogue.list_voices()

    async def load_voice(self, name: str, voices: Sequence[str] | None = None) -> Voice:
        """The voice of that name. Raises VoiceError when it is not offered or cannot be read."""
        return await self._catalogue.load_voice(name, await self._offered(voices))

    async def _offered(self, voices: Sequence[str] | None) -> Sequence[str]:
        return await self.list_voices() if voices is None else voices

    def input_chain(self, session: SessionInfo, on_failure: Callable[[TransformFailed], None]) -> Chain:
        """New transforms for the caller's frames in this session. `on_failure` is called for each one that fails."""
        return open_chain(self._hooks, "transform_input", session, self._budget_ms, on_failure)

    def output_chain(self, session: SessionInfo, on_failure: Callable[[TransformFailed], None]) -> Chain:
        """New transforms for the agent's frames in this session. `on_failure` is called for each one that fails."""
        return open_chain(self._hooks, "transform_output", session, self._budget_ms, on_failure)

    def open_session(
        self, control: Callable[[str], SessionControl], on_failure: Callable[[HandlerFailed], None]
    ) -> list[Handler]:
        """The handlers that plugins have for a new session. `control` makes the control that a plugin gets by its name;
        `on_failure` is called for each handler that fails."""
        return open_handlers(self._hooks, control, on_failure)

    def report_hanging(self, plugin: str, job: Job[Any]) -> None:
        """Log that the `process` of a plugin's transform does not return. New calls go without the transform."""
        self._hooks.threads.report_hanging(plugin, "process", job)

    def event(self, session: SessionInfo, event: SessionEvent) -> None:
        """Send an event of a session to every plugin. What a plugin raises is logged, never raised here."""
        self._hooks.notify("session_event", session=session, event=event)

    def service_event(self, event: ServiceEvent) -> None:
        """Send an event of the service to every plugin. What a plugin raises is logged, never raised here."""
        self._hooks.notify("service_event", event=event)
