"""A recording of a voice to the agent's codes, as the voice prompt wants them."""

import copy
from collections.abc import Callable, Generator
from itertools import chain

import numpy as np
import torch
from moshi.models.compression import MimiModel

from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE, Frame, frames_of
from core.engine.mimi.codec import plainly
from core.engine.prompt import SpecialCodes, Tokens

PIECE_FRAMES = 8
"""Frames encoded between two steps of the engine."""
SETTLED_SECONDS = 2
"""After this, steady sound has steady codes."""


class VoiceEncoder:
    """Mimi for one recording at a time, frame by frame, sharing its weights with the slots' codec."""

    def __init__(self, mimi: MimiModel) -> None:
        """`mimi` must not be streaming already; afterwards it may."""
        shared = {id(tensor): tensor for tensor in chain(mimi.parameters(), mimi.buffers())}
        self._mimi = copy.deepcopy(mimi, shared)
        self._device = next(mimi.parameters()).device

    def pieces(self, pcm: Frame) -> int:
        """How many pauses the encoding of a recording makes."""
        return -(-len(pcm) // (FRAME_SAMPLES * PIECE_FRAMES))

    def __call__(self, pcm: Frame) -> Generator[None, None, Tokens]:
        """float32[samples] at 24 kHz to int64[frames, 8]; the last frame is filled up with silence."""
        frames = torch.from_numpy(frames_of(pcm).astype(np.float32))[None]
        codes = []
        with self._mimi.streaming(1):
            for start in range(0, frames.shape[1], PIECE_FRAMES):
                piece = frames[:, start : start + PIECE_FRAMES].reshape(1, 1, -1).to(self._device)
                # Entered anew for each piece: they must not stay open across a yield, where other code runs.
                with plainly(), torch.inference_mode():
                    codes.append(self._mimi.encode(piece)[0].T.cpu())
                yield
        return torch.cat(codes).numpy()


def measure_special_codes(encode: VoiceEncoder) -> SpecialCodes:
    """What a codec makes of silence and of the sine that stands for the user in prompts."""
    time = np.arange(SETTLED_SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    sounds = (np.zeros(len(time), np.float32), (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32))
    silence, sine = (tuple(int(code) for code in drain(encode(sound))[-1]) for sound in sounds)
    return SpecialCodes(silence, sine)


def drain(pieces: Generator[None, None, Tokens], advance: Callable[[], object] = lambda: None) -> Tokens:
    """Run an encoding to its end at once, calling `advance` after each piece."""
    while True:
        try:
            next(pieces)
            advance()
        except StopIteration as end:
            return np.asarray(end.value, dtype=np.int64)
