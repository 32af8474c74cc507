"""The prompt that a model reads before a call begins: a voice and a text, laid out as tokens.

Step t of a prompt determines the token of stream k at position t + delay[k]; position 0, and position 1 of the delayed
streams, hold initial tokens. The parts and their order are those of NVIDIA's `LMGen.step_system_prompts` (personaplex,
MIT).
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from core.engine.architecture import AGENT_CODEBOOKS, DELAYS, STREAMS, Architecture
from core.errors import PromptError

GAP_FRAMES = 6
"""Half a second of silence after the voice and after the text."""
RING = 4
"""Columns of the token ring that packaged voices contain: the longest delay, and three more."""
Tokens = npt.NDArray[np.int64]
SYSTEM_TAG = "<system>"
"""Stands before and after the text of every prompt, as the model was trained."""


def without_system_tags(text: str) -> str:
    """A prompt's text without the tags around it, which NVIDIA's clients may add."""
    text = text.strip()
    if text.startswith(SYSTEM_TAG) and text.endswith(SYSTEM_TAG) and len(text) >= 2 * len(SYSTEM_TAG):
        text = text.removeprefix(SYSTEM_TAG).removesuffix(SYSTEM_TAG).strip()
    return text


@dataclass(frozen=True, eq=False)
class Voice:
    """A voice to speak in, in exactly one of three forms.

    - `pcm`: a recording, float32[samples], mono, 24 kHz, -24 LUFS; the engine's codec turns it into codes;
    - `codes`: int64[frames, 8], the agent's codebooks of such a recording;
    - `embeddings`: float32[n, dim], what the transformer reads at positions 0..n-1 of a voice prompt of n+1 steps,
      with `ring`: int64[17, 4], the token ring after those steps (position p at column p % 4).
      This is how PersonaPlex packages its voices; it fits one checkpoint only.
    """

    name: str
    pcm: npt.NDArray[np.float32] | None = None
    codes: Tokens | None = None
    embeddings: npt.NDArray[np.float32] | None = None
    ring: Tokens | None = None

    def __post_init__(self) -> None:
        forms = [self.pcm is not None, self.codes is not None, self.embeddings is not None]
        if sum(forms) != 1 or (self.embeddings is None) != (self.ring is None):
            raise ValueError(f"voice {self.name}: give pcm, or codes, or embeddings with their ring")

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the voice's content, whatever its name."""
        digest = hashlib.sha256()
        for form in (self.pcm, self.codes, self.embeddings, self.ring):
            digest.update(b"-" if form is None else repr((form.shape, form.dtype.str)).encode() + form.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Prompt:
    """A persona as the engine sees it: a text without tags, which may be empty, and a voice, or none."""

    text: str = ""
    voice: Voice | None = None
    pin: bool | None = None
    """Whether it stays in the window for as long as the call lasts; None is what the engine does by default."""


@dataclass(frozen=True)
class SpecialCodes:
    """The codes of silence and of a 440 Hz sine at half amplitude in some codec, eight each."""

    silence: tuple[int, ...] = (948, 243, 1178, 546, 1736, 1030, 1978, 2008)
    sine: tuple[int, ...] = (430, 1268, 381, 1611, 1095, 1495, 56, 472)


@dataclass(frozen=True)
class PromptLayout:
    """What the transformer reads at positions 0..length-1.

    `tokens` is int64[length, 17]. The `embeddings` of a packaged voice, float32[n, dim], replace the tokens of
    positions 0..n-1.
    """

    tokens: Tokens
    embeddings: npt.NDArray[np.float32] | None = None

    @property
    def length(self) -> int:
        return len(self.tokens)


def lay_out(voice: Voice | None, text: Tokens, special: SpecialCodes, architecture: Architecture) -> PromptLayout:
    """Lay out voice, gap, text and gap. `voice` has codes or embeddings, `text` is int64[tokens], perhaps empty.

    Raises PromptError when the voice belongs to another checkpoint or the prompt leaves no room in the context.
    """
    spoken = voice_steps(voice, architecture)
    gap = np.tile(special.silence, (GAP_FRAMES, 1))
    agent = np.concatenate([spoken, gap, np.tile(special.silence, (len(text), 1)), gap])
    words = np.full(len(agent), architecture.existing_text_padding_id)
    words[len(spoken) + GAP_FRAMES :][: len(text)] = text
    if len(agent) >= architecture.context:
        spare = architecture.context - 1 - len(agent) + len(text)
        raise PromptError(f"The prompt has {len(text)} tokens; with this voice there is room for {max(spare, 0)}.")
    steps = np.concatenate([words[:, None], agent, np.tile(special.sine, (len(agent), 1))], axis=1)

    tokens = np.empty((len(steps), STREAMS), dtype=np.int64)
    for stream, delay in enumerate(DELAYS):
        tokens[: delay + 1, stream] = architecture.text_vocab_size if stream == 0 else architecture.audio_vocab_size
        tokens[delay + 1 :, stream] = steps[1 : len(steps) - delay, stream]
    if voice is None or voice.embeddings is None or voice.ring is None:
        return PromptLayout(tokens)
    saved = len(voice.embeddings)
    tokens[:saved] = 0
    tokens[saved] = voice.ring[:, saved % RING]
    delayed = np.array(DELAYS) > 0
    tokens[saved + 1, delayed] = voice.ring[delayed, (saved + 1) % RING]
    return PromptLayout(tokens, voice.embeddings)


def voice_steps(voice: Voice | None, architecture: Architecture) -> Tokens:
    """The agent's codes while it speaks its voice prompt, int64[frames, 8]; zeros where embeddings replace them."""
    if voice is None:
        return np.empty((0, AGENT_CODEBOOKS), dtype=np.int64)
    if voice.embeddings is not None and voice.ring is not None:
        if voice.embeddings.shape[1] != architecture.dim:
            dim = voice.embeddings.shape[1]
            raise PromptError(
                f"Voice {voice.name} was saved for a model of dimension {dim}, this one has {architecture.dim}: "
                "make it again from its recording with `personaplex voice make`."
            )
        here, following = len(voice.embeddings) % RING, (len(voice.embeddings) + 1) % RING
        delayed = voice.ring[np.array(DELAYS) > 0, following]
        check_tokens(voice.name, np.append(voice.ring[1:, here], delayed), architecture.audio_vocab_size)
        check_tokens(voice.name, voice.ring[:1, here], architecture.text_vocab_size)
        return np.zeros((len(voice.embeddings) + 1, AGENT_CODEBOOKS), dtype=np.int64)
    if voice.codes is None:
        raise PromptError(f"Voice {voice.name} is a recording that has not been encoded.")
    check_tokens(voice.name, voice.codes, architecture.audio_vocab_size)
    return voice.codes


def check_tokens(name: str, tokens: Tokens, vocab_size: int) -> None:
    """Raise PromptError when a voice has tokens that are not in the model's vocabulary."""
    if tokens.size and not 0 <= tokens.min() <= tokens.max() <= vocab_size:
        raise PromptError(f"Voice {name} holds tokens that this model does not have: it is another checkpoint's.")
