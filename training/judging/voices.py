"""Callers in voices that no training hears: espeak-ng's, and flite's where it is installed."""

import random
from pathlib import Path

import click
import numpy as np

from core.evaluation.callers import leveled
from core.evaluation.speech import Samples
from training.flite import Flite
from training.teachers import Espeak
from training.voices import Speaker
from training.voices import caller as new_caller

QUIET = 0.02
"""Of a line's highest sample: what is less at its ends is no speech."""


class StrangerVoices:
    """Lines in held-out voices, each caller with one, a pace and a pitch of its own; every second one is flite's."""

    def __init__(self, flite: Path | None = None) -> None:
        """`flite` is the folder of its libraries, None the system's; `missing` says so where there is none.

        Raises ImportError without the package `espeakng-loader`.
        """
        self._espeak = Espeak()
        self._flite: Flite | None = None
        self.missing = ""
        try:
            self._flite = Flite(flite)
        except click.ClickException as error:
            self.missing = f"Callers have voices of espeak-ng alone: {error.message}"

    def speaker(self, caller: int) -> Speaker:
        """Caller number `caller`."""
        kind = "flite" if self._flite is not None and caller % 2 else "espeak"
        return new_caller(random.Random(f"stranger {caller}"), kind, held_out=True)

    def say(self, text: str, caller: int) -> Samples:
        """A line at the level of a call, float32[samples] at 24 kHz, without silence around it."""
        speaker = self.speaker(caller)
        teacher = self._flite if speaker.voice and self._flite is not None else self._espeak
        return trimmed(leveled(teacher.say(text, speaker).pcm))


def trimmed(pcm: Samples) -> Samples:
    """Without what is quiet at either end."""
    loud = np.flatnonzero(np.abs(pcm) > QUIET * np.abs(pcm).max(initial=0.0))
    return pcm[loud[0] : loud[-1] + 1] if len(loud) else pcm[:0]
