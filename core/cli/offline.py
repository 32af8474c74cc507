"""A conversation without a server: speech goes through the transforms and the engine as fast as they run."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from core.engine.call import FRAME_S, Engine, frames_of
from core.engine.prompt import Prompt
from core.events import OPERATOR, SessionInfo, TransformFailed
from core.media.audio_codecs import Samples
from core.plugin.host import PluginHost


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
    seed: int
    failures: tuple[TransformFailed, ...]


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
    prompt = Prompt(chosen.prompt, await host.load_voice(chosen.voice), chosen.pin_prompt)
    info = SessionInfo(secrets.token_hex(8), OPERATOR, chosen.id, chosen.voice, "talk", "", "pcm")
    failures: list[TransformFailed] = []
    input_chain, output_chain = host.input_chain(info, failures.append), host.output_chain(info, failures.append)

    frames = frames_of(speech)
    agent: list[Samples] = []
    words: list[Word] = []
    call = engine.open(prompt, chosen.sampling, len(frames) * FRAME_S)
    try:
        await call.ready()
        outputs = call.frames()
        for index, frame in enumerate(frames):
            call.push(input_chain.process(frame))
            output = await anext(outputs)
            agent.append(output_chain.process(output.pcm))
            if output.text:
                words.append(Word(round(index * FRAME_S, 2), output.text))
            progress(index + 1, len(frames))
    finally:
        await call.close()
    return Conversation(frames.ravel(), np.concatenate(agent), tuple(words), call.seed, tuple(failures))
