"""Keep the agent's loudness even: a slow gain toward a target level, and a limiter that prevents clipping.

Only speech is amplified, which is what stands out from the background of the last seconds. Silence and steady noise
are not.
"""

import math
from collections import deque

import msgspec
import numpy as np

from core import FRAME_SAMPLES, Frame, hookimpl

FLOOR_FRAMES = 38
"""The quietest of the last 38 frames (3 s) is the background: nobody speaks for 3 s without a gap between words."""
SPEECH_OVER_FLOOR_DB = 10.0
"""A frame this much louder than the background is speech."""
SPEECH_DB = -50.0
"""A frame that is quieter than this is never speech."""
SMOOTHING = 0.05
"""Weight of each frame of speech in the average level: a time constant of 20 frames of speech, 1.6 s."""
GAIN_STEP_DB = 0.4
"""How far the gain for speech moves in a frame at most: 5 dB a second, too slow to be noticed."""
HOLD_FRAMES = 6
"""The gain stays as it is in a gap between words of up to 6 frames, half a second."""
RELEASE_DB = 1.0
"""How fast the gain goes back to zero in a longer silence, per frame."""
ATTACK_DB = 6.0
"""How fast the gain comes back when speech goes on, per frame: 12 dB take two frames, 160 ms."""
CEILING = 0.89
"""-1 dBFS, so that the peaks that Opus and resamplers add stay below full scale."""
KNEE = 0.7
"""Samples beyond this are compressed toward the ceiling."""
DUCK_SAMPLES = 240
"""10 ms: how fast the gain is reduced for a peak, slow enough that it does not click."""


class Plugin:
    """Creates a leveller for the agent's voice in each session."""

    class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """`target_db`: the level of speech to reach, RMS to full scale. `max_gain_db`: the largest gain, up or down."""

        target_db: float = -22.0
        max_gain_db: float = 12.0

        def __post_init__(self) -> None:
            if not -60 <= self.target_db <= -10:
                raise ValueError(f"target_db must lie between -60 and -10, not {self.target_db}.")
            if not 0 <= self.max_gain_db <= 30:
                raise ValueError(f"max_gain_db must lie between 0 and 30, not {self.max_gain_db}.")

    def __init__(self, options: Options) -> None:
        self._options = options

    @hookimpl
    def transform_output(self) -> "Leveller":
        return Leveller(self._options.target_db, self._options.max_gain_db)


class Leveller:
    """The transform of one session. `gain_db` is the gain at the end of the last frame."""

    def __init__(self, target_db: float, max_gain_db: float) -> None:
        self.gain_db = 0.0
        self._target_db = target_db
        self._max_gain_db = max_gain_db
        self._speech_gain_db = 0.0
        self._speech_power = 0.0
        self._speech_frames = 0
        self._levels: deque[float] = deque(maxlen=FLOOR_FRAMES)
        self._quiet_frames = 0
        self._last_factor = 1.0

    def process(self, frame: Frame) -> Frame:
        """Transform one frame, float32[1920]."""
        power = float(np.mean(np.square(frame, dtype=np.float64)))
        level = _decibel(power)
        self._levels.append(level)
        if level > max(SPEECH_DB, min(self._levels) + SPEECH_OVER_FLOOR_DB):
            self._quiet_frames = 0
            self._follow_level(power)
            self.gain_db = _toward(self.gain_db, self._speech_gain_db, ATTACK_DB)
        else:
            self._quiet_frames += 1
            if self._quiet_frames > HOLD_FRAMES:
                self.gain_db = _toward(self.gain_db, min(self._speech_gain_db, 0.0), RELEASE_DB)
        return self._apply(frame)

    def _follow_level(self, power: float) -> None:
        """Include a frame of speech in the average level, the first with more weight, and move the gain for speech."""
        self._speech_frames += 1
        self._speech_power += max(SMOOTHING, 1 / self._speech_frames) * (power - self._speech_power)
        wanted = self._target_db - _decibel(self._speech_power)
        wanted = min(max(wanted, -self._max_gain_db), self._max_gain_db)
        self._speech_gain_db = _toward(self._speech_gain_db, wanted, GAIN_STEP_DB)

    def _apply(self, frame: Frame) -> Frame:
        """The frame with the gain applied, starting at the last frame's gain, and with its peaks limited."""
        ramp = FRAME_SAMPLES
        peak = float(np.max(np.abs(frame)))
        if peak * _factor(self.gain_db) > CEILING:
            self.gain_db = 20 * math.log10(CEILING / peak)
            self._speech_gain_db = min(self._speech_gain_db, self.gain_db)
            ramp = DUCK_SAMPLES
        gain = np.full(FRAME_SAMPLES, _factor(self.gain_db), dtype=np.float32)
        gain[:ramp] = np.linspace(self._last_factor, gain[-1], ramp, dtype=np.float32)
        self._last_factor = float(gain[-1])
        louder = frame * gain
        magnitude = np.abs(louder)
        compressed = KNEE + (CEILING - KNEE) * np.tanh((magnitude - KNEE) / (CEILING - KNEE))
        return np.where(magnitude > KNEE, np.copysign(compressed, louder), louder).astype(np.float32)


def _toward(value: float, goal: float, step: float) -> float:
    return value + min(max(goal - value, -step), step)


def _decibel(power: float) -> float:
    return 10 * math.log10(power + 1e-12)


def _factor(decibel: float) -> float:
    return float(10 ** (decibel / 20))
