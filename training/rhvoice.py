"""RHVoice, a synthesizer that models recorded people's voices statistically, out of its shared library.

The library (1.14, LGPL 2.1 or later; with MAGE, GPL 3) is built from https://github.com/RHVoice/RHVoice; each of its
English voices is a repository beside it. `LICENSE.md` there restricts some voices, but none of those that
`training.voices` names.
"""

import ctypes
from pathlib import Path

import click
import numpy as np

from core.evaluation.speech import Samples
from training.teachers import Spoken, finished, pronounceable, word_begins
from training.voices import Speaker

_POINTER = ctypes.c_void_p
_RATE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, _POINTER)
_PLAY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_uint, _POINTER)
_NAME = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, _POINTER)
_SPAN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint, ctypes.c_uint, _POINTER)
_DONE = ctypes.CFUNCTYPE(None, _POINTER)


class _Callbacks(ctypes.Structure):
    """RHVoice's `RHVoice_callbacks` (RHVoice.h)."""

    _fields_ = (
        ("set_sample_rate", _RATE),
        ("play_speech", _PLAY),
        ("process_mark", _NAME),
        ("word_starts", _SPAN),
        ("word_ends", _SPAN),
        ("sentence_starts", _SPAN),
        ("sentence_ends", _SPAN),
        ("play_audio", _NAME),
        ("done", _DONE),
    )


class _Start(ctypes.Structure):
    """RHVoice's `RHVoice_init_params`."""

    _fields_ = (
        ("data_path", ctypes.c_char_p),
        ("config_path", ctypes.c_char_p),
        ("resource_paths", ctypes.POINTER(ctypes.c_char_p)),
        ("callbacks", _Callbacks),
        ("options", ctypes.c_uint),
    )


class _Manner(ctypes.Structure):
    """RHVoice's `RHVoice_synth_params`."""

    _fields_ = (
        ("voice_profile", ctypes.c_char_p),
        ("absolute_rate", ctypes.c_double),
        ("absolute_pitch", ctypes.c_double),
        ("absolute_volume", ctypes.c_double),
        ("relative_rate", ctypes.c_double),
        ("relative_pitch", ctypes.c_double),
        ("relative_volume", ctypes.c_double),
        ("punctuation_mode", ctypes.c_int),
        ("punctuation_list", ctypes.c_char_p),
        ("capitals_mode", ctypes.c_int),
        ("flags", ctypes.c_int),
    )


class RHVoice:
    """Its English voices. `folder` holds `libRHVoice.so.5`, `libRHVoice_core.so.10`, and `data/` with `languages/` and
    `voices/`.

    Raises click.ClickException where something of it is missing.
    """

    def __init__(self, folder: Path) -> None:
        try:
            ctypes.CDLL(str(folder / "libRHVoice_core.so.10"), mode=ctypes.RTLD_GLOBAL)
            self._library = ctypes.CDLL(str(folder / "libRHVoice.so.5"))
        except OSError as error:
            raise click.ClickException(
                f"RHVoice cannot be loaded ({error}). Build it with training/build_rhvoice.sh, and name the folder "
                "that it makes by --rhvoice."
            ) from None
        self._voices = folder / "data" / "voices"
        self._library.RHVoice_new_tts_engine.restype = _POINTER
        self._library.RHVoice_new_message.restype = _POINTER
        self._library.RHVoice_new_message.argtypes = (
            *(_POINTER, ctypes.c_char_p, ctypes.c_uint, ctypes.c_int),
            *(ctypes.POINTER(_Manner), _POINTER),
        )
        self._library.RHVoice_speak.argtypes = [_POINTER]
        self._library.RHVoice_delete_message.argtypes = [_POINTER]
        # ctypes frees a callback that nobody holds.
        self._callbacks = _Callbacks(
            set_sample_rate=_RATE(self._set_rate), play_speech=_PLAY(self._hear), word_starts=_SPAN(self._note)
        )
        # Without a path of its own it would read the system's configuration.
        data, config = str(folder / "data").encode(), str(folder).encode()
        start = _Start(data_path=data, config_path=config, callbacks=self._callbacks)
        self._engine = self._library.RHVoice_new_tts_engine(ctypes.byref(start))
        if not self._engine:
            raise click.ClickException(f"RHVoice does not start: {folder / 'data'} has no language or no voice of it.")
        self._rate, self._samples = 24_000, 0
        self._chunks: list[Samples] = []
        self._begins: dict[int, float] = {}

    def say(self, text: str, speaker: Speaker) -> Spoken:
        """Speak a line in the voice `speaker.voice`. Its phonemes are not told, and words begin within 0.1 s of where
        they are said to. Raises click.ClickException for a voice that is not there, and where nothing is said.
        """
        if not (self._voices / speaker.voice).is_dir():
            raise click.ClickException(f"RHVoice has no voice {speaker.voice!r} in {self._voices}.")
        words = [pronounceable(word) for word in text.split()]
        content = " ".join(words).encode()
        manner = _Manner(
            voice_profile=speaker.voice.encode(),
            relative_rate=speaker.tempo / speaker.shift,
            relative_pitch=speaker.pitch_factor,
            relative_volume=1.0,
        )
        self._chunks, self._begins, self._samples = [], {}, 0
        message = self._library.RHVoice_new_message(self._engine, content, len(content), 0, ctypes.byref(manner), None)
        self._library.RHVoice_speak(message)
        self._library.RHVoice_delete_message(message)
        if not self._chunks:
            raise click.ClickException(f"RHVoice does not say {text!r} in the voice {speaker.voice!r}.")
        pcm = np.concatenate(self._chunks)
        return finished(pcm, self._rate, word_begins(words, self._begins), [], speaker.shift)

    def _set_rate(self, rate: int, _: object) -> int:
        self._rate = rate
        return 1

    def _hear(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _: object) -> int:
        self._chunks.append(np.ctypeslib.as_array(samples, (count,)).astype(np.float32) / np.float32(32768))
        self._samples += count
        return 1

    def _note(self, position: int, _length: int, _: object) -> int:
        """A word begins whose first character is number `position` of the text."""
        self._begins[position] = self._samples / self._rate
        return 1
