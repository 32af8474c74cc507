"""What a caller asks for in the query of `/ws/chat` and `/api/chat`, and the persona and voice that it gets.

Both routes take this project's parameter names and those of NVIDIA's server. All others are ignored: some belong to
plugins, such as a ticket, and NVIDIA's clients send some that have no meaning here (`pad_mult`, `repetition_penalty`).
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from starlette.requests import HTTPConnection

from core.engine.prompt import Prompt, without_system_tags
from core.engine.sampling import Sampling
from core.errors import PersonaError, PluginError, ProtocolError, RefusedError, SamplingError, VoiceError
from core.events import Identity
from core.media.audio_codecs import AudioFormat
from core.media.voices import voice_name
from core.plugin.doors import CallRequest
from core.plugin.host import PluginHost
from core.plugin.personas import Persona
from core.session.protocol import NVIDIA_ROUTE

CUSTOM = "custom"
"""The id of a persona whose prompt the caller sends."""
BASIC = 'Basic realm="PersonaPlex", charset="UTF-8"'
WEB_CLIENT_PARAMETERS = frozenset({"pad_mult", "repetition_penalty", "repetition_penalty_context"})
"""What only NVIDIA's web client, and Kyutai's from which it comes, puts into the query."""


@dataclass(frozen=True)
class ChatQuery(CallRequest):
    """The parsed query; None where a parameter is absent. Of one that is repeated, the last counts."""

    audio: AudioFormat = "opus"
    resume: str = ""
    """The token of the call to pick up again; "" asks for a new one."""
    words: int | None = None
    """With it: how many TEXT messages of that call have come."""


@dataclass(frozen=True)
class ResolvedRequest:
    """A request that was accepted."""

    identity: Identity
    persona: Persona
    """With the voice and the sampling that the caller chose."""
    prompt: Prompt


def parse_query(query: Mapping[str, str]) -> ChatQuery:
    """Parse the query. Raises ProtocolError naming the parameter that is wrong."""

    def given(*names: str) -> tuple[str, str] | None:
        """The first of these names that has a value, with it."""
        return next(((name, query[name]) for name in names if query.get(name, "").strip()), None)

    def number(kind: type[int] | type[float], *names: str) -> int | float | None:
        if (found := given(*names)) is None:
            return None
        name, text = found
        try:
            return kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise ProtocolError(f"{name} must be {what}, not {text[:40]!r}.") from None

    seed, words = number(int, "seed", "audio_seed", "text_seed"), number(int, "words")
    numbers = {
        "seed": seed if seed is None or seed >= 0 else None,
        "temperature": number(float, "temperature", "audio_temperature"),
        "top_k": number(int, "top_k", "audio_topk"),
        "text_temperature": number(float, "text_temperature"),
        "text_top_k": number(int, "text_top_k", "text_topk"),
    }
    audio = query.get("audio", "opus")
    if audio not in ("opus", "pcm"):
        raise ProtocolError(f"audio must be opus or pcm, not {audio[:40]!r}.")
    persona, voice = given("persona"), given("voice", "voice_prompt")
    prompt = query.get("prompt", query.get("text_prompt"))
    return ChatQuery(
        persona=persona[1].strip() if persona else None,
        voice=voice_name(voice[1].strip()) if voice else None,
        prompt=prompt,
        audio=cast(AudioFormat, audio),
        resume=query.get("resume", "").strip(),
        words=None if words is None else max(0, int(words)),
        sampling={name: value for name, value in numbers.items() if value is not None},
    )


def is_web_client(connection: HTTPConnection) -> bool:
    """Whether this is NVIDIA's web client, which has to hear something every 10 s while it waits."""
    return "origin" in connection.headers and connection.query_params.keys() >= WEB_CLIENT_PARAMETERS


async def resolve_request(request: CallRequest, identity: Identity, host: PluginHost) -> ResolvedRequest:
    """The persona, prompt and voice for a caller who may call. Raises RefusedError."""
    setting = ""
    try:
        voices = await host.list_voices()
        if request.voice and request.voice not in voices:
            setting = "voices.allow"
        persona = await _persona(request, identity, voices, host)
        persona = replace(
            persona,
            voice=request.voice or persona.voice,
            sampling=_sampling(persona.sampling, request.sampling),
        )
        if not await host.authorize(identity, persona):
            raise RefusedError(403, f"You may not talk with {persona.name}.")
        voice = await host.load_voice(persona.voice, voices)
        return ResolvedRequest(identity, persona, Prompt(persona.prompt, voice, persona.pin_prompt))
    except (ProtocolError, SamplingError) as error:
        raise RefusedError(400, str(error)) from None
    except PersonaError as error:
        raise RefusedError(404, str(error)) from None
    except VoiceError as error:
        raise RefusedError(404, str(error), setting=setting) from None
    except PluginError as error:
        raise RefusedError(500, str(error)) from error


async def authenticate(connection: HTTPConnection, host: PluginHost) -> Identity:
    """Who is calling. Raises RefusedError when no plugin knows, or not in time."""
    return (await identify(connection, host))[1]


async def identify(connection: HTTPConnection, host: PluginHost) -> tuple[str, Identity]:
    """Who is calling, after the plugin that says so. Raises RefusedError when none knows, or not in time."""
    try:
        async with asyncio.timeout(host.config.session.auth_s):
            found = await host.authentication.identify(connection)
    except TimeoutError:
        raise RefusedError(503, "Finding out who you are took too long. Try again.", reason="timeout") from None
    if found is None:
        raise RefusedError(
            401,
            "You must log in first: the password is missing or wrong.",
            headers={"www-authenticate": _challenges(connection)},
        )
    return found


def _challenges(connection: HTTPConnection) -> tuple[str, ...]:
    """What to ask a caller for who has not said who it is.

    A browser sends the user and password of an address such as `wss://user:PASSWORD@host/api/chat` only when it is
    asked for `Basic`. Elsewhere that would make it open a window of its own, where the page has one.
    """
    if connection.scope["type"] == "websocket" and connection.scope["path"] == NVIDIA_ROUTE:
        return (BASIC, "Bearer")
    return ("Bearer",)


def _sampling(usual: Sampling, given: Mapping[str, Any]) -> Sampling:
    """A persona's sampling with what a caller gives. Raises SamplingError."""
    if unknown := given.keys() - asdict(usual).keys():
        raise SamplingError(f"There is no sampling value {min(unknown)!r}.")
    return Sampling(**{**asdict(usual), **given})


async def _persona(request: CallRequest, identity: Identity, voices: Sequence[str], host: PluginHost) -> Persona:
    personas = host.config.personas
    prompt = None if request.prompt is None else without_system_tags(" ".join(request.prompt.split()))
    if prompt and not host.custom:
        raise RefusedError(
            403,
            "Prompts of your own are not allowed here: choose a persona, or set personas.custom in config.yaml.",
            setting="personas.custom",
        )
    if prompt and request.persona:
        raise RefusedError(400, "Give either a persona or a prompt, not both.")
    if prompt is not None and request.persona is None and host.custom:
        if len(prompt) > personas.max_prompt_chars:
            raise RefusedError(
                400, f"The prompt has {len(prompt)} characters; at most {personas.max_prompt_chars} are allowed."
            )
        if not request.voice and not voices:
            raise RefusedError(404, "No voice is offered here.")
        return Persona(CUSTOM, "Custom", "", request.voice or voices[0], prompt, Sampling())
    return await host.resolve_persona(request.persona or "", identity, voices)
