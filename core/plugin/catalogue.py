"""The personas and voices on offer, as the plugins together have them and the settings allow."""

from collections.abc import Sequence
from typing import Any

from pluggy import HookImpl

from core.engine.prompt import Voice
from core.errors import ConfigError, PersonaError, VoiceError
from core.events import Identity
from core.media.voices import VOICE_NAME, not_offered, offered
from core.plugin.hook_calls import FAULTS, Hooks, ask
from core.plugin.personas import PERSONA_ID, Persona
from core.settings.config import Config
from core.settings.yaml_structs import suggest

STARTUP = Identity("startup")
"""Who asks for the personas when they are checked."""


class Catalogue:
    """Asks the plugins each time, so that what they offer may change."""

    def __init__(self, config: Config, hooks: Hooks) -> None:
        self._config = config
        self._hooks = hooks

    async def personas(self, identity: Identity) -> tuple[list[Persona], str]:
        """Every usable persona, each id once, the default one first, and the name of a plugin that failed, or ""."""
        voices = await self.voices()
        found: dict[str, Persona] = {}
        failed = ""
        for hook in self._hooks.of("list_personas"):
            try:
                for persona in await ask(hook, identity=identity, voices=tuple(voices)):
                    if self._usable(hook, persona, voices):
                        found.setdefault(persona.id, persona)
            except FAULTS as error:
                failed = self._hooks.fault(hook, error)
        default = self._config.personas.default
        return sorted(found.values(), key=lambda persona: persona.id != default), failed

    async def persona(self, name: str, identity: Identity) -> Persona:
        """The persona of that id. Raises PersonaError."""
        failed = ""
        if PERSONA_ID.fullmatch(name):
            voices = await self.voices()
            for hook in self._hooks.of("resolve_persona"):
                try:
                    persona = await ask(hook, name=name, identity=identity, voices=tuple(voices))
                except FAULTS as error:
                    failed = self._hooks.fault(hook, error)
                    continue
                if self._usable(hook, persona, voices):
                    return persona  # type: ignore[no-any-return] # _usable has looked
                failed = failed if persona is None else hook.plugin_name
        if failed:
            raise PersonaError(
                f"The persona {name!r} cannot be used just now: the plugin {failed} failed. The log says why."
            )
        raise PersonaError(f"There is no persona {name[:64]!r}. GET /personas lists those that there are.")

    async def voices(self) -> list[str]:
        """Names of the voices on offer, in the order of `voices.allow`."""
        return offered(await self._available(), self._config.voices.allow)

    async def voice(self, name: str) -> Voice:
        """The voice of that name. Raises VoiceError when it is not offered or cannot be read."""
        voices = await self.voices()
        if name not in voices:
            raise VoiceError(not_offered(name, voices))
        for hook in self._hooks.of("load_voice"):
            try:
                voice = await ask(hook, name=name)
            except FAULTS as error:
                self._hooks.fault(hook, error)
                continue
            if isinstance(voice, Voice):
                return voice
            if voice is not None:
                self._hooks.report(hook, f"gave {type(voice).__name__}, not a Voice")
        raise VoiceError(f"The voice {name!r} cannot be read just now. The log says why.")

    async def check(self) -> list[str]:
        """Problems of settings that only plugins know about: the allowed voices and the personas."""
        config, problems = self._config, []
        available = set(await self._available())
        for name in config.voices.allow:
            if not offered(available, [name]):
                known = suggest(name, available) or " There are no voices at all."
                problems.append(f"{config.source}: voices.allow: there is no voice '{name}'.{known}")
        voices = offered(available, config.voices.allow)
        ids: list[str] = []
        for hook in self._hooks.of("list_personas"):
            try:
                personas = await ask(hook, identity=STARTUP, voices=tuple(voices))
                ids.extend(persona.id for persona in personas if self._usable(hook, persona, voices))
            except ConfigError as error:
                problems.extend(error.problems)
            except FAULTS as error:
                self._hooks.fault(hook, error)
        if not problems and config.personas.default and config.personas.default not in ids:
            problems.append(
                f"{config.source}: personas.default: there is no persona '{config.personas.default}'."
                f"{suggest(config.personas.default, ids)}"
            )
        return problems

    async def _available(self) -> list[str]:
        found: list[str] = []
        for hook in self._hooks.of("list_voices"):
            try:
                found.extend(name for name in await ask(hook) if VOICE_NAME.fullmatch(name))
            except FAULTS as error:
                self._hooks.fault(hook, error)
        return found

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
            self._hooks.report(hook, problem)
        return not problem
