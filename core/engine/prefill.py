"""Reading a prompt in one pass, in pieces small enough to fit between two frames, and keeping what was read.

A prompt's keys and values depend on voice, text and checkpoint alone: the next call with the same persona copies them.
"""

from collections.abc import Callable, Generator

import numpy as np
import torch

from core.engine.architecture import STREAMS
from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE, Frame
from core.engine.kv_cache import PromptCache
from core.engine.lm import LanguageModel
from core.engine.prefix_cache import Snapshot, SnapshotStore
from core.engine.prompt import GAP_FRAMES, Prompt, PromptLayout, SpecialCodes, Tokens, Voice, lay_out
from core.engine.tokenizer import Tokenizer

PIECE = 128
"""Positions read between two steps."""
WARM_UP_LENGTHS = (PIECE, 32, 16, 1)
"""Between these, kernels for few and for many rows change over."""

EncodeVoice = Callable[[Frame], Generator[None, None, Tokens]]
"""A recording, float32[samples], to the agent's codes, int64[frames, 8], pausing now and then."""


class Preparation:
    """Makes snapshots of prompts, and keeps them in a store."""

    def __init__(
        self,
        lm: LanguageModel,
        tokenizer: Tokenizer,
        special: SpecialCodes,
        encode_voice: EncodeVoice,
        store: SnapshotStore,
    ) -> None:
        self._lm, self._tokenizer, self._special, self._encode_voice = lm, tokenizer, special, encode_voice
        self._store = store

    def length(self, prompt: Prompt) -> int:
        """How many positions a prompt takes."""
        return voice_frames(prompt.voice) + len(self._tokenizer.prompt(prompt.text)) + 2 * GAP_FRAMES

    def prepare(self, prompt: Prompt) -> Generator[None, None, Snapshot]:
        """Read a prompt; every `yield` is a good moment for other work. Returns its snapshot.

        Raises PromptError when the prompt cannot be used.
        """
        text = self._tokenizer.prompt(prompt.text)
        key = (prompt.voice.fingerprint if prompt.voice else "", text.tobytes())
        kept = self._store.get(key)
        if kept is not None:
            return kept
        voice = prompt.voice
        if voice is not None and voice.pcm is not None:
            codes = yield from self._encode_voice(voice.pcm)
            voice = Voice(voice.name, codes=codes)
        layout = lay_out(voice, text, self._special, self._lm.architecture)
        snapshot = yield from self._read(layout)
        self._store.put(key, snapshot)
        return snapshot

    def warm_up(self) -> None:
        """Read pieces of every kind of length once, so that nothing is compiled or loaded while callers talk."""
        for length in WARM_UP_LENGTHS:
            for _ in self._read(PromptLayout(np.zeros((length, STREAMS), np.int64))):
                pass
        for _ in self._encode_voice(np.zeros(SAMPLE_RATE, np.float32)):
            pass

    def _read(self, layout: PromptLayout) -> Generator[None, None, Snapshot]:
        lm = self._lm
        cache = PromptCache(lm.architecture, layout.length, lm.device, lm.dtype)
        tokens = torch.from_numpy(layout.tokens).to(lm.device)
        hidden = torch.empty(0)
        for start in range(0, layout.length, PIECE):
            # Entered anew for each piece: a context must not stay open across a yield, where other code runs.
            with torch.inference_mode():
                piece = tokens[start : start + PIECE]
                x = lm.embed(piece[None])
                if layout.embeddings is not None and start < len(layout.embeddings):
                    saved = torch.from_numpy(layout.embeddings[start : start + PIECE]).to(lm.device, lm.dtype)
                    x[:, : len(saved)] = saved
                hidden = lm(x, cache.piece(len(piece)))[0, -1].clone()  # A view would keep all of the piece.
            yield
        return Snapshot((cache.kept,), layout.length, hidden)


def voice_frames(voice: Voice | None) -> int:
    """How many positions a voice takes in a prompt."""
    if voice is None:
        return 0
    if voice.pcm is not None:
        return -(-len(voice.pcm) // FRAME_SAMPLES)
    if voice.embeddings is not None:
        return len(voice.embeddings) + 1
    return 0 if voice.codes is None else len(voice.codes)
