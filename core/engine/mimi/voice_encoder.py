"""Encoding of a voice's recording to the agent's codes, for a voice prompt."""

import copy
from collections.abc import Callable, Generator
from itertools import chain

import numpy as np
import torch
from moshi.models.compression import MimiModel

from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE, Frame, frames_of
from core.engine.mimi.codec import eager_moshi
from core.engine.prompt import SpecialCodes, Tokens

CHUNK_FRAMES = 8
"""Frames encoded between two steps of the engine."""
SETTLED_SECONDS = 2
"""Seconds after which the codes of a steady sound no longer change."""


class VoiceEncoder:
    """Encodes recordings with Mimi, one at a time, sharing its weights with the model that it is given."""

    def __init__(self, mimi: MimiModel) -> None:
        """`mimi` must not be streaming at the time of this call; afterwards it may."""
        shared = {id(tensor): tensor for tensor in chain(mimi.parameters(), mimi.buffers())}
        self._mimi = copy.deepcopy(mimi, shared)
        self._device = next(mimi.parameters()).device

    def chunks(self, pcm: Frame) -> int:
        """The number of times that the encoding of a recording yields."""
        return -(-len(pcm) // (FRAME_SAMPLES * CHUNK_FRAMES))

    def __call__(self, pcm: Frame) -> Generator[None, None, Tokens]:
        """Encode float32[samples] at 24 kHz to int64[frames, 8], yielding after each chunk.

        The last frame is padded with silence.
        """
        frames = torch.from_numpy(frames_of(pcm).astype(np.float32))[None]
        codes = []
        with self._mimi.streaming(1):
            for start in range(0, frames.shape[1], CHUNK_FRAMES):
                chunk = frames[:, start : start + CHUNK_FRAMES].reshape(1, 1, -1).to(self._device)
                # Entered anew for each chunk: they must not stay open across a yield, where other code runs.
                with eager_moshi(), torch.inference_mode():
                    codes.append(self._mimi.encode(chunk)[0].T.cpu())
                yield
        return torch.cat(codes).numpy()


def measure_special_codes(encode: VoiceEncoder) -> SpecialCodes:
    """Measure a codec's codes of silence, and of the sine that stands for the user in prompts."""
    samples = SETTLED_SECONDS * SAMPLE_RATE
    sounds = (np.zeros(samples, np.float32), sine_of(samples))
    silence, sine = (tuple(int(code) for code in drain(encode(sound))[-1]) for sound in sounds)
    return SpecialCodes(silence, sine)


def sine_of(samples: int) -> Frame:
    """The sine that stands for the user in prompts, float32[samples]."""
    time = np.arange(samples) / SAMPLE_RATE
    return (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


def drain(chunks: Generator[None, None, Tokens], advance: Callable[[], object] = lambda: None) -> Tokens:
    """Run an encoding to its end and return the codes, calling `advance` after each chunk."""
    while True:
        try:
            next(chunks)
            advance()
        except StopIteration as end:
            return np.asarray(end.value, dtype=np.int64)
