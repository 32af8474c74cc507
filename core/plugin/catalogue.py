"""The personas and voices on offer: all that the plugins have together, as far as the settings allow them."""

from collections.abc import Sequence
from typing import Any, TypeGuard

from pluggy import HookImpl

from core.engine.prompt import Voice
from core.errors import ConfigError, PersonaError, PersonaplexError, VoiceError
from core.events import Identity
from core.media.voices import VOICE_NAME, not_offered, offered
from core.plugin.hook_calls import HookCaller, describe_error
from core.plugin.personas import PERSONA_ID, Persona, invalid_field
from core.plugin.worker_threads import HangingError
from core.settings.config import Config
from core.settings.yaml_structs import suggest

STARTUP = Identity("startup")
"""The identity for which personas are listed when they are checked."""


class Catalogue:
    """Looks personas and voices up. The plugins are asked each time, so that what they offer may change."""

    def __init__(self, config: Config, hooks: HookCaller) -> None:
        self._config = config
        self._hooks = hooks

    async def list_personas(self, identity: Identity, voices: Sequence[str]) -> tuple[list[Persona], str]:
        """Every usable persona, each id once, the default one first; and the name of a plugin that failed, or "".

        `voices` are those on offer, here and below: whoever needs them more than once lists them once.
        """
        personas: dict[str, Persona] = {}
        failed = ""
        for hook in self._hooks.implementations("list_personas"):
            try:
                for persona in await self._hooks.call(hook, identity=identity, voices=tuple(voices)):
                    if self._is_usable(persona, hook, voices):
                        personas.setdefault(persona.id, persona)
            except Exception as error:
                self._hooks.report_failure(hook, error)
                failed = hook.plugin_name
        default = self._config.personas.default
        return sorted(personas.values(), key=lambda persona: persona.id != default), failed

    async def resolve_persona(self, name: str, identity: Identity, voices: Sequence[str]) -> Persona:
        """The persona of that id. Raises PersonaError."""
        failed = ""
        if PERSONA_ID.fullmatch(name):
            for hook in self._hooks.implementations("resolve_persona"):
                try:
                    persona = await self._hooks.call(hook, name=name, identity=identity, voices=tuple(voices))
                except Exception as error:
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

    async def left_out_voices(self) -> list[str]:
        """Names of the voices that plugins have and `voices.allow` leaves out."""
        available = await self._available_voices()
        return sorted(set(available).difference(offered(available, self._config.voices.allow)))

    async def load_voice(self, name: str, voices: Sequence[str]) -> Voice:
        """The voice of that name. Raises VoiceError when it is not offered or cannot be read."""
        if name not in voices:
            raise VoiceError(not_offered(name, voices))
        voice, failures = await self._read_voice(name)
        for hook, error in failures:
            self._hooks.report_failure(hook, error)
        if voice is None:
            raise VoiceError(f"The voice {name!r} cannot be read just now. The log says why.")
        return voice

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
                personas = await self._hooks.call(hook, identity=STARTUP, voices=tuple(voices))
                ids.extend(persona.id for persona in personas if self._is_usable(persona, hook, voices))
            except ConfigError as error:
                problems.extend(error.problems)
            except Exception as error:
                self._hooks.report_failure(hook, error)
        if not problems and config.personas.default and config.personas.default not in ids:
            problems.append(
                f"{config.source}: personas.default: there is no persona '{config.personas.default}'."
                f"{suggest(config.personas.default, ids)}"
            )
        return problems

    async def faults(self, complete: bool) -> list[str]:
        """What a call would be refused for: voices on offer that cannot be read, personas that cannot be used, and
        plugins that fail. `complete`: a voice that no plugin has is a fault too, as it is where there is an engine.
        """
        found: list[str] = []
        voices = await self.list_voices()
        personas: list[Persona] = []
        for hook in self._hooks.implementations("list_voices"):
            try:
                list(await self._hooks.call(hook))
            except Exception as error:
                found.extend(_sentences(hook, error))
        for hook in (personas_hooks := self._hooks.implementations("list_personas")):
            try:
                offers = list(await self._hooks.call(hook, identity=STARTUP, voices=tuple(voices)))
            except Exception as error:
                found.extend(_sentences(hook, error))
                continue
            problems = [_problem_with(persona, voices) for persona in offers]
            found.extend(f"plugin {hook.plugin_name}: list_personas {problem}." for problem in problems if problem)
            personas.extend(persona for persona, problem in zip(offers, problems, strict=True) if not problem)
        if not (found or personas or self._config.personas.custom is True) and len(personas_hooks) == 1:
            folder = self._config.personas.folder
            found.append(
                f"{folder}: there is no persona (NAME.yaml) to talk with. Add one, or set personas.custom: true."
            )
        for name in voices:
            voice, failures = await self._read_voice(name)
            found.extend(sentence for hook, error in failures for sentence in _sentences(hook, error))
            if voice is None and not failures and complete:
                found.append(f"the voice {name!r} is on offer, but no plugin can load it.")
        return found

    async def _read_voice(self, name: str) -> tuple[Voice | None, list[tuple[HookImpl, Exception]]]:
        """The voice of that name from the first plugin that has it, and what those before raised."""
        failures: list[tuple[HookImpl, Exception]] = []
        for hook in self._hooks.implementations("load_voice"):
            try:
                voice = await self._hooks.call(hook, name=name)
                if voice is not None and not isinstance(voice, Voice):
                    raise TypeError(f"returned {type(voice).__name__}, not a Voice")
            except Exception as error:
                failures.append((hook, error))
                continue
            if voice is not None:
                return voice, failures
        return None, failures

    async def _available_voices(self) -> list[str]:
        """Names of all voices that the plugins can load, whether the settings allow them or not."""
        names: list[str] = []
        for hook in self._hooks.implementations("list_voices"):
            try:
                found = await self._hooks.call(hook)
                names.extend(name for name in found if isinstance(name, str) and VOICE_NAME.fullmatch(name))
            except Exception as error:
                self._hooks.report_failure(hook, error)
        return names

    def _is_usable(self, persona: Any, hook: HookImpl, voices: Sequence[str]) -> TypeGuard[Persona]:
        """Whether a plugin returned a persona that can be used now. None is no persona; anything else is reported."""
        if persona is None:
            return False
        problem = _problem_with(persona, voices)
        if problem:
            self._hooks.report_invalid_result(hook, problem)
        return not problem


def _sentences(hook: HookImpl, error: Exception) -> tuple[str, ...]:
    """What a hook raised, for the operator."""
    if isinstance(error, HangingError):  # which says what is wrong, and not with which plugin
        return (f"plugin {hook.plugin_name}: {hook.function.__name__} {error}.",)
    if isinstance(error, ConfigError):
        return error.problems
    if isinstance(error, PersonaplexError):
        return (str(error),)
    return (f"plugin {hook.plugin_name}: {hook.function.__name__} failed: {describe_error(error)}.",)


def _problem_with(persona: Any, voices: Sequence[str]) -> str:
    """Why a persona of a plugin's cannot be used, or "" when it can. Its prompt is not repeated."""
    if not isinstance(persona, Persona):
        return f"returned {type(persona).__name__}, not a Persona"
    if problem := invalid_field(persona):
        return f"returned a persona that cannot be used: {problem}"
    if persona.voice not in voices:
        return f"returned the persona {persona.id!r}: {not_offered(persona.voice, voices)}"
    return ""
