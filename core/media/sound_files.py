"""Sound files for the command line: reads every common format, writes WAV."""

import math
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from core.engine.call import SAMPLE_RATE
from core.errors import AudioError
from core.media.audio_codecs import Samples

LOWEST_RATE = 2_000
HIGHEST_RATE = 768_000
"""Hz: what sound cards and telephones use lies between. A broken header may say anything."""
MOST_CHANNELS = 64
BLOCK_S = 1.0
"""How much is decoded at a time, so that a file of unknown length is read no further than it may be."""


def read_sound(path: Path) -> Samples:
    """The sound in a WAV, FLAC, MP3 or Ogg file, mixed to mono, at 24 kHz. Raises AudioError."""
    samples: Samples = read_channels(path).mean(axis=0, dtype=np.float32)
    if samples.size == 0 or not np.isfinite(samples).all():
        raise AudioError(f"{path}: has no sound in it.")
    return samples


def read_channels(path: Path, longest_s: float | None = None) -> npt.NDArray[np.float32]:
    """float32[channels, n] at 24 kHz of a sound file, where it is no longer than `longest_s`. Raises AudioError.

    The length is that of the data: what wrote the file into a pipe could not know it, and put anything in the header.
    """
    if not path.is_file():
        raise AudioError(f"{path}: there is no such file.")
    try:
        with soundfile.SoundFile(path) as file:
            rate, channels = file.samplerate, file.channels
            if not LOWEST_RATE <= rate <= HIGHEST_RATE:
                raise AudioError(f"{path}: says that it has {rate} samples a second. Save it again as a PCM .wav file.")
            if not 1 <= channels <= MOST_CHANNELS:
                raise AudioError(f"{path}: says that it has {channels} channels. Save it as mono or stereo.")
            pieces = [np.empty((0, channels), np.float32)]
            left = math.inf if longest_s is None else longest_s * rate
            while len(piece := file.read(round(BLOCK_S * rate), dtype="float32", always_2d=True)):
                left -= len(piece)
                if left < 0:
                    raise AudioError(f"{path}: longer than {longest_s:g} s. Cut it to {longest_s:g} s or less.")
                pieces.append(piece)
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"{path}: not a sound file that can be read: {error}. Save it as a PCM .wav file.") from None
    # soxr takes its filter's delay out at both ends, so that sound stays where it is
    resampled = soxr.resample(np.concatenate(pieces), rate, SAMPLE_RATE)
    return np.ascontiguousarray(resampled.T, np.float32)


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
