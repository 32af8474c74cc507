"""What a caller asks for in the query of `/ws/chat` and `/api/chat`, and the persona and voice that come of it.

Both routes take our names and those of NVIDIA's server. Parameters that are neither are ignored: some belong to plugins
(a ticket, for one), and NVIDIA's clients send some that have no meaning here (`pad_mult`, `repetition_penalty`).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from starlette.requests import HTTPConnection

from core.engine.prompt import Prompt
from core.engine.sampling import Sampling
from core.errors import PersonaError, PluginError, ProtocolError, RefusedError, VoiceError
from core.events import Identity
from core.media.audio_codecs import AudioFormat
from core.media.voices import voice_name
from core.plugin.host import PluginHost
from core.plugin.personas import Persona
from core.session.protocol import NVIDIA_ROUTE
from core.settings.config import PersonasConfig

CUSTOM = "custom"
"""The id of the persona that a caller brings along."""
BASIC = 'Basic realm="PersonaPlex", charset="UTF-8"'
SYSTEM_TAG = "<system>"
"""NVIDIA's clients may put it around a prompt; the engine adds it itself."""


@dataclass(frozen=True)
class ChatQuery:
    """The query, parsed. None means: not said. A name said twice counts as its last."""

    persona: str | None
    voice: str | None
    prompt: str | None
    audio: AudioFormat
    sampling: Mapping[str, Any]
    """The fields of Sampling that were said."""


@dataclass(frozen=True)
class ChatRequest:
    """A request that may be served."""

    identity: Identity
    persona: Persona
    """With the voice and the sampling that the caller chose."""
    prompt: Prompt
    audio: AudioFormat


def parse_query(query: Mapping[str, str]) -> ChatQuery:
    """Read the query. Raises ProtocolError, naming the parameter."""

    def said(*names: str) -> tuple[str, str] | None:
        """The first of these names that has a value."""
        return next(((name, query[name]) for name in names if query.get(name, "").strip()), None)

    def number(kind: type[int] | type[float], *names: str) -> int | float | None:
        if (found := said(*names)) is None:
            return None
        name, text = found
        try:
            return kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise ProtocolError(f"{name} must be {what}, not {text[:40]!r}.") from None

    seed = number(int, "seed", "audio_seed", "text_seed")
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
    persona, voice = said("persona"), said("voice", "voice_prompt")
    prompt = query.get("prompt", query.get("text_prompt"))
    return ChatQuery(
        persona=persona[1].strip() if persona else None,
        voice=voice_name(voice[1].strip()) if voice else None,
        prompt=None if prompt is None else _plain(prompt),
        audio=cast(AudioFormat, audio),
        sampling={name: value for name, value in numbers.items() if value is not None},
    )


async def resolve_request(connection: HTTPConnection, host: PluginHost, personas: PersonasConfig) -> ChatRequest:
    """Decide whether and how the caller is served. Raises RefusedError."""
    identity = await authenticate(connection, host)
    try:
        query = parse_query(connection.query_params)
        persona = await _persona(query, identity, host, personas)
        persona = replace(
            persona,
            voice=query.voice or persona.voice,
            sampling=Sampling(**{**asdict(persona.sampling), **query.sampling}),
        )
        if not await host.authorize(identity, persona):
            raise RefusedError(403, f"You may not talk with {persona.name}.")
        voice = await host.load_voice(persona.voice)
        return ChatRequest(identity, persona, Prompt(persona.prompt, voice), query.audio)
    except ProtocolError as error:
        raise RefusedError(400, str(error)) from None
    except (PersonaError, VoiceError) as error:
        raise RefusedError(404, str(error)) from None
    except PluginError as error:
        raise RefusedError(500, str(error)) from error


async def authenticate(connection: HTTPConnection, host: PluginHost) -> Identity:
    """Who is calling. Raises RefusedError when nobody says so in time."""
    try:
        async with asyncio.timeout(host.config.session.auth_s):
            identity = await host.authenticate(connection)
    except TimeoutError:
        raise RefusedError(503, "Finding out who you are took too long. Try again.", reason="timeout") from None
    if identity is None:
        raise RefusedError(
            401,
            "You must log in first: the password is missing or wrong.",
            headers={"www-authenticate": _challenges(connection)},
        )
    return identity


def _challenges(connection: HTTPConnection) -> tuple[str, ...]:
    """What to ask a caller for who has not said who it is.

    A browser sends the user and password of an address such as `wss://user:PASSWORD@host/api/chat` only when it is
    asked for `Basic`. Elsewhere that would make it open a window of its own, where the page has one.
    """
    if connection.scope["type"] == "websocket" and connection.scope["path"] == NVIDIA_ROUTE:
        return (BASIC, "Bearer")
    return ("Bearer",)


async def _persona(query: ChatQuery, identity: Identity, host: PluginHost, personas: PersonasConfig) -> Persona:
    if query.prompt and not personas.custom:
        raise RefusedError(
            403, "Prompts of your own are not allowed here: choose a persona, or set personas.custom in config.yaml."
        )
    if query.prompt and query.persona:
        raise RefusedError(400, "Give either a persona or a prompt, not both.")
    if query.prompt is not None and query.persona is None and personas.custom:
        if len(query.prompt) > personas.max_prompt_chars:
            raise RefusedError(
                400, f"The prompt has {len(query.prompt)} characters; at most {personas.max_prompt_chars} are allowed."
            )
        voices = await host.list_voices()
        if not query.voice and not voices:
            raise RefusedError(404, "No voice is offered here.")
        return Persona(CUSTOM, "Custom", "", query.voice or voices[0], query.prompt, Sampling())
    return await host.resolve_persona(query.persona or "", identity)


def _plain(prompt: str) -> str:
    """The prompt on one line, without the tags that some clients put around it."""
    text = " ".join(prompt.split())
    if text.startswith(SYSTEM_TAG) and text.endswith(SYSTEM_TAG) and len(text) >= 2 * len(SYSTEM_TAG):
        text = text.removeprefix(SYSTEM_TAG).removesuffix(SYSTEM_TAG).strip()
    return text
