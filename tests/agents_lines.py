"""Lines of an agent that nobody has spoken, for tests of the training."""

from collections.abc import Iterable

import numpy as np

from core.engine.architecture import AGENT_CODEBOOKS
from training.encoded import SHIFTS, AgentLine, Lines


def add_agents_lines(lines: Lines, episode: str, texts: Iterable[str], frames: int, seconds: float) -> None:
    """Let NATF2 have said these texts as an episode's agent, in so many frames and seconds a word, all of one code."""
    for text in texts:
        words = len(text.split())
        codes = np.full((SHIFTS, frames * words, AGENT_CODEBOOKS), 20, dtype=np.int16)
        line = AgentLine(text, "NATF2", tuple(seconds * place for place in range(words)), codes)
        lines.agents[episode][text] = line
        lines.voices["NATF2"].append(line)
