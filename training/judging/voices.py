"""Voices that no training hears: accents of espeak-ng, and Debian's flite where it is installed."""

import random
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.evaluation.callers import leveled
from core.evaluation.espeak import Espeak
from core.evaluation.speech import Samples
from core.media.sound_files import read_channels

LONGEST_S = 60.0
QUIET = 0.02
"""Of a line's highest sample: what is less at its ends is no speech."""


@dataclass(frozen=True)
class HeldOutVoice:
    """A synthesizer's voice, such as `en-029+m3` of espeak-ng or `slt` of flite."""

    program: str
    name: str


ESPEAK = tuple(HeldOutVoice("espeak-ng", name) for name in ("en-029+m3", "en-gb-scotland+f2"))
FLITE = tuple(HeldOutVoice("flite", name) for name in ("slt", "rms"))


class StrangerVoices:
    """Lines in held-out voices, each caller with one, a pace and a pitch of its own."""

    def __init__(self) -> None:
        """Raises ImportError without the package `espeakng-loader`."""
        self._espeak = Espeak()
        self._flite = shutil.which("flite")
        interleaved = [voice for pair in zip(ESPEAK, FLITE, strict=True) for voice in pair]
        self.voices = tuple(voice for voice in interleaved if voice.program != "flite" or self._flite)
        self.missing = "" if self._flite else "flite is not installed: callers have the accents of espeak-ng alone."

    def voice(self, caller: int) -> HeldOutVoice:
        """The voice of caller number `caller`."""
        return self.voices[caller % len(self.voices)]

    def say(self, text: str, caller: int) -> Samples:
        """A line at the level of a call, float32[samples] at 24 kHz, without silence around it."""
        voice, rng = self.voice(caller), random.Random(f"stranger {caller}")
        if voice.program == "flite":
            return trimmed(leveled(self._say_with_flite(text, voice.name, rng.uniform(0.9, 1.15))))
        return trimmed(leveled(self._espeak.speak(text, voice.name, rng.randint(145, 180), rng.randint(35, 65))))

    def _say_with_flite(self, text: str, voice: str, stretch: float) -> Samples:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "line.wav"
            command = [str(self._flite), "-voice", voice, "--setf", f"duration_stretch={stretch:.2f}"]
            subprocess.run([*command, "-t", text, "-o", str(path)], check=True)  # noqa: S603 - lines of our own
            return np.asarray(read_channels(path, LONGEST_S)[0])


def trimmed(pcm: Samples) -> Samples:
    """Without what is quiet at either end."""
    loud = np.flatnonzero(np.abs(pcm) > QUIET * np.abs(pcm).max(initial=0.0))
    return pcm[loud[0] : loud[-1] + 1] if len(loud) else pcm[:0]
