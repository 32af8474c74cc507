"""The personas and voices on offer: all that the plugins have together, as far as the settings allow them."""

from collections.abc import Sequence
from typing import Any, TypeGuard

from pluggy import HookImpl

from core.engine.prompt import Voice
from core.errors import ConfigError, PersonaError, VoiceError
from core.events import Identity
from core.media.voices import VOICE_NAME, not_offered, offered
from core.plugin.hook_calls import PLUGIN_ERRORS, HookCaller, call_async
from core.plugin.personas import PERSONA_ID, Persona
from core.settings.config import Config
from core.settings.yaml_structs import suggest

STARTUP = Identity("startup")
"""The identity for which personas are listed when they are checked."""


class Catalogue:
    """Looks personas and voices up. The plugins are asked each time, so that what they offer may change."""

    def __init__(self, config: Config, hooks: HookCaller) -> None:
        self._config = config
        self._hooks = hooks

    async def list_personas(self, identity: Identity) -> tuple[list[Persona], str]:
        """Every usable persona, each id once, the default one first; and the name of a plugin that failed, or ""."""
        voices = await self.list_voices()
        personas: dict[str, Persona] = {}
        failed = ""
        for hook in self._hooks.implementations("list_personas"):
            try:
                for persona in await call_async(hook, identity=identity, voices=tuple(voices)):
                    if self._is_usable(persona, hook, voices):
                        personas.setdefault(persona.id, persona)
            except PLUGIN_ERRORS as error:
                self._hooks.report_failure(hook, error)
                failed = hook.plugin_name
        default = self._config.personas.default
        return sorted(personas.values(), key=lambda persona: persona.id != default), failed

    async def resolve_persona(self, name: str, identity: Identity) -> Persona:
        """The persona of that id. Raises PersonaError."""
        failed = ""
        if PERSONA_ID.fullmatch(name):
            voices = await self.list_voices()
            for hook in self._hooks.implementations("resolve_persona"):
                try:
                    persona = await call_async(hook, name=name, identity=identity, voices=tuple(voices))
                except PLUGIN_ERRORS as error:
                    self._hooks.report_failure(hook, error)
                    failed = hook.plugin_name
                    continue
                if self._is_usable(persona, hook, voices):
                    return persona
                failed = failed if persona is None else hook.plugin_name
        if failed:
            raise PersonaError(
                f"The persona {name!r} cannot be used just now: the plugin {failed} failed. The log says why."
            )
        raise PersonaError(f"There is no persona {name[:64]!r}. GET /personas lists those that there are.")

    async def list_voices(self) -> list[str]:
        """Names of the voices on offer, in the order of `voices.allow`."""
        return offered(await self._available_voices(), self._config.voices.allow)

    async def load_voice(self, name: str) -> Voice:
        """The voice of that name. Raises VoiceError when it is not offered or cannot be read."""
        voices = await self.list_voices()
        if name not in voices:
            raise VoiceError(not_offered(name, voices))
        for hook in self._hooks.implementations("load_voice"):
            try:
                voice = await call_async(hook, name=name)
            except PLUGIN_ERRORS as error:
                self._hooks.report_failure(hook, error)
                continue
            if isinstance(voice, Voice):
                return voice
            if voice is not None:
                self._hooks.report_invalid_result(hook, f"returned {type(voice).__name__}, not a Voice")
        raise VoiceError(f"The voice {name!r} cannot be read just now. The log says why.")

    async def check(self) -> list[str]:
        """Problems of settings that only plugins know about: the allowed voices, and the personas."""
        config, problems = self._config, []
        available = set(await self._available_voices())
        for name in config.voices.allow:
            if not offered(available, [name]):
                suggestion = suggest(name, available) or " There are no voices at all."
                problems.append(f"{config.source}: voices.allow: there is no voice '{name}'.{suggestion}")
        voices = offered(available, config.voices.allow)
        ids: list[str] = []
        for hook in self._hooks.implementations("list_personas"):
            try:
                personas = await call_async(hook, identity=STARTUP, voices=tuple(voices))
                ids.extend(persona.id for persona in personas if self._is_usable(persona, hook, voices))
            except ConfigError as error:
                problems.extend(error.problems)
            except PLUGIN_ERRORS as error:
                self._hooks.report_failure(hook, error)
        if not problems and config.personas.default and config.personas.default not in ids:
            problems.append(
                f"{config.source}: personas.default: there is no persona '{config.personas.default}'."
                f"{suggest(config.personas.default, ids)}"
            )
        return problems

    async def _available_voices(self) -> list[str]:
        """Names of all voices that the plugins can load, whether the settings allow them or not."""
        names: list[str] = []
        for hook in self._hooks.implementations("list_voices"):
            try:
                names.extend(name for name in await call_async(hook) if VOICE_NAME.fullmatch(name))
            except PLUGIN_ERRORS as error:
                self._hooks.report_failure(hook, error)
        return names

    def _is_usable(self, persona: Any, hook: HookImpl, voices: Sequence[str]) -> TypeGuard[Persona]:
        """Whether a plugin returned a persona that can be used now. None is no persona; anything else is reported."""
        if persona is None:
            return False
        problem = ""
        if not isinstance(persona, Persona):
            problem = f"returned {type(persona).__name__}, not a Persona"
        elif not PERSONA_ID.fullmatch(persona.id):
            problem = f"returned a persona with the id {persona.id!r}: only small letters, digits, '-' and '_'"
        elif persona.voice not in voices:
            problem = f"returned the persona {persona.id!r}: {not_offered(persona.voice, voices)}"
        if problem:
            self._hooks.report_invalid_result(hook, problem)
        return not problem
