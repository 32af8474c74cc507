"""flite, a small synthesizer with recorded people's voices (CMU, BSD-like licence), out of its shared libraries.

Debian's package `libflite1` has them. They are looked for in a folder, or else where the system has its libraries.
"""

import ctypes
from pathlib import Path
from typing import Any

import click
import numpy as np

from training.teachers import Spoken, finished, pronounceable
from training.voices import Speaker

_FIRST_PHONEME = b"daughter1.R:SylStructure.daughter1.daughter1.R:Segment.p.end"
"""Where flite notes when a token begins: the end of the segment before its first word's first one."""
_POINTER = ctypes.c_void_p


class _Wave(ctypes.Structure):
    """flite's `cst_wave` (cst_wave.h)."""

    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _Voice(ctypes.Structure):
    """The beginning of flite's `cst_voice` (cst_voice.h)."""

    _fields_ = (("name", ctypes.c_char_p), ("features", _POINTER))


class Flite:
    """flite's voices, each loaded when it first speaks. `folder` holds `libflite*.so.1`; None means the system's.

    Raises click.ClickException where they are missing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        if folder is not None and (folder / "libasound.so.2").exists():
            ctypes.CDLL(str(folder / "libasound.so.2"), mode=ctypes.RTLD_GLOBAL)  # flite wants it, even in silence.
        self._library = self._load("flite")
        for name in ("flite_usenglish", "flite_cmulex"):
            self._load(name)
        for name, result, *arguments in (
            ("flite_synth_text", _POINTER, ctypes.c_char_p, _POINTER),
            ("utt_wave", ctypes.POINTER(_Wave), _POINTER),
            ("utt_relation", _POINTER, _POINTER, ctypes.c_char_p),
            ("relation_head", _POINTER, _POINTER),
            ("item_next", _POINTER, _POINTER),
            ("ffeature_float", ctypes.c_float, _POINTER, ctypes.c_char_p),
            ("feat_set_float", None, _POINTER, ctypes.c_char_p, ctypes.c_float),
            ("delete_utterance", None, _POINTER),
        ):
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
        self._library.flite_init()
        self._voices: dict[str, _Voice] = {}

    def say(self, text: str, speaker: Speaker) -> Spoken:
        """Speak a line in the voice `speaker.voice`. Its phonemes are not told."""
        voice = self._voice(speaker.voice)
        self._library.feat_set_float(voice.features, b"duration_stretch", speaker.shift / speaker.tempo)
        words = [pronounceable(word) for word in text.split()]
        utterance = self._library.flite_synth_text(" ".join(words).encode(), ctypes.byref(voice))
        wave = self._library.utt_wave(utterance).contents
        pcm = np.ctypeslib.as_array(wave.samples, (wave.num_samples,)).astype(np.float32) / np.float32(32768)
        starts, token = [], self._library.relation_head(self._library.utt_relation(utterance, b"Token"))
        while token:
            starts.append(self._library.ffeature_float(token, _FIRST_PHONEME))
            token = self._library.item_next(token)
        rate = wave.sample_rate
        self._library.delete_utterance(utterance)
        if len(starts) != len(words):
            letters = np.cumsum([0, *(len(word) + 1 for word in words)])
            starts = list(letters[:-1] / letters[-1] * len(pcm) / rate)
        return finished(pcm, rate, np.maximum.accumulate(starts).tolist(), [], speaker.shift)

    def _voice(self, name: str) -> _Voice:
        if name not in self._voices:
            register = getattr(self._load(f"flite_cmu_us_{name}"), f"register_cmu_us_{name}")
            register.restype, register.argtypes = ctypes.POINTER(_Voice), [_POINTER]
            self._voices[name] = register(None).contents
        return self._voices[name]

    def _load(self, name: str) -> Any:
        file = f"lib{name}.so.1"
        try:
            return ctypes.CDLL(str(self._folder / file) if self._folder else file, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise click.ClickException(
                f"flite cannot be loaded ({error}). Install Debian's package libflite1, or name the folder with its "
                "libraries by --flite."
            ) from None
