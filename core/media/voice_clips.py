"""Reads a voice clip: a short recording of a speaker (`.wav`), which the engine's codec encodes as a voice prompt."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from core.engine.call import SAMPLE_RATE
from core.errors import AudioError, VoiceError
from core.media.sound_files import read_channels

LOUDNESS_LUFS = -24.0
"""The loudness that the model's own voice prompts have."""
MIN_SECONDS = 1.0
MAX_SECONDS = 60.0
MAX_BYTES = 256 * 2**20
SILENCE_LUFS = -60.0
CLIPPED_LEVEL = 0.999
MAX_CLIPPED = 0.001
"""The share of samples at full scale above which a clip sounds distorted; undistorted speech rarely reaches it."""


def read_voice_clip(path: Path) -> npt.NDArray[np.float32]:
    """The clip in a sound file: float32[n], mono, 24 kHz, -24 LUFS.

    Raises VoiceError when the file cannot be read, or is too short, too long, silent or clipped. Blocks on the disk.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise VoiceError(f"{path}: cannot be read: {error.strerror or error}.") from None
    if size > MAX_BYTES:
        raise VoiceError(f"{path}: larger than {MAX_BYTES // 2**20} MiB; cut it to {MAX_SECONDS:.0f} s or less.")
    try:
        channels = read_channels(path, MAX_SECONDS)
    except AudioError as error:
        raise VoiceError(f"{error} A voice is 1 to {MAX_SECONDS:.0f} s of one speaker; 5 to 15 s are best.") from None
    return prepare_voice_clip(channels, str(path))


def prepare_voice_clip(samples: npt.NDArray[np.float32], source: str) -> npt.NDArray[np.float32]:
    """A clip, float32[n], from float32[channels, n] at 24 kHz. Raises VoiceError, naming `source`."""
    mono = samples.mean(axis=0, dtype=np.float32)
    seconds = len(mono) / SAMPLE_RATE
    if seconds < MIN_SECONDS:
        raise VoiceError(f"{source}: {seconds:.2f} s long. Record at least {MIN_SECONDS:.0f} s; 5 to 15 s are best.")
    if not np.isfinite(mono).all():
        raise VoiceError(f"{source}: has samples that are not numbers. Save it again as a PCM .wav file.")
    clipped = float((np.abs(samples) >= CLIPPED_LEVEL).mean())
    if clipped > MAX_CLIPPED:
        raise VoiceError(
            f"{source}: clipped ({clipped:.1%} of its samples are at full scale). Record it again, more quietly."
        )
    import pyloudnorm  # brings SciPy, which takes seconds to import, and only this needs it

    loudness = float(pyloudnorm.Meter(SAMPLE_RATE).integrated_loudness(mono.astype(np.float64)))
    if not loudness > SILENCE_LUFS:  # also -inf and NaN
        raise VoiceError(f"{source}: silent, or nearly so. Record it again, closer to the microphone.")
    return np.asarray(mono * 10 ** ((LOUDNESS_LUFS - loudness) / 20), dtype=np.float32)
