"""The caller's frames that the engine has and has not answered yet: the lag of a call, and the time each frame took."""

from collections import deque
from dataclasses import dataclass

from core.engine.call import FRAME_S, OutputFrame
from core.events import FrameTimed
from core.plugin.transforms import Times
from core.session.audio_streams import EncodedFrame


@dataclass(frozen=True)
class FrameInFlight:
    """A frame of the caller on its way through the engine."""

    received: float
    """When the message that completed it came, as `time.monotonic` tells it."""
    decode_ms: float
    transforms: Times

    def timed(self, output: OutputFrame, encoded: EncodedFrame, sent: float, lag_ms: float) -> FrameTimed:
        """The event for this frame, whose answer was handed to the socket at `sent`."""
        transforms = self.transforms + encoded.transforms
        return FrameTimed(
            decode_ms=self.decode_ms,
            transform_ms=sum(ms for _, ms in transforms),
            wait_ms=output.wait_ms,
            step_ms=output.step_ms,
            encode_ms=encoded.encode_ms,
            total_ms=(sent - self.received) * 1000,
            lag_ms=lag_ms,
            transforms=transforms,
        )


class FramesInFlight:
    """The frames in flight of one call, oldest first."""

    def __init__(self) -> None:
        self._frames: deque[FrameInFlight] = deque()
        self._next_index = 0
        """The index of the output frame that answers the oldest one."""

    @property
    def lag_ms(self) -> float:
        """How much of the caller's audio waits for its answer."""
        return len(self._frames) * FRAME_S * 1000

    def push(self, frame: FrameInFlight, dropped: int) -> None:
        """Add a frame that was given to the engine, which dropped that many of the oldest to bound the lag."""
        self._frames.append(frame)
        for _ in range(min(dropped, len(self._frames))):
            self._frames.popleft()

    def answered(self, output: OutputFrame) -> FrameInFlight | None:
        """Remove and return the frame that `output` answers, and remove those whose answers the engine left out."""
        frame = None
        while self._frames and self._next_index <= output.index:
            frame = self._frames.popleft()
            self._next_index += 1
        return frame
