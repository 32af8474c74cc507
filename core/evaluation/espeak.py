"""espeak-ng speaks a text, out of the package `espeakng-loader`: a robot, at hundreds of times real time."""

import ctypes
from typing import Any

import numpy as np
import soxr

from core.engine.call import SAMPLE_RATE
from core.evaluation.speech import Samples

VARIANTS = ("", "f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8")
"""Ways in which a voice can speak; "" is its own."""
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan")
"""Of espeak-ng: American, British, Scottish, received pronunciation, and Lancaster's."""
_SYNCHRONOUS, _PHONEME_EVENTS, _AS_IPA = 2, 1, 2
_RATE, _PITCH = 1, 3
_UTF8 = 1


class Event(ctypes.Structure):
    """espeak-ng's `espeak_EVENT` (speak_lib.h); `id` is a union of a number, a pointer and eight characters."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


class Espeak:
    """The library, loaded once a process. Raises ImportError without the package."""

    def __init__(self) -> None:
        import espeakng_loader

        self.library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        data = str(espeakng_loader.get_data_path()).encode()
        self.rate: int = self.library.espeak_Initialize(_SYNCHRONOUS, 0, data, _PHONEME_EVENTS | _AS_IPA)
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))
        self._callback = kind(self._hear)
        self.library.espeak_SetSynthCallback(self._callback)
        self._chunks: list[Samples] = []

    def _hear(self, wav: Any, count: int, events: Any) -> int:
        if wav and count > 0:
            self._chunks.append(np.ctypeslib.as_array(wav, (count,)).astype(np.float32) / 32768.0)
        place = 0
        while events[place].type != 0:
            self.note(events[place])
            place += 1
        return 0

    def note(self, event: Event) -> None:
        """Something of what is being spoken; by default nothing is done with it."""

    def synthesize(self, text: str, voice: str, words_per_minute: int, pitch: int) -> Samples:
        """The sound of a text at `rate` Hz. `voice` is such as `en-us+f2`; `pitch` is 0-99. Raises ValueError for a
        voice that there is not."""
        if self.library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"espeak-ng has no voice {voice!r}.")
        self._chunks = []
        self.library.espeak_SetParameter(_RATE, words_per_minute, 0)
        self.library.espeak_SetParameter(_PITCH, pitch, 0)
        content = text.encode()
        self.library.espeak_Synth(content, len(content) + 1, 0, 1, 0, _UTF8, None, None)
        return np.concatenate(self._chunks)

    def speak(self, text: str, voice: str, words_per_minute: int = 165, pitch: int = 50) -> Samples:
        """The same at 24 kHz."""
        sound = self.synthesize(text, voice, words_per_minute, pitch)
        return np.asarray(soxr.resample(sound, self.rate, SAMPLE_RATE), dtype=np.float32)
