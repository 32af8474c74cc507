"""Conversations out of lines made separately: who speaks when, with gaps, interruptions, silence and noise.

The agent's side is laid out in codes. The caller's is mixed as sound, with the room around it, and encoded whole.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import sentencepiece

from core.engine.architecture import AGENT_CODEBOOKS, STREAMS, Architecture
from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE
from core.engine.prompt import SpecialCodes, Tokens, Voice, lay_out
from core.evaluation.speech import Samples
from training.encoded import SHIFTS, AgentLine, Lines
from training.episodes import Episode
from training.renaming import RENAMED, renaming
from training.scripts import conversation

PADDING, END_OF_PADDING = 3, 0
LEAD = 0.24
"""Seconds by which a word's text comes before its sound, so that a whole short word is known when it begins."""
FRAMES_PER_SECOND = SAMPLE_RATE / FRAME_SAMPLES
VOICE_FRAMES = 25
GREETING = (2, 8)
"""Frames before the agent greets, at least and at most."""
ANSWER = (4, 9)
"""Frames between the end of the caller's words and the agent's answer: 0.3 to 0.7 s."""
CALLER = (4, 30)
"""Frames between the end of the agent's words and the caller's."""
YIELD = (3, 6)
"""Frames after which an interrupted agent stops."""

INTERRUPTED = 0.15
SHARES = {"kokoro": 0.7, "espeak": 0.17, "shipped": 0.13}
"""How often episodes are heard: Kokoro's, robots', and those of the personas that come with the service."""


@dataclass
class Dialogue:
    """One conversation: what the agent does, frame by frame, and where the caller's lines begin, in samples.

    `sounds` is whether the agent's codes sound as its text reads: not where it was renamed.
    """

    prompt: Tokens
    text: npt.NDArray[np.int64]
    agent: npt.NDArray[np.int64]
    speaking: npt.NDArray[np.bool_]
    caller: list[tuple[int, Samples]] = field(default_factory=list)
    sounds: bool = True


