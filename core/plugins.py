"""The plugin host: asks the plugins, one after another, and keeps what one does wrong from everybody else.

Order: installed packages, files in the plugin folders, built-ins; the first answer counts, and the first of two plugins
of the same name. pluggy's `tryfirst` and `trylast` change a hook's place in this order.

What happens when a plugin raises, or answers with something that is no answer:

- `startup`, `register_routes`: the boot stops, naming the plugin. `shutdown`: logged.
- `authenticate`, `authorize`: denied.
- personas, voices: logged, and the next plugin is asked; when none has an answer, this caller gets an error.
- audio: the transform is left out for this session, which is told.
- `session_event`: logged, the first time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pluggy
from pluggy import HookImpl
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from core.chain import Chain
from core.config import Config
from core.decoding import suggest
from core.engine.call import Engine
from core.engine.prompt import Voice
from core.errors import ConfigError, PersonaError, PluginError, VoiceError
from core.events import Identity, SessionEvent, SessionInfo, TransformFailed
from core.hook_calls import FAULTS, ask, call_sync, describe, hook_name, place
from core.hookspecs import Transform
from core.log import get_logger
from core.personas import PERSONA_ID, Persona
from core.plugin_loading import PluginInfo, load_plugins
from core.voices import VOICE_NAME, not_offered, offered, voice_name

__all__ = ["Chain", "PluginHost", "PluginInfo"]

STARTUP = Identity("startup")
"""Who asks for the personas when they are checked at boot."""
ANONYMOUS = Identity("anonymous")


class PluginHost:
    """All plugins of one app. Made by `load`; `startup` before the first caller, `shutdown` after the last."""

    def __init__(self, config: Config, manager: pluggy.PluginManager, plugins: Sequence[PluginInfo]) -> None:
        self._config = config
        self._manager = manager
        self._plugins = tuple(plugins)
        self._running: set[str] = set()
        self._reported: set[tuple[str, ...]] = set()
        self._log = get_logger("plugins")

    @classmethod
    def load(cls, config: Config) -> "PluginHost":
        """Find and load every plugin. Raises ConfigError with all that must stop the boot."""
        manager, plugins = load_plugins(config)
        host = cls(config, manager, plugins)
        for info in plugins:
            if info.problem:
                host._log.warning("plugin skipped", plugin=info.name, problem=info.problem)
        return host

    def describe(self) -> list[PluginInfo]:
        """Every plugin that was found, in order of precedence."""
        return list(self._plugins)

    async def startup(self, engine: Engine | None) -> None:
        """Start every plugin, and check that personas and voices fit. With None only settings are checked.

        Raises PluginError naming the plugin that failed, or ConfigError with every problem; plugins that had started
        are shut down before.
        """
        starts = self._hooks("startup")
        names = {name for name, _ in self._manager.list_name_plugin()}
        self._running = names - {hook.plugin_name for hook in starts}
        problems: list[str] = []
        try:
            for hook in starts:
                try:
                    await ask(hook, config=self._config, engine=engine)
                except ConfigError as error:
                    problems.extend(error.problems)
                except FAULTS as error:
                    raise PluginError(f"plugin {hook.plugin_name}: startup failed: {describe(error)}") from error
                else:
                    self._running.add(hook.plugin_name)
            problems.extend(await self._check())
            if problems:
                raise ConfigError(problems)
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> None:
        """Stop every plugin that has started, the last one first. One that raises is logged."""
        for hook in reversed(self._hooks("shutdown")):
            if hook.plugin_name in self._running:
                try:
                    await ask(hook)
                except FAULTS as error:
                    self._fault(hook, error)
        self._running = set()

    def routes(self) -> list[BaseRoute]:
        """The routes that plugins serve. Raises PluginError naming the plugin that failed."""
        routes: list[BaseRoute] = []
        for hook in self._hooks("register_routes"):
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
        return bool(self._hooks("authenticate"))

    async def authenticate(self, connection: HTTPConnection) -> Identity | None:
        """Who is calling; None is denied."""
        if not self.protected:
            return ANONYMOUS
        for hook in self._hooks("authenticate"):
            try:
                identity = await ask(hook, connection=connection)
            except FAULTS as error:
                self._fault(hook, error, secret=True)
                return None
            if isinstance(identity, Identity):
                return identity
            if identity is not None:
                self._report(hook, f"gave {type(identity).__name__}, not an Identity")
                return None
        return None

    async def authorize(self, identity: Identity, persona: Persona) -> bool:
        """Whether no plugin refuses this persona to this caller."""
        for hook in self._hooks("authorize"):
            try:
                answer = await ask(hook, identity=identity, persona=persona)
                if answer is not None and not answer:
                    return False
            except FAULTS as error:
                self._fault(hook, error, secret=True)
                return False
        return True

    async def list_personas(self, identity: Identity) -> list[Persona]:
        """The personas this caller may use: the default one first, then in the plugins' order.

        Raises PersonaError when there is none because a plugin failed.
        """
        found, failed = await self._personas(identity)
        allowed = [persona for persona in found if await self.authorize(identity, persona)]
        if failed and not allowed:
            raise PersonaError(f"The personas cannot be listed just now: the plugin {failed} failed. The log says why.")
        return sorted(allowed, key=lambda persona: persona.id != self._config.personas.default)

    async def resolve_persona(self, name: str, identity: Identity) -> Persona:
        """The persona of that id; "" is the first of this caller's list. Raises PersonaError.

        Whether the caller may use it is for `authorize` to say.
        """
        if not name:
            personas = await self.list_personas(identity)
            if not personas:
                raise PersonaError("There is no persona for you here. Ask the operator for one.")
            return personas[0]
        failed = ""
        if PERSONA_ID.fullmatch(name):
            voices = await self.list_voices()
            for hook in self._hooks("resolve_persona"):
                try:
                    persona = await ask(hook, name=name, identity=identity, voices=tuple(voices))
                except FAULTS as error:
                    failed = self._fault(hook, error)
                    continue
                if self._usable(hook, persona, voices):
                    return persona  # type: ignore[no-any-return] # _usable has looked
                failed = failed if persona is None else hook.plugin_name
        if failed:
            raise PersonaError(
                f"The persona {name!r} cannot be used just now: the plugin {failed} failed. The log says why."
            )
        raise PersonaError(f"There is no persona {name[:64]!r}. GET /personas lists those that there are.")

    async def list_voices(self) -> list[str]:
        """Names of the voices on offer, in the order of `voices.allow`."""
        return offered(await self._voices(), self._config.voices.allow)

    async def load_voice(self, name: str) -> Voice:
        """The voice of that name, with or without `.pt`. Raises VoiceError when it is not offered or cannot be read."""
        name = voice_name(name)
        voices = await self.list_voices()
        if name not in voices:
            raise VoiceError(not_offered(name, voices))
        for hook in self._hooks("load_voice"):
            try:
                voice = await ask(hook, name=name)
            except FAULTS as error:
                self._fault(hook, error)
                continue
            if isinstance(voice, Voice):
                return voice
            if voice is not None:
                self._report(hook, f"gave {type(voice).__name__}, not a Voice")
        raise VoiceError(f"The voice {name!r} cannot be read just now. The log says why.")

    def input_chain(self, session: SessionInfo, on_failure: Callable[[TransformFailed], None]) -> Chain:
        """The transforms of the caller's frames, new for this session."""
        return self._chain("transform_input", session, on_failure)

    def output_chain(self, session: SessionInfo, on_failure: Callable[[TransformFailed], None]) -> Chain:
        """The transforms of the agent's frames, new for this session."""
        return self._chain("transform_output", session, on_failure)

    def event(self, session: SessionInfo, event: SessionEvent) -> None:
        """Tell every plugin. Never raises for what a plugin does."""
        for hook in self._hooks("session_event"):
            try:
                call_sync(hook, session=session, event=event)
            except FAULTS as error:
                if self._first(hook.plugin_name, "session_event", type(event).__name__, type(error).__name__):
                    self._fault(hook, error)

    def _chain(self, name: str, session: SessionInfo, on_failure: Callable[[TransformFailed], None]) -> Chain:
        transforms: list[tuple[str, Transform]] = []
        for hook in self._hooks(name):
            try:
                transform = call_sync(hook, session=session)
                if transform is None:
                    continue
                if not callable(getattr(transform, "process", None)):
                    raise TypeError(f"{type(transform).__name__} has no method process(frame)")
            except FAULTS as error:
                self._fault(hook, error)
                on_failure(TransformFailed(hook.plugin_name, describe(error)))
            else:
                transforms.append((hook.plugin_name, transform))
        return Chain(transforms, self._config.session.transform_budget_ms, on_failure)

    async def _personas(self, identity: Identity) -> tuple[list[Persona], str]:
        """Every usable persona, each id once, and a plugin that failed, or ""."""
        voices = await self.list_voices()
        found: dict[str, Persona] = {}
        failed = ""
        for hook in self._hooks("list_personas"):
            try:
                for persona in await ask(hook, identity=identity, voices=tuple(voices)):
                    if self._usable(hook, persona, voices):
                        found.setdefault(persona.id, persona)
            except FAULTS as error:
                failed = self._fault(hook, error)
        return list(found.values()), failed

    async def _voices(self) -> list[str]:
        found: list[str] = []
        for hook in self._hooks("list_voices"):
            try:
                found.extend(name for name in await ask(hook) if VOICE_NAME.fullmatch(name))
            except FAULTS as error:
                self._fault(hook, error)
        return found

    async def _check(self) -> list[str]:
        """Problems of settings that only plugins know about: the allowed voices and the personas."""
        config, problems = self._config, []
        available = set(await self._voices())
        for name in config.voices.allow:
            if not offered(available, [name]):
                known = suggest(name, available) or " There are no voices at all."
                problems.append(f"{config.source}: voices.allow: there is no voice '{name}'.{known}")
        voices = offered(available, config.voices.allow)
        ids: list[str] = []
        for hook in self._hooks("list_personas"):
            try:
                personas = await ask(hook, identity=STARTUP, voices=tuple(voices))
                ids.extend(persona.id for persona in personas if self._usable(hook, persona, voices))
            except ConfigError as error:
                problems.extend(error.problems)
            except FAULTS as error:
                self._fault(hook, error)
        if not problems and config.personas.default and config.personas.default not in ids:
            problems.append(
                f"{config.source}: personas.default: there is no persona '{config.personas.default}'."
                f"{suggest(config.personas.default, ids)}"
            )
        return problems

    def _usable(self, hook: HookImpl, persona: Any, voices: Sequence[str]) -> bool:
        """Whether a plugin's answer is a persona that can be used now. What is wrong is logged, the first time."""
        if persona is None:
            return False
        problem = ""
        if not isinstance(persona, Persona):
            problem = f"gave {type(persona).__name__}, not a Persona"
        elif not PERSONA_ID.fullmatch(persona.id):
            problem = f"gave a persona with the id {persona.id!r}: only small letters, digits, '-' and '_'"
        elif persona.voice not in voices:
            problem = f"gave the persona {persona.id!r}: {not_offered(persona.voice, voices)}"
        if problem:
            self._report(hook, problem)
        return not problem

    def _hooks(self, name: str) -> list[HookImpl]:
        """The implementations of a hook, the first to be asked first."""
        return list(reversed(getattr(self._manager.hook, name).get_hookimpls()))

    def _first(self, *what: str) -> bool:
        if what in self._reported:
            return False
        self._reported.add(what)
        return True

    def _report(self, hook: HookImpl, problem: str) -> None:
        name = hook_name(hook)
        if self._first(hook.plugin_name, name, problem):
            self._log.error("plugin answered wrongly", plugin=hook.plugin_name, hook=name, problem=problem)

    def _fault(self, hook: HookImpl, error: BaseException, secret: bool = False) -> str:
        """Log what a plugin raised; with `secret` only its type and place, since its text may hold a password."""
        what = type(error).__name__ if secret else describe(error)
        self._log.error("plugin failed", plugin=hook.plugin_name, hook=hook_name(hook), error=what, at=place(error))
        return hook.plugin_name
