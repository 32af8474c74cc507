"""What a `session.start` asks for: what the service has, what it puts in the place of the rest, what it refuses."""

from dataclasses import dataclass
from typing import Literal

from core import CallRequest, RawAudioReader, RawAudioWriter, RawEncoding

from .events import AudioFormat, Delegation, SessionConfig, VoiceId
from .reading import invalid

MODEL = "personaplex"
"""The model's name; with `/PERSONA` it is a persona of the catalogue."""
OTHERS_MODELS = "gpt-live"
"""Clients that are given no model ask for one whose name begins like this."""
RATES = {"audio/pcm": (24_000, 16_000), "audio/pcmu": (8_000,), "audio/pcma": (8_000,)}
ENCODINGS: dict[str, RawEncoding] = {"audio/pcm": "pcm", "audio/pcmu": "mulaw", "audio/pcma": "alaw"}
USUAL_FORMAT = AudioFormat("audio/pcm", 24_000)


@dataclass(frozen=True)
class Notice:
    """Something that the client should know, for an `info` event."""

    code: str
    message: str


@dataclass(frozen=True)
class Start:
    """A session as it was asked for, as far as the service has it."""

    request: CallRequest
    """Persona or prompt, and the voice, which may not be on offer."""
    format: AudioFormat
    delegation: Literal["client", "responses"]
    event_id: str | None
    """That of the `session.start`."""
    notices: tuple[Notice, ...]
    """What of it the service has something else for, or nothing."""

    def reader(self) -> RawAudioReader:
        """Decodes the caller's sound."""
        return RawAudioReader(ENCODINGS[self.format.type], self.format.rate)

    def writer(self) -> RawAudioWriter:
        """Encodes the agent's sound."""
        return RawAudioWriter(ENCODINGS[self.format.type], self.format.rate)


def read_start(config: SessionConfig, event_id: str | None) -> Start:
    """Understand a configuration. Raises EventError for what cannot be done, so that nobody relies on it."""
    notices: list[Notice] = []
    if config.store:
        raise invalid("unsupported_parameter", "Sessions are not stored here.", "session.store", event_id)
    if config.triggers:
        raise invalid("unsupported_parameter", "There are no Decisions here.", "session.triggers", event_id)
    if config.client is not None:
        raise invalid("unsupported_parameter", "It is for WebRTC, and this is a WebSocket.", "session.client", event_id)
    persona = _persona(config.model, event_id, notices)
    delegation = check_delegation(config.delegation, event_id, notices)
    if config.input:
        message = "The model takes no history: it begins the conversation anew, without the messages in session.input."
        notices.append(Notice("input_not_used", message))
    output = config.audio.output if config.audio else None
    voice = output.voice if output else None
    instructions = config.instructions if config.instructions and config.instructions.strip() else None
    request = CallRequest(
        persona=persona, voice=voice.id if isinstance(voice, VoiceId) else voice or None, prompt=instructions
    )
    return Start(request, _format(config, event_id), delegation, event_id, tuple(notices))


def check_delegation(
    delegation: Delegation | None, event_id: str | None, notices: list[Notice]
) -> Literal["client", "responses"]:
    """Who is asked to do what the model hands over. Raises EventError where somebody relies on who is not there."""
    if delegation is None or delegation.type == "client":
        return "client"
    if delegation.type == "decisions":
        raise invalid("unsupported_parameter", "There are no Decisions here.", "session.delegation.type", event_id)
    if (delegation.responses or {}).get("tools"):
        raise invalid(
            "unsupported_parameter",
            "No Responses model works for this service, so these tools would never be called. Delegate to the client, "
            "or let the service's plugin delegate call tools.",
            "session.delegation.responses.tools",
            event_id,
        )
    notices.append(
        Notice("delegation_not_used", "No Responses model works for this service: the agent answers by itself.")
    )
    return "responses"


def _persona(model: str, event_id: str | None, notices: list[Notice]) -> str | None:
    """The persona that the model's name asks for; None where it asks for none."""
    name, _, persona = model.partition("/")
    if name == MODEL:
        return persona or None
    if model.startswith(OTHERS_MODELS):
        notices.append(Notice("model_substituted", f"PersonaPlex answers here, not {model[:80]}."))
        return None
    raise invalid(
        "model_not_found",
        f"There is no model {model[:80]!r}: it is {MODEL}, or {MODEL}/PERSONA for one of the personas.",
        "session.model",
        event_id,
    )


def _format(config: SessionConfig, event_id: str | None) -> AudioFormat:
    """The format of both directions."""
    chosen = config.audio.format if config.audio and config.audio.format else USUAL_FORMAT
    rates = RATES[chosen.type]
    if chosen.rate not in rates:
        raise invalid(
            "invalid_value",
            f"{chosen.type} has {' or '.join(map(str, rates))} samples a second here, not {chosen.rate}.",
            "session.audio.format.rate",
            event_id,
        )
    return chosen
