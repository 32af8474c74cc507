"""A conversation without a server: a session over a sound file, as fast as it goes.

Where a plugin has a handler it goes no faster than real time: what plugins do takes time, such as to understand speech.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from core.engine.call import FRAME_S, Engine, Frame, frames_of
from core.engine.prompt import Prompt
from core.errors import EngineError
from core.events import OPERATOR, CallerText, HandlerFailed, SessionEvent, SessionInfo, SessionStarted, TransformFailed
from core.media.audio_codecs import Samples
from core.plugin.acting import AgentText, Line
from core.plugin.doors import CallEnded, CallerSound, Transport
from core.plugin.host import PluginHost
from core.plugin.server_messages import Ready, ServerMessage
from core.session.admission import EngineAdmission
from core.session.chat_request import ResolvedRequest
from core.session.codec_threads import CodecThreads
from core.session.session import Session
from core.session.transcript import Transcript
from core.settings.sections import ServerConfig

PATIENCE_S = 3600.0
"""For a prompt, and for the first frame: a machine may be as slow as it is."""
Failure = TransformFailed | HandlerFailed


@dataclass(frozen=True)
class Word:
    """A piece of the agent's text, and when it was said, in seconds from the start."""

    time: float
    text: str


@dataclass(frozen=True)
class Conversation:
    """Both sides of a conversation. `caller` and `agent` are float32[n] at 24 kHz, of the same length."""

    caller: Samples
    agent: Samples
    words: tuple[Word, ...]
    transcript: tuple[Line, ...]
    """What both sides said; the caller's lines where a plugin understands speech."""
    seed: int
    failures: tuple[Failure, ...]
    ended: str = ""
    """What the caller is told, where a plugin ended the conversation early."""


@dataclass
class SoundFile(Transport):
    """A caller who says the next frame as soon as the last one is answered, or when it is due."""

    frames: Samples
    """float32[n, 1920]."""
    progress: Callable[[int, int], None]
    audio = "pcm"
    route = "talk"
    live = False
    agent: list[Frame] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    transcript: Transcript = field(default_factory=Transcript)
    ended: CallEnded | None = None
    in_real_time: Callable[[], bool] = lambda: False
    _began: float = 0.0
    _turn: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> CallerSound:
        """See Transport."""
        await self._turn.wait()
        if self.in_real_time():
            await asyncio.sleep(self._began + len(self.agent) * FRAME_S - time.monotonic())
        self._turn.clear()
        if len(self.agent) == len(self.frames):
            raise CallEnded("left")
        return CallerSound(self.frames[len(self.agent)])

    async def send_audio(self, sound: Frame) -> None:
        """See Transport."""
        self.agent.append(sound)
        self.progress(len(self.agent), len(self.frames))
        self._turn.set()

    async def send_text(self, text: AgentText) -> None:
        """See Transport."""
        self.words.append(Word(round(text.start_ms / 1000, 2), text.text))
        self.transcript.add_agent(text)

    async def send_event(self, message: ServerMessage) -> None:
        """See Transport."""
        if isinstance(message, Ready):
            self._began = time.monotonic()
            self._turn.set()
        elif isinstance(message, CallerText):
            self.transcript.add_caller(message)

    async def close(self, ended: CallEnded) -> None:
        """See Transport."""
        self.ended = ended


async def converse(
    engine: Engine,
    host: PluginHost,
    speech: Samples,
    *,
    persona: str,
    voice: str | None,
    seed: int | None,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> Conversation:
    """Say `speech` to a persona ("" is the default one). `progress` is called with the frames done and their number.

    Raises PersonaError, VoiceError and EngineError.
    """
    chosen = await host.resolve_persona(persona, OPERATOR)
    chosen = replace(chosen, voice=voice or chosen.voice, sampling=replace(chosen.sampling, seed=seed))
    prompt = Prompt(chosen.prompt, await host.load_voice(chosen.voice), chosen.pin_prompt)
    line = SoundFile(frames_of(speech), progress)
    events: list[SessionEvent] = []
    session = Session(
        SessionInfo(secrets.token_hex(8), OPERATOR, chosen.id, chosen.voice, line.route, "", line.audio),
        ResolvedRequest(OPERATOR, chosen, prompt),
        line,
        admission=EngineAdmission(engine, ServerConfig()),
        host=host,
        engine=engine.info,
        threads=CodecThreads(),
        config=msgspec.structs.replace(
            host.config.session,
            max_s=len(line.frames) * FRAME_S,
            max_ahead_s=FRAME_S,
            prompt_s=PATIENCE_S,
            first_audio_s=PATIENCE_S,
        ),
        on_event=events.append,
    )
    line.in_real_time = lambda: session.handled
    ended = await session.run()
    message = line.ended.message if line.ended else ""
    if ended.reason not in ("left", "plugin") or not line.agent:
        raise EngineError(message or "The conversation ended before it began.")
    return Conversation(
        line.frames[: len(line.agent)].ravel(),
        np.concatenate(line.agent),
        tuple(line.words),
        line.transcript.lines,
        next(event.seed for event in events if isinstance(event, SessionStarted)),
        tuple(event for event in events if isinstance(event, Failure)),
        message,
    )
