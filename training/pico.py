"""SVOX Pico, the small synthesizer of early Android phones (Apache-2.0), out of the package `py-nanotts`."""

import numpy as np

from training.aligning import aligned
from training.teachers import Espeak, Spoken, finished, pronounceable
from training.voices import Speaker

RATE = 16_000
VOLUME = 0.5
"""At its own volume loud vowels clip."""


class Pico:
    """Its two women, `en-US` and `en-GB`. It does not say when words begin: that is found with espeak-ng's reading.

    Raises ImportError without the package.
    """

    def __init__(self, espeak: Espeak) -> None:
        from py_nanotts import NanoTTS

        self._library, self._espeak = NanoTTS(), espeak

    def say(self, text: str, speaker: Speaker) -> Spoken:
        """Speak a line in the voice `speaker.voice`. Its phonemes are not told."""
        tempo = speaker.tempo / speaker.shift
        read = " ".join(pronounceable(word) for word in text.split())
        sound = self._library.speak(read, voice=speaker.voice, speed=tempo, pitch=speaker.pitch_factor, volume=VOLUME)
        pcm = np.frombuffer(sound, dtype=np.int16).astype(np.float32) / np.float32(32768)
        spoken = finished(pcm, RATE, [], [], speaker.shift)
        reading = self._espeak.say(text, Speaker("", tempo=speaker.tempo))
        return Spoken(spoken.pcm, aligned(reading.pcm, reading.words, spoken.pcm), ())
