"""Samples of the voices, for callers who choose: the agent says one sentence in each, once, and the sound is kept.

A sample takes a slot that is free, as a caller would, and gives it back as soon as a caller waits for one.
"""

import asyncio
import hashlib
import secrets
import time
from pathlib import Path

import numpy as np

from core.engine.call import FRAME_S, FRAME_SAMPLES, Call, Engine
from core.engine.prompt import Prompt, Voice
from core.engine.sampling import Sampling
from core.errors import EngineBusyError, EngineError
from core.media.audio_codecs import Samples, open_writer
from core.session.admission import Admission, Caller
from core.settings.log import get_logger
from core.settings.paths import cache_folder
from core.settings.sections import EngineConfig

SENTENCE = "Hello, it is nice to hear from you. How can I help you today?"
PERSONA = "You enjoy having a good conversation."
"""A prompt that every checkpoint of this kind has been trained on."""
SAMPLING = Sampling(seed=1)
LONGEST_S = 12.0
"""Of a sample, and of what its call may take."""
PROMPT_S = 30.0
TAIL_FRAMES = 15
"""1.2 s: how much longer than its words a voice is listened to."""
QUIET = 0.01
"""Peak (-40 dB) of a frame in which nobody speaks."""
FADE_SAMPLES = FRAME_SAMPLES // 2
PACKET_MS = 20
NOBODY = Caller("sample of a voice", "")
"""Who asks for the slot. No identity of a caller's has a name with spaces."""
_log = get_logger("samples")


class VoiceSamples:
    """Makes the samples of one app, one at a time, and keeps them in the cache folder and in memory."""

    def __init__(self, engine: Engine, admission: Admission, config: EngineConfig) -> None:
        self._engine = engine
        self._admission = admission
        self._config = config
        self._made: dict[str, tuple[str, bytes]] = {}
        """The newest sample of each voice, with its key."""
        self._one_at_a_time = asyncio.Lock()

    @property
    def available(self) -> bool:
        """Whether this process has an engine that can say something."""
        return self._engine.info.slots > 0

    async def get(self, voice: Voice) -> bytes:
        """The sample of a voice, Ogg/Opus; from the cache, or made now.

        Raises EngineBusyError while callers need the slots, and EngineError or PromptError as a call does.
        """
        key = await asyncio.to_thread(self._key, voice)
        if self._made.get(voice.name, ("", b""))[0] != key:
            async with self._one_at_a_time:
                if self._made.get(voice.name, ("", b""))[0] != key:
                    self._made[voice.name] = key, await self._kept(key) or await self._make(key, voice)
        return self._made[voice.name][1]

    def _key(self, voice: Voice) -> str:
        """What a sample depends on, as a file's name."""
        config = self._config
        parts = (SENTENCE, PERSONA, voice.fingerprint, self._engine.info.name, config.checkpoint, config.revision)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def _file(self, key: str) -> Path:
        return cache_folder(self._config) / "voice-samples" / f"{key}.opus"

    async def _kept(self, key: str) -> bytes:
        try:
            return await asyncio.to_thread(self._file(key).read_bytes)
        except (OSError, EngineError):  # it was never made, or there is no folder for it
            return b""

    async def _make(self, key: str, voice: Voice) -> bytes:
        began = time.monotonic()
        sound = await asyncio.to_thread(_encode, await self._say(voice))
        _log.info("made the sample of a voice", voice=voice.name, seconds=round(time.monotonic() - began, 1))
        try:
            await asyncio.to_thread(_write, self._file(key), sound)
        except (OSError, EngineError) as error:  # then it is made again after the next start
            _log.warning("the sample of a voice cannot be kept", voice=voice.name, error=str(error))
        return sound

    async def _say(self, voice: Voice) -> Samples:
        """The sentence in this voice, float32[n]."""
        health = self._engine.health()
        if health.busy >= health.slots or self._admission.waiting:
            raise _busy()
        slot = self._admission.slot(NOBODY, Prompt(PERSONA, voice), SAMPLING, _leave_the_queue, LONGEST_S)
        try:
            async with slot as call, asyncio.timeout(PROMPT_S + 2 * LONGEST_S):
                call.say(SENTENCE)
                await call.ready()
                return await self._listen(call)
        except TimeoutError:
            raise EngineError("The voice took too long to say its sentence. Try again later.") from None

    async def _listen(self, call: Call) -> Samples:
        """Be silent until the sentence is said; at a caller's pace where there are callers, else as fast as it goes."""
        silence = np.zeros(FRAME_SAMPLES, np.float32)
        answers = call.frames()
        heard: list[Samples] = []
        tail = 0
        while len(heard) * FRAME_S < LONGEST_S and tail < TAIL_FRAMES:
            due = time.monotonic() + FRAME_S
            call.push(silence)
            try:
                answer = await anext(answers)
            except StopAsyncIteration:
                raise EngineError("The engine ended the call.") from None
            heard.append(answer.pcm)
            if answer.sentence_ended or tail:
                tail += 1
                if tail > 3 and np.abs(answer.pcm).max() < QUIET:
                    break
            if self._admission.waiting:
                raise _busy()
            if self._engine.health().busy > 1:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
        return np.concatenate(heard)


def _busy() -> EngineBusyError:
    return EngineBusyError("Every line is needed for callers just now. Try again in a minute.")


async def _leave_the_queue(_place: int) -> None:
    raise _busy()


def _encode(sound: Samples) -> bytes:
    """Ogg/Opus of what is spoken in `sound`, without the silence around it."""
    loud = np.flatnonzero(np.abs(sound) >= QUIET)
    if loud.size:
        sound = sound[max(0, loud[0] - FADE_SAMPLES) : loud[-1] + FADE_SAMPLES]
    sound = np.pad(sound, (0, FADE_SAMPLES))
    fade = min(FADE_SAMPLES, len(sound))
    sound[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return open_writer("opus", PACKET_MS).write(np.pad(sound, (0, -len(sound) % FRAME_SAMPLES)))


def _write(path: Path, content: bytes) -> None:
    """Put the whole file in its place at once: other processes read and write it too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{secrets.token_hex(8)}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
