"""A conversation without a server: speech goes through the transforms and the engine as fast as they run.

Where a plugin has a handler, whose answers take time, it goes in real time.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from core.engine.call import FRAME_S, Call, Engine, Frame, frames_of
from core.engine.prompt import Prompt
from core.events import (
    OPERATOR,
    CallerText,
    HandlerFailed,
    SessionEnded,
    SessionEvent,
    SessionInfo,
    SessionReady,
    SessionStarted,
    TransformFailed,
)
from core.media.audio_codecs import Samples
from core.plugin.acting import Line, Side
from core.plugin.doors import CallEnded
from core.plugin.host import PluginHost
from core.plugin.personas import Persona
from core.session.acting import Acting
from core.session.transcript import Transcript


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
    lines: tuple[Line, ...]
    """What both sides said; the caller's as a plugin has understood them."""
    seed: int
    failures: tuple[TransformFailed | HandlerFailed, ...]
    ended: str
    """What a plugin that ended it tells the caller, or ""."""


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

    Raises PersonaError, VoiceError, PromptError and EngineError.
    """
    chosen = await host.resolve_persona(persona, OPERATOR)
    chosen = replace(chosen, voice=voice or chosen.voice, sampling=replace(chosen.sampling, seed=seed))
    prompt = Prompt(chosen.prompt, await host.load_voice(chosen.voice))
    frames = frames_of(speech)
    talk = _Talk(host, chosen)
    call = engine.open(prompt, chosen.sampling, len(frames) * FRAME_S)
    try:
        await talk.begin(call)
        for index, frame in enumerate(frames):
            if await talk.is_over(index):
                break
            await talk.exchange(call, index, frame)
            progress(index + 1, len(frames))
    finally:
        await call.close()
        await talk.close()
    said = len(talk.agent)
    return Conversation(
        caller=frames[:said].ravel(),
        agent=np.concatenate([np.empty(0, np.float32), *talk.agent]),
        words=tuple(talk.words),
        lines=talk.transcript.lines,
        seed=call.seed,
        failures=tuple(talk.failures),
        ended=talk.ends[0].message if talk.ends else "",
    )


class _Talk:
    """What a session is without a server."""

    def __init__(self, host: PluginHost, persona: Persona) -> None:
        info = SessionInfo(secrets.token_hex(8), OPERATOR, persona.id, persona.voice, "talk", "", "pcm")
        self.agent: list[Frame] = []
        self.words: list[Word] = []
        self.transcript = Transcript()
        self.failures: list[TransformFailed | HandlerFailed] = []
        self.ends: list[CallEnded] = []
        self._input, self._output = (
            chain(info, self.failures.append) for chain in (host.input_chain, host.output_chain)
        )
        self._acting = Acting(info, persona, post=lambda _message: True, end=self.ends.append, fire=self._fire)
        self._acting.open(host)
        self._opened = self._began = time.monotonic()

    async def begin(self, call: Call) -> None:
        """Wait until the prompt has been read."""
        self._acting.begin(call)
        self._fire(SessionStarted(0.0, call.seed))
        await call.ready()
        self._began = time.monotonic()
        self._outputs = call.frames()
        self._fire(SessionReady((self._began - self._opened) * 1000))

    async def is_over(self, index: int) -> bool:
        """Whether a plugin has ended the conversation before this frame, which is waited for where plugins act."""
        if self._acting.handled:
            await asyncio.sleep(self._began + index * FRAME_S - time.monotonic())
        return bool(self.ends)

    async def exchange(self, call: Call, index: int, frame: Frame) -> None:
        """Say one frame of the caller, and hear one of the agent."""
        heard = self._unless_muted("caller", self._input.process(frame))
        call.push(heard)
        self._acting.frame("caller_frame", heard)
        output = await anext(self._outputs)
        muted = self._acting.muted("agent")
        self.agent.append(self._unless_muted("agent", self._output.process(output.pcm)))
        if output.text:
            text = self._acting.agent_text(output, muted)
            if not muted:
                self.words.append(Word(round(index * FRAME_S, 2), output.text))
                self.transcript.add_agent(text)
        self._acting.frame("agent_frame", self.agent[-1])

    async def close(self) -> None:
        """Tell the plugins that it is over."""
        frames, seconds = len(self.agent), time.monotonic() - self._began
        end = self.ends[0] if self.ends else CallEnded("left")
        summary = SessionEnded(end.reason, end.code, seconds, frames, frames, 0, detail=end.detail)
        self._acting.event(summary)
        self._acting.close(summary)
        await self._acting.closed()

    def _unless_muted(self, side: Side, frame: Frame) -> Frame:
        return np.zeros_like(frame) if self._acting.muted(side) else frame

    def _fire(self, event: SessionEvent) -> None:
        if isinstance(event, CallerText):
            self.transcript.add_caller(event)
        if isinstance(event, HandlerFailed):
            self.failures.append(event)
        self._acting.event(event)
