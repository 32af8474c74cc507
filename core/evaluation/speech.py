"""Who speaks when: on plain sound, by its level."""

import numpy as np
import numpy.typing as npt

from core.engine.call import FRAME_S, FRAME_SAMPLES

Samples = npt.NDArray[np.float32]
"""Sound at 24 kHz, mono, full scale at 1.0."""
Activity = npt.NDArray[np.bool_]
"""For each frame of 80 ms, whether somebody speaks."""

LOUD = 0.01
"""Root mean square of a frame in which somebody speaks: 19 dB below the common loudness of speech."""
EARLY_S = 0.3
"""An answer may begin so long before the caller's last sound has died away."""
OVERLAP_S = 0.24
"""So much speech of the agent within the caller's is no talking over: an end that overlaps, a short sound."""


def levels(pcm: Samples) -> npt.NDArray[np.float32]:
    """The root mean square of each whole frame."""
    frames = pcm[: len(pcm) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    return np.asarray(np.sqrt((frames**2).mean(axis=1)), dtype=np.float32)


def activity(pcm: Samples) -> Activity:
    """In which frames somebody speaks. What is loud for one frame only is a click; a rest of a frame is left out."""
    loud = levels(pcm) > LOUD
    beside = np.zeros_like(loud)
    beside[1:] |= loud[:-1]
    beside[:-1] |= loud[1:]
    active: Activity = loud & beside
    return active


def stretches(active: Activity, gap_s: float) -> list[tuple[int, int]]:
    """Where somebody speaks, as frames (begin, end); pauses shorter than `gap_s` are part of it."""
    found: list[tuple[int, int]] = []
    for frame in np.flatnonzero(active).tolist():
        if found and (frame - found[-1][1]) * FRAME_S < gap_s:
            found[-1] = found[-1][0], frame + 1
        else:
            found.append((frame, frame + 1))
    return found


def answer_delay(active: Activity, end: int, until: int) -> float | None:
    """Seconds from the caller's end, frame `end`, to where the agent begins to speak, before frame `until`.

    Negative where it begins shortly before that end. None where it does not begin, also where it has been speaking all
    along.
    """
    first = max(1, end - round(EARLY_S / FRAME_S))
    for frame in range(first, min(until, len(active))):
        if active[frame] and not active[frame - 1]:
            return (frame - end) * FRAME_S
    return None


def is_talked_over(active: Activity, begin: int, end: int) -> bool:
    """Whether the agent speaks while the caller does, from frame `begin` to `end`."""
    return float(active[begin:end].sum()) * FRAME_S > OVERLAP_S
