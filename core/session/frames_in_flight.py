"""The caller's frames that the engine has and has not answered yet: the lag of a call, and the time each frame took."""

from collections import deque
from dataclasses import dataclass

from core.engine.call import FRAME_S, OutputFrame
from core.events import FrameTimed
from core.plugin.transforms import Times
from core.session.outgoing import EncodedFrame


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
    """The frames of one call that were given to the engine and are not settled: neither answered nor dropped."""

    def __init__(self) -> None:
        self._frames: deque[FrameInFlight] = deque()
        """Oldest first; those that were dropped stay until a later one is answered."""
        self._pushed = self._settled = self._answered = 0
        self._reported = 0
        """How many were dropped, as the engine said when frames were pushed."""

    @property
    def dropped(self) -> int:
        """How many of the frames were dropped so far: as the engine said, or as its answers show."""
        return max(self._reported, self._settled - self._answered)

    @property
    def lag_ms(self) -> float:
        """How much of the caller's audio waits for its answer."""
        return (self._pushed - self._answered - self.dropped) * FRAME_S * 1000

    def push(self, frame: FrameInFlight, dropped: int) -> None:
        """Add a frame that was given to the engine, which has dropped that many older ones since the last."""
        self._frames.append(frame)
        self._pushed += 1
        self._reported += dropped

    def answered(self, output: OutputFrame) -> FrameInFlight | None:
        """Remove and return the frame that `output` answers, and remove all before it: they were dropped, or their
        answers were left out."""
        self._answered = output.index + 1
        settled = output.index + 1 + self._reported if output.position is None else output.position + 1
        frame = None
        while self._frames and self._settled < settled:
            frame = self._frames.popleft()
            self._settled += 1
        return frame
