"""Prefill: one pass of the transformer over a prompt, in chunks small enough to fit between two frames.

A prompt's keys and values depend on voice, text and checkpoint alone, so they go into the prefix cache: the next call
with the same persona copies them.
"""

from collections.abc import Generator

import numpy as np
import torch

from core.engine.architecture import STREAMS
from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE
from core.engine.kv_cache import PrefillCache
from core.engine.lm import LanguageModel
from core.engine.prefix_cache import PrefixCache, PrefixCacheEntry
from core.engine.prompt import GAP_FRAMES, Prompt, PromptLayout, SpecialCodes, Voice, lay_out
from core.engine.tokenizer import Tokenizer
from core.engine.voice_codes import EncodeVoice, VoiceCodes

CHUNK_POSITIONS = {"cuda": 128, "cpu": 40}
"""Positions prefilled between two steps, by the type of device.

For nano, 40 take a core of an AMD EPYC some 40 ms, so that a chunk and a step fit between two frames of somebody else's
call. Larger ones take no less for each position.
"""
WARM_UP_LENGTHS = (32, 16, 1)
"""Lengths below a whole chunk's between which libraries switch from kernels for many rows to kernels for few."""


class Prefill:
    """Prefills prompts, and looks them up in the prefix cache first."""

    def __init__(
        self,
        lm: LanguageModel,
        tokenizer: Tokenizer,
        special: SpecialCodes,
        encode_voice: EncodeVoice,
        cache: PrefixCache,
    ) -> None:
        self._lm, self._tokenizer, self._special, self._encode_voice = lm, tokenizer, special, encode_voice
        self._cache = cache
        self.voice_codes = VoiceCodes(encode_voice)
        self._chunk = CHUNK_POSITIONS[lm.device.type]

    def length(self, prompt: Prompt) -> int:
        """The number of positions that a prompt takes."""
        return voice_frames(prompt.voice) + len(self._tokenizer.prompt(prompt.text)) + 2 * GAP_FRAMES

    def run(self, prompt: Prompt) -> Generator[None, None, PrefixCacheEntry]:
        """Prefill a prompt and return its cache entry; at every `yield` the device is free for other work.

        Raises PromptError when the prompt cannot be used.
        """
        text = self._tokenizer.prompt(prompt.text)
        key = (prompt.voice.fingerprint if prompt.voice else "", text.tobytes())
        cached = self._cache.get(key)
        if cached is not None:
            return cached
        voice = prompt.voice
        if voice is not None and voice.pcm is not None:
            codes = yield from self.voice_codes.codes(voice.fingerprint, voice.pcm)
            voice = Voice(voice.name, codes=codes)
        layout = lay_out(voice, text, self._special, self._lm.architecture)
        entry = yield from self._forward(layout)
        self._cache.put(key, entry)
        return entry

    def warm_up(self) -> None:
        """Prefill chunks of each kind of length once, so that nothing is compiled or loaded during a call."""
        for length in (self._chunk, *WARM_UP_LENGTHS):
            for _ in self._forward(PromptLayout(np.zeros((length, STREAMS), np.int64))):
                pass
        for _ in self._encode_voice(np.zeros(SAMPLE_RATE, np.float32)):
            pass

    def _forward(self, layout: PromptLayout) -> Generator[None, None, PrefixCacheEntry]:
        lm = self._lm
        cache = PrefillCache(lm.architecture, layout.length, lm.device, lm.dtype)
        tokens = torch.from_numpy(layout.tokens).to(lm.device)
        hidden = torch.empty(0)
        for start in range(0, layout.length, self._chunk):
            # Entered anew for each chunk: a context must not stay open across a yield, where other code runs.
            with torch.inference_mode():
                chunk = tokens[start : start + self._chunk]
                x = lm.embed(chunk[None])
                if layout.embeddings is not None and start < len(layout.embeddings):
                    saved = torch.from_numpy(layout.embeddings[start : start + self._chunk])
                    x[:, : len(saved)] = saved.to(lm.device, lm.dtype)
                hidden = lm(x, cache.attention(len(chunk)))[0, -1].clone()  # A view would keep the whole chunk alive.
            yield
        return PrefixCacheEntry((cache.kv,), layout.length, hidden)


def voice_frames(voice: Voice | None) -> int:
    """The number of positions that a voice takes in a prompt."""
    if voice is None:
        return 0
    if voice.pcm is not None:
        return -(-len(voice.pcm) // FRAME_SAMPLES)
    if voice.embeddings is not None:
        return len(voice.embeddings) + 1
    return 0 if voice.codes is None else len(voice.codes)
