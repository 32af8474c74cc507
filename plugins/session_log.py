"""Log a line when a session starts, one with a summary when it ends, and one for each failure in between.

Every such line carries the session's id. A call that was refused has a line, too. What is said, the prompt and secrets
are never logged.
"""

import logging
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from core import (
    CallRefused,
    FirstAudio,
    FrameTimed,
    HandlerFailed,
    ServiceEvent,
    SessionDropped,
    SessionEnded,
    SessionEvent,
    SessionInfo,
    SessionQueued,
    SessionReady,
    SessionResumed,
    SessionStarted,
    SessionWarned,
    TransformFailed,
    get_logger,
    hookimpl,
)

MAX_FRAME_TIMES = 3000
"""How many frame times of each session the summary covers: those of the last four minutes."""


@dataclass
class _Running:
    """What the summary needs of a session that has not ended."""

    times: dict[str, float] = field(default_factory=dict)
    frames_ms: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_FRAME_TIMES))


class Plugin:
    """Collects the times of each session until it ends."""

    def __init__(self) -> None:
        self._running: dict[str, _Running] = {}
        self._log = get_logger("session")

    @hookimpl
    def service_event(self, event: ServiceEvent) -> None:
        if isinstance(event, CallRefused):
            where = {"route": event.route, "address": event.address}
            if event.setting:  # which the operator may want to change
                where["setting"] = event.setting
            self._log.info("call refused", reason=event.reason, status=event.status, **where)

    @hookimpl
    def session_event(self, session: SessionInfo, event: SessionEvent) -> None:
        running = self._running.get(session.id) or _Running()
        log = self._log.bind(session=session.id)
        match event:
            case FrameTimed(total_ms=total):
                running.frames_ms.append(total)
            case SessionQueued(place=place):
                log.debug("session queued", place=place)
            case SessionStarted(waited_ms=waited, seed=seed):
                running.times["waited_ms"] = waited
                self._running[session.id] = running
                log.info(
                    "session started",
                    identity=session.identity.name,
                    address=session.address,
                    route=session.route,
                    audio=session.audio,
                    persona=session.persona,
                    voice=session.voice,
                    seed=seed,
                    waited_ms=round(waited),
                )
            case SessionReady(prompt_ms=prompt):
                running.times["prompt_ms"] = prompt
            case FirstAudio(after_ms=after):
                running.times["first_audio_ms"] = after
            case SessionWarned(limit=limit, seconds=seconds):
                log.debug("session warned", limit=limit, seconds=seconds)
            case SessionDropped(code=code):
                log.info("connection lost, the call is kept", code=int(code))
            case SessionResumed(away_s=away):
                log.info("call picked up again", away_s=round(away, 1))
            case TransformFailed(plugin=plugin, reason=reason):
                log.warning("transform left out", plugin=plugin, reason=reason)
            case HandlerFailed(plugin=plugin, reason=reason):
                log.warning("handler left out", plugin=plugin, reason=reason)
            case SessionEnded():
                self._running.pop(session.id, None)
                summary = {name: round(value) for name, value in running.times.items()}
                if running.frames_ms:
                    p50, p99 = np.percentile(list(running.frames_ms), (50, 99))
                    summary |= {"frame_ms_p50": round(p50), "frame_ms_p99": round(p99)}
                log.log(
                    logging.ERROR if event.error else logging.INFO,
                    "session ended",
                    reason=event.reason,
                    code=int(event.code),
                    seconds=round(event.seconds, 1),
                    frames_in=event.frames_in,
                    frames_out=event.frames_out,
                    dropped=event.dropped,
                    **({"error": event.error} if event.error else {}),
                    **({"detail": event.detail} if event.detail else {}),
                    **summary,
                )
