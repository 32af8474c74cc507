"""Sound files for the command line: reads every common format, writes WAV."""

import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import sphn

from core.engine.call import SAMPLE_RATE
from core.errors import AudioError
from core.media.audio_codecs import Samples


def read_sound(path: Path) -> Samples:
    """The sound in a WAV, FLAC, MP3 or Ogg file, mixed to mono, at 24 kHz. Raises AudioError."""
    if not path.is_file():
        raise AudioError(f"{path}: there is no such file.")
    try:
        channels, _ = sphn.read(str(path), sample_rate=SAMPLE_RATE)
    except Exception as error:  # the decoder raises bare exceptions of its own
        raise AudioError(f"{path}: not a sound file that can be read: {error}. Save it as a PCM .wav file.") from None
    samples: Samples = np.asarray(channels, np.float32).mean(axis=0)
    if samples.size == 0 or not np.isfinite(samples).all():
        raise AudioError(f"{path}: has no sound in it.")
    return samples


def write_wav(path: Path, channels: npt.NDArray[np.float32]) -> None:
    """Write float32[channels, n] as 16-bit PCM at 24 kHz. Raises AudioError."""
    samples = (np.clip(channels, -1, 1) * 32767).round().astype("<i2")
    try:
        with path.open("wb") as raw, wave.open(raw, "wb") as file:
            file.setnchannels(len(samples))
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(samples.T.tobytes())
    except OSError as error:
        raise AudioError(f"{path}: cannot be written: {error.strerror or error}.") from None


def to_stereo(left: Samples, right: Samples) -> npt.NDArray[np.float32]:
    """Two sides as the channels of one sound, float32[2, n]; the shorter one is padded with silence."""
    length = max(len(left), len(right))
    return np.stack([np.pad(side, (0, length - len(side))) for side in (left, right)])