class Composer:
    """Makes dialogues of a given number of positions, prompt and conversation together."""

    def __init__(
        self,
        lines: Lines,
        episodes: dict[str, Episode],
        tokenizer: sentencepiece.SentencePieceProcessor,
        special: SpecialCodes,
        architecture: Architecture,
    ) -> None:
        self._lines, self._episodes = lines, episodes
        self._tokenizer, self._special, self._architecture = tokenizer, special, architecture
        self._pieces: Callable[[str], list[int]] = cache(tokenizer.encode)
        self._names = sorted(episodes)
        self._weights = list(accumulate(self._shares_of()))

    def compose(self, rng: random.Random, positions: int) -> Dialogue:
        """A conversation about a random episode, renamed or not, cut or filled with silence to `positions`."""
        (name,) = rng.choices(self._names, cum_weights=self._weights)
        episode, said = self._episodes[name], self._lines.agents[name]
        speaker = next(iter(said.values())).speaker
        renamed = renaming(rng, episode) if rng.random() < RENAMED else None
        if renamed is not None:
            said = {text: replace(line, text=renamed(text)) for text, line in said.items()}
        prompt = self._prompt(rng, renamed(episode.prompt) if renamed else episode.prompt, speaker)
        frames = positions - len(prompt) - 1
        text = np.full(frames, PADDING, dtype=np.int64)
        agent = np.tile(np.array(self._special.silence, dtype=np.int64), (frames, 1))
        dialogue = Dialogue(prompt, text, agent, np.zeros(frames, dtype=np.bool_), sounds=renamed is None)
        self._converse(rng, dialogue, episode, said)
        return dialogue

    def _shares_of(self) -> list[float]:
        """Each episode's share: within its kind by how much it says, the kinds by SHARES."""
        kinds = [name.partition("-")[0] for name in self._names]
        sizes = [len(self._lines.agents[name]) for name in self._names]
        whole = Counter[str]()
        for kind, size in zip(kinds, sizes, strict=True):
            whole[kind] += size
        return [SHARES[kind] * size / whole[kind] for kind, size in zip(kinds, sizes, strict=True)]

    def _prompt(self, rng: random.Random, prompt: str, speaker: str) -> Tokens:
        line = rng.choice(self._lines.voices[speaker])
        codes = line.codes[rng.randrange(SHIFTS)].astype(np.int64)
        while len(codes) < VOICE_FRAMES:
            codes = np.concatenate([codes, rng.choice(self._lines.voices[speaker]).codes[0].astype(np.int64)])
        text = np.array(self._tokenizer.encode(f"<system> {prompt.strip()} <system>"), dtype=np.int64)
        voice = Voice(speaker, codes=codes[:VOICE_FRAMES])
        return lay_out(voice, text, self._special, self._architecture).tokens

    def _converse(self, rng: random.Random, dialogue: Dialogue, episode: Episode, said: dict[str, AgentLine]) -> None:
        """The greeting, then exchanges until the dialogue is full: who calls long comes back to things."""
        now = self._speak(rng, dialogue, said[episode.greeting], rng.randint(*GREETING)) + rng.randint(*CALLER)
        while now < len(dialogue.text):
            turns = list(conversation(rng, episode))[1:]
            before = now
            for ask, answer in zip(turns[::2], turns[1::2], strict=True):
                now = self._exchange(rng, dialogue, self._spoken(episode, ask.text), said.get(answer.text), now)
                if now >= len(dialogue.text):
                    return
            if now == before or rng.random() < 0.3:
                return

    def _exchange(
        self, rng: random.Random, dialogue: Dialogue, asks: list[str], answer: AgentLine | None, now: int
    ) -> int:
        """The caller asks from frame `now` on, and is answered. Returns when the caller speaks next."""
        if not asks or answer is None:
            return now
        line = rng.choice(self._lines.callers[rng.choice(asks)])
        sound = line.pcm.astype(np.float32) / np.float32(32767)
        start = now * FRAME_SAMPLES + rng.randrange(FRAME_SAMPLES)
        dialogue.caller.append((start, sound))
        begin = (start + len(sound)) // FRAME_SAMPLES + 1 + rng.randint(*ANSWER)
        end = self._speak(rng, dialogue, answer, begin)
        # Now and then the next words come early: the agent stops, and answers those.
        if end - begin > 15 and rng.random() < INTERRUPTED:
            early = rng.randint(begin + 8, end - 4)
            self._stop(dialogue, early + rng.randint(*YIELD), end)
            return early
        return end + (rng.randint(*CALLER) if rng.random() < 0.9 else rng.randint(30, 90))

    def _spoken(self, episode: Episode, ask: str) -> list[str]:
        """Phrasings of the same wish that somebody has spoken."""
        wishes = [exchange.asks for exchange in episode.exchanges if ask in exchange.asks] or [episode.repeats]
        return [text for text in dict.fromkeys(text for wish in wishes for text in wish) if text in self._lines.callers]

    def _speak(self, rng: random.Random, dialogue: Dialogue, line: AgentLine, now: int) -> int:
        """Lay a line from frame `now` on; returns the frame after its end."""
        shift = rng.randrange(SHIFTS)
        codes = line.codes[shift][: max(0, len(dialogue.text) - now)]
        end = now + len(codes)
        dialogue.agent[now:end] = codes
        dialogue.speaking[now:end] = True
        free = max(0, now - 2)
        for word, second in zip(line.text.split(), line.words, strict=True):
            pieces = self._pieces(word)
            second += shift / SHIFTS / FRAMES_PER_SECOND - LEAD
            start = max(free, now + int(second * FRAMES_PER_SECOND))
            if start > free and start - 1 < len(dialogue.text):
                dialogue.text[start - 1] = END_OF_PADDING
            room = dialogue.text[start : start + len(pieces)]
            room[:] = pieces[: len(room)]
            free = start + len(pieces)
        return end

    def _stop(self, dialogue: Dialogue, begin: int, end: int) -> None:
        """Silence the agent from frame `begin` to `end`."""
        dialogue.agent[begin:end] = self._special.silence
        dialogue.text[begin - 1 : end] = PADDING
        dialogue.speaking[begin:end] = False


def positions_of(dialogue: Dialogue, user: npt.NDArray[np.int64], special: SpecialCodes) -> Tokens:
    """All seventeen streams by position, int64[positions, 17], with their delays; `user`: int64[frames, 8].

    The position after the prompt holds the delayed codes of the prompt's last frame.
    """
    start, end = len(dialogue.prompt), len(dialogue.prompt) + len(dialogue.text)
    tokens = np.empty((end, STREAMS), dtype=np.int64)
    tokens[:start] = dialogue.prompt
    tokens[start:, 0] = dialogue.text
    for first, codes, before in ((1, dialogue.agent, special.silence), (1 + AGENT_CODEBOOKS, user, special.sine)):
        last = first + AGENT_CODEBOOKS
        tokens[start:, first] = codes[:, 0]
        tokens[start, first + 1 : last] = before[1:]
        tokens[start + 1 :, first + 1 : last] = codes[:-1, 1:]
    return tokens
