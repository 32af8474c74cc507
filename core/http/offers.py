"""The endpoints of what is on offer: personas with their pictures, and voices. Only for those who may call."""

import hashlib
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.errors import EngineBusyError, EngineError, PersonaError, RefusedError, VoiceError
from core.media.voices import packaged_label
from core.plugin.personas import Persona
from core.session.call_service import CallService
from core.session.chat_request import authenticate
from core.session.voice_samples import VoiceSamples


class Offers:
    """What callers may choose from."""

    def __init__(self, service: CallService) -> None:
        self._service = service
        self._samples = VoiceSamples(service.engine, service.admission, service.config.engine)

    async def personas(self, request: Request) -> Response:
        """`GET /personas`: the personas that this caller may talk with, the default one first."""
        identity = await authenticate(request, self._service.host)
        personas = await self._service.host.list_personas(identity)
        settings = self._service.config.personas
        return JSONResponse(
            {
                "personas": [_described(persona) for persona in personas],
                "default": personas[0].id if personas else None,
                "custom": self._service.host.custom,
                "max_prompt_chars": settings.max_prompt_chars,
            }
        )

    async def image(self, request: Request) -> Response:
        """`GET /personas/{id}/image`: the picture of a persona that this caller may talk with, or 404."""
        host = self._service.host
        identity = await authenticate(request, host)
        try:
            persona = await host.resolve_persona(request.path_params["id"], identity)
        except PersonaError as error:
            raise RefusedError(404, str(error)) from None
        if persona.image is None or not await host.authorize(identity, persona):
            raise RefusedError(404, "There is no picture of this persona.")
        return cached(request, persona.image.content, persona.image.media_type)

    async def voices(self, request: Request) -> Response:
        """`GET /voices`: the voices on offer, what they are called, and whether there are samples of them."""
        await authenticate(request, self._service.host)
        voices = await self._service.host.list_voices()
        labels = {name: label for name in voices if (label := self._label(name))}
        return JSONResponse({"voices": voices, "labels": labels, "samples": self._samples.available})

    def _label(self, name: str) -> str:
        return self._service.config.voices.labels.get(name) or packaged_label(name)

    async def sample(self, request: Request) -> Response:
        """`GET /voices/{name}/sample`: a sentence in that voice, Ogg/Opus. It may have to be said first, which takes
        some seconds; 503 while callers need every slot.
        """
        host = self._service.host
        await authenticate(request, host)
        if not self._samples.available:
            raise RefusedError(404, "Samples of voices are not made here: the calls are served elsewhere.")
        try:
            voice = await host.load_voice(request.path_params["name"])
        except VoiceError as error:
            raise RefusedError(404, str(error)) from None
        try:
            return cached(request, await self._samples.get(voice), "audio/ogg")
        except EngineError as error:
            headers = {"retry-after": "30"} if isinstance(error, EngineBusyError) else None
            return JSONResponse({"error": str(error)}, status_code=503, headers=headers)


def _described(persona: Persona) -> dict[str, Any]:
    """A persona as `GET /personas` gives it: all but its prompt."""
    return {
        "id": persona.id,
        "name": persona.name,
        "description": persona.description,
        "voice": persona.voice,
        "group": persona.group,
        "starters": persona.starters,
        "emoji": persona.emoji,
        "image": persona.image and f"personas/{persona.id}/image",
    }


def cached(request: Request, content: bytes, media_type: str) -> Response:
    """Content that the caller's browser alone may keep, and asks about again before it is used."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"etag": etag, "cache-control": "private, no-cache"}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
