"""Silence that is silence: clients tell by loudness whether the agent speaks, and a model at rest makes a faint noise.

LiveKit opens a turn above RMS 0.0018 and closes it after 0.8 s below 0.00108; Pipecat counts any peak above 0.0006.
What the model makes while it says nothing is therefore sent as zeros.
"""

import numpy as np

from core import FRAME_SAMPLES, Frame

SPEECH_RMS = 10 ** (-50 / 20)
"""A frame that is quieter than this is no speech, as for the plugin loudness: 0.0032, where nano at rest makes 0.0001,
and half of its frames of speech are above 0.05."""
HOLD_FRAMES = 4
"""So many quiet frames, a third of a second, are sent as they are: the end of a word, the gap before the next."""
TEXT_FRAMES = 6
"""A word begins to sound within half a second of its text; so long the gate stays open for a soft beginning."""
RAMP_SAMPLES = 240
"""10 ms, in which the sound comes and goes, so that it does not click."""


class SilenceGate:
    """One session's gate. Frames go through it in order."""

    def __init__(self) -> None:
        self._quiet = HOLD_FRAMES + 1
        """How many quiet frames have passed without text: at first it is closed."""
        self._since_text = TEXT_FRAMES
        self._was_open = False

    def text(self) -> None:
        """The agent has begun a word."""
        self._since_text = 0

    def process(self, frame: Frame) -> Frame:
        """The frame, or zeros while the agent is at rest."""
        loud = float(np.dot(frame, frame)) >= SPEECH_RMS**2 * FRAME_SAMPLES
        self._quiet = 0 if loud or self._since_text < TEXT_FRAMES else self._quiet + 1
        self._since_text += 1
        is_open, was_open = self._quiet <= HOLD_FRAMES, self._was_open
        self._was_open = is_open
        if is_open == was_open:
            return frame if is_open else np.zeros_like(frame)
        gain = np.full(FRAME_SAMPLES, float(is_open), np.float32)
        gain[:RAMP_SAMPLES] = np.linspace(float(was_open), float(is_open), RAMP_SAMPLES, dtype=np.float32)
        return frame * gain
