"""Who calls in an evaluation: espeak-ng in many voices, or recordings of people."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from core.errors import AudioError, VoiceError
from core.evaluation.espeak import ACCENTS, VARIANTS, Espeak
from core.evaluation.speech import Samples
from core.media.sound_files import read_channels

LONGEST_S = 120.0
"""Of a recording."""
LEVEL = 0.06
"""Root mean square of a caller's loud frames: -24 dBFS, the level of speech in a call."""


@dataclass(frozen=True)
class Line:
    """Something a caller says. `kind` is what it asks for; `text` is "" where only the sound is known."""

    kind: str
    text: str
    pcm: Samples


class Callers(Protocol):
    """Gives each call a voice of its own."""

    def say(self, kind: str, text: str, caller: int) -> Line:
        """The line in the voice of caller number `caller`."""


class EspeakCallers:
    """A robot for each caller, with an accent, a voice, a pace and a pitch of its own."""

    def __init__(self) -> None:
        self._espeak = Espeak()

    def say(self, kind: str, text: str, caller: int) -> Line:
        rng = random.Random(f"caller {caller}")
        variant = rng.choice(VARIANTS)
        voice = rng.choice(ACCENTS) + (f"+{variant}" if variant else "")
        return Line(kind, text, leveled(self._espeak.speak(text, voice, rng.randint(140, 190), rng.randint(25, 75))))


def recorded_lines(folder: Path) -> list[Line]:
    """The recordings in a folder and those below it, such as of a public benchmark; nobody knows what they say.

    Raises VoiceError naming the file that cannot be read, or the folder without any.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".wav", ".flac", ".ogg", ".mp3"))
    if not files:
        raise VoiceError(f"{folder} has no recordings: put WAV, FLAC, Ogg or MP3 files of callers into it.")
    try:
        return [Line("recording", "", leveled(read_channels(path, LONGEST_S).mean(axis=0))) for path in files]
    except AudioError as error:
        raise VoiceError(f"{error} Take it out of the folder, or cut it to {LONGEST_S:.0f} s.") from None


def leveled(pcm: Samples) -> Samples:
    """Sound at the level of a call, whatever it was recorded at."""
    power = pcm.astype(np.float64) ** 2
    loud = power[power > 1e-3 * power.max(initial=0.0)]
    level = float(np.sqrt(loud.mean())) if len(loud) else 0.0
    return np.clip(pcm * (LEVEL / level), -0.99, 0.99).astype(np.float32) if level else pcm
