"""Whisper writes down what it hears, by the package `faster-whisper`."""

import os
from typing import Any

import soxr

from core.engine.call import SAMPLE_RATE
from core.evaluation.speech import Samples

WHISPER_RATE = 16_000


class Whisper:
    """Hears English."""

    def __init__(self, model: str = "tiny.en") -> None:
        """`model` is a name that `faster-whisper` can download, or a folder. Raises ImportError without the package."""
        from faster_whisper import WhisperModel

        threads = os.cpu_count() or 1
        self._model: Any = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=threads)

    def hear(self, pcm: Samples) -> str:
        """What is said in float32[samples] at 24 kHz."""
        sound = soxr.resample(pcm, SAMPLE_RATE, WHISPER_RATE)
        pieces, _ = self._model.transcribe(
            sound, language="en", beam_size=1, without_timestamps=True, condition_on_previous_text=False
        )
        return " ".join(piece.text.strip() for piece in pieces)
