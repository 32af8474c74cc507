"""Random conversations: who talks with whom, by what name, in which voice."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import accumulate

import numpy as np
import sentencepiece

from core.engine.architecture import Architecture
from core.engine.prompt import SpecialCodes, Tokens, Voice, lay_out
from training.ambience import stretch
from training.callers import by_world
from training.conversations import Conversation
from training.dialogues import VOICE_FRAMES, Dialogue, Pieces
from training.encoded import SHIFTS, AgentLine, Codes, Lines
from training.episodes import Episode
from training.scripts import episode as drawn
from training.splicing import Splicer
from training.voices import AGENTS

SHARES = {"kokoro": 0.6, "espeak": 0.2, "shipped": 0.2}
"""How often spoken episodes are heard: Kokoro's, robots', and those of the personas that come with the service."""
SPLICED = 0.65
"""The share of conversations about a persona that nobody has spoken, whose lines are spliced of others' words."""
AMBIENT = 0.6
"""The share of those with callers in codes in which it is not all silent between their lines."""


class Composer:
    """Makes dialogues of a given number of positions, prompt and conversation together.

    `loose` is callers' speech that belongs to no exchange, by what it is, see `training.scripts.loose_phrases`.
    `spliced` is the share of conversations about a persona that nobody has spoken. `ambience`, int16[worlds, rows,
    frames, 8], is what is heard between lines that have codes, if it is not all silent.
    """

    def __init__(
        self,
        lines: Lines,
        episodes: Mapping[str, Episode],
        tokenizer: sentencepiece.SentencePieceProcessor,
        special: SpecialCodes,
        architecture: Architecture,
        loose: Mapping[str, tuple[str, ...]],
        spliced: float = SPLICED,
        ambience: Codes | None = None,
    ) -> None:
        self._lines, self._episodes, self._loose = lines, episodes, loose
        self._tokenizer, self._special, self._architecture = tokenizer, special, architecture
        self._callers = by_world(lines.callers)
        self._counts = [max(1, len(callers)) for callers in self._callers]
        self._spliced, self._ambience = spliced, ambience
        self._pieces: Pieces = cache(tokenizer.encode)
        self._names = sorted(name for name in episodes if name in lines.agents)
        self._weights = list(accumulate(self._shares_of()))
        self._splicers = {
            speaker: Splicer(speaker, lines.voices[speaker])
            for speaker in ([name for name in AGENTS if name in lines.voices] or sorted(lines.voices))
        }

    def compose(self, rng: random.Random, positions: int) -> Dialogue:
        """A conversation about a random episode, spoken or spliced, cut or filled with silence to `positions`."""
        spliced = rng.random() < self._spliced
        episode, speaker, said = self._new(rng) if spliced else self._spoken(rng)
        given = self._lines.voices[speaker]
        prompt = prompt_tokens(rng, episode.prompt, given, self._tokenizer, self._special, self._architecture)
        (callers,) = rng.choices(self._callers, self._counts)
        frames = positions - len(prompt) - 1
        dialogue = Dialogue.silent(prompt, frames, self._special, sounds=not spliced)
        if self._ambience is not None and callers.world is not None and rng.random() < AMBIENT:
            dialogue.user[:] = stretch(self._ambience, rng, callers.world, frames)
        Conversation(rng, dialogue, episode, said, given, callers, self._loose, self._pieces, self._special).hold()
        return dialogue

    def _spoken(self, rng: random.Random) -> tuple[Episode, str, Mapping[str, AgentLine]]:
        """An episode with its speaker and lines."""
        (name,) = rng.choices(self._names, cum_weights=self._weights)
        said = self._lines.agents[name]
        return self._episodes[name], next(iter(said.values())).speaker, said

    def _new(self, rng: random.Random) -> tuple[Episode, str, Mapping[str, AgentLine]]:
        """The same for one that comes this once."""
        episode, speaker = drawn(rng), rng.choice(sorted(self._splicers))
        return episode, speaker, {text: self._splicers[speaker].line(rng, text) for text in episode.lines()}

    def _shares_of(self) -> list[float]:
        """Each episode's share: within its kind by how much it says, the kinds by SHARES."""
        kinds = [name.partition("-")[0] for name in self._names]
        sizes = [len(self._lines.agents[name]) for name in self._names]
        whole = Counter[str]()
        for kind, size in zip(kinds, sizes, strict=True):
            whole[kind] += size
        return [SHARES[kind] * size / whole[kind] for kind, size in zip(kinds, sizes, strict=True)]


def prompt_tokens(
    rng: random.Random,
    prompt: str,
    said: Sequence[AgentLine],
    tokenizer: sentencepiece.SentencePieceProcessor,
    special: SpecialCodes,
    architecture: Architecture,
) -> Tokens:
    """A text prompt behind a voice prompt of some lines that its speaker has said, int64[positions, 17]."""
    line = rng.choice(said)
    codes = line.codes[rng.randrange(SHIFTS)].astype(np.int64)
    while len(codes) < VOICE_FRAMES:
        codes = np.concatenate([codes, rng.choice(said).codes[0].astype(np.int64)])
    text = np.array(tokenizer.encode(f"<system> {prompt.strip()} <system>"), dtype=np.int64)
    voice = Voice(line.speaker, codes=codes[:VOICE_FRAMES])
    return lay_out(voice, text, special, architecture).tokens
