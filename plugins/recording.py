"""Records calls: a stereo FLAC file a call, the caller left and the agent right, and a JSON Lines transcript beside it.

Off until `plugins: {options: {recording: {enabled: true}}}`. Files are written as the call goes on, so a process that
dies loses less than a second. A disk that fills, or is too slow, ends recordings and never calls.
"""

import asyncio
import contextlib
import errno
import json
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE, Frame
from core.events import SessionEnded, SessionEvent, SessionInfo, SessionReady, TextSaid, TransformFailed
from core.media.flac import FlacWriter, create
from core.plugin.hookspecs import hookimpl
from core.settings.config import Config
from core.settings.log import get_logger

SIDES = ("caller", "agent")
MOST_WAITING = 4096
"""Pieces that wait for the disk, of all calls together (about 16 MB); frames beyond that are recorded as silence, which
the log and the transcript say."""
BEHIND_S = 0.4
"""A side that is so far behind the clock has said nothing: it gets silence, so that the file goes on."""
TICK_S = 0.2
"""How long the disk's thread waits for something to write before it looks after calls in which nothing is said."""
STOP_S = 10.0

Pcm = npt.NDArray[np.int16]


@dataclass(frozen=True)
class _Piece:
    """Something that happened in a call, on its way to the disk."""

    session: SessionInfo
    kind: Literal["ready", "caller", "agent", "text", "lost", "end"]
    content: Any = None
    """int16[1920] of a side, text, how many pieces of each kind were lost, or why."""


class Plugin:
    """Hands copies of frames and words to a thread that writes them."""

    class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """`folder`: relative to config.yaml. `notice`: what callers are told before they call."""

        enabled: bool = False
        folder: str = "recordings"
        notice: str = "Calls are recorded: both voices, and the agent's words."

        def __post_init__(self) -> None:
            if self.enabled and not self.notice.strip():
                raise ValueError("notice must say to callers that they are recorded.")

    def __init__(self, options: Options) -> None:
        self.enabled = options.enabled
        self._options = options
        self._writer: Writer | None = None

    @hookimpl
    async def startup(self, config: Config, engine: object) -> None:
        if engine is not None:
            base = Path(config.source).parent
            self._writer = await asyncio.to_thread(lambda: Writer(base / Path(self._options.folder).expanduser()))

    @hookimpl
    async def shutdown(self) -> None:
        if self._writer is not None:
            await asyncio.to_thread(self._writer.stop)

    @hookimpl
    def notices(self) -> list[str]:
        return [self._options.notice]

    @hookimpl
    def problems(self) -> list[str]:
        return [self._writer.problem] if self._writer and self._writer.problem else []

    @hookimpl(trylast=True)
    def transform_input(self, session: SessionInfo) -> "Tap | None":
        return Tap(self._writer, session, "caller") if self._writer else None

    @hookimpl(trylast=True)
    def transform_output(self, session: SessionInfo) -> "Tap | None":
        return Tap(self._writer, session, "agent") if self._writer else None

    @hookimpl
    def session_event(self, session: SessionInfo, event: SessionEvent) -> None:
        if self._writer is None:
            return
        match event:
            case SessionReady():
                self._writer.put(_Piece(session, "ready"))
            case TransformFailed(plugin="recording", reason=failed):
                self._writer.put(_Piece(session, "lost", failed))
            case TextSaid(text=text):
                self._writer.put(_Piece(session, "text", text))
            case SessionEnded(reason=reason):
                self._writer.put(_Piece(session, "end", reason))


class Tap:
    """Copies a side's frames, which nobody changes by it."""

    observes = True

    def __init__(self, writer: "Writer", session: SessionInfo, side: Literal["caller", "agent"]) -> None:
        self._writer = writer
        self._session = session
        self._side = side

    def process(self, frame: Frame) -> Frame:
        """Take and return float32[1920]."""
        pcm = (np.clip(frame, -1, 1) * 32767).astype(np.int16)
        self._writer.put(_Piece(self._session, self._side, pcm))
        return frame


class Writer:
    """One thread that writes the recordings of all calls. `problem` says why the last one that failed did."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder when it is not there. Raises OSError."""
        folder.mkdir(0o700, parents=True, exist_ok=True)
        self.problem = ""
        self._folder = folder
        self._pieces: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._recordings: dict[str, Recording | None] = {}
        """Of the calls that run; None for one whose recording has failed."""
        self._ended: deque[str] = deque(maxlen=1000)
        """Calls whose last frames may still come."""
        self._lost: dict[str, dict[str, int]] = {}
        """How many pieces of each kind were left out of a call since its last one."""
        self._losing = threading.Lock()
        self._log = get_logger("recording")
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    def put(self, piece: _Piece) -> None:
        """Hand a piece over, from any thread. Never waits: what is too much for the disk is left out."""
        id_ = piece.session.id
        if piece.kind != "end" and self._pieces.qsize() >= MOST_WAITING:
            with self._losing:
                lost = self._lost.setdefault(id_, {})
                lost[piece.kind] = lost.get(piece.kind, 0) + 1
            return
        if id_ in self._lost:
            with self._losing:
                self._pieces.put(_Piece(piece.session, "lost", self._lost.pop(id_, {})))
        self._pieces.put(piece)

    def stop(self) -> None:
        """Write what waits, and end all recordings. Blocks until that is done, at most for some seconds."""
        self._pieces.put(None)
        self._thread.join(STOP_S)

    def _run(self) -> None:
        looked = time.monotonic()
        while True:
            try:
                piece = self._pieces.get(timeout=TICK_S)
            except queue.Empty:
                pass
            else:
                if piece is None:
                    break
                self._write(piece)
            if time.monotonic() - looked >= TICK_S and self._pieces.empty():  # else what was said waits to be written
                looked = time.monotonic()
                for id_ in list(self._recordings):
                    self._try(id_, Recording.keep_up)
        for id_ in list(self._recordings):
            self._try(id_, lambda recording: recording.end("shutdown"))

    def _write(self, piece: _Piece) -> None:
        id_ = piece.session.id
        if id_ in self._ended:
            return
        if piece.kind != "end" and id_ not in self._recordings:
            self._recordings[id_] = None
            try:
                self._recordings[id_] = Recording(self._folder, piece.session)
            except Exception as error:  # as in `_try`
                self._fail(id_, error)
        if piece.kind == "end":
            self._try(id_, lambda recording: recording.end(piece.content))
            self._recordings.pop(id_, None)
            self._ended.append(id_)
        elif piece.kind == "text":
            self._try(id_, lambda recording: recording.say(piece.content))
        elif piece.kind == "lost":
            self._log.error("recording incomplete", session=id_, lost=piece.content)
            self._try(id_, lambda recording: recording.lose(piece.content))
        elif piece.kind in SIDES:
            self._try(id_, lambda recording: recording.hear(SIDES.index(piece.kind), piece.content))

    def _try(self, id_: str, work: "Callable[[Recording], None]") -> None:
        recording = self._recordings.get(id_)
        if recording is None:
            return
        try:
            work(recording)
            self.problem = ""
        except Exception as error:  # a recording may fail in any way: the others and all calls go on
            self._recordings[id_] = None
            with contextlib.suppress(OSError):  # the same one, most likely
                recording.close()
            self._fail(id_, error)

    def _fail(self, id_: str, error: Exception) -> None:
        what = (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"
        self.problem = f"A recording has stopped: {self._folder}: {what}. Calls go on without."
        self._log.error("recording stopped", session=id_, error=what)


class Recording:
    """The two files of one call. Raises OSError wherever the disk does."""

    def __init__(self, folder: Path, session: SessionInfo, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._tracks: tuple[list[Pcm], list[Pcm]] = ([], [])
        """What each side has said that is not written."""
        self._said = [0, 0]
        """Samples of each side, silence included."""
        self._written = 0
        with ExitStack() as opened:
            transcript = os.fdopen(create(folder / f"{session.id}.jsonl"), "wb", buffering=0)
            self._transcript = opened.enter_context(transcript)
            self._flac = FlacWriter(folder / f"{session.id}.flac", SAMPLE_RATE, channels=2)
            opened.callback(self._flac.close)
            self._note(
                type="call",
                session=session.id,
                began=datetime.now(UTC).isoformat(timespec="milliseconds"),
                identity=session.identity.name,
                persona=session.persona,
                voice=session.voice,
            )
            self._opened = opened.pop_all()

    def hear(self, side: int, pcm: Pcm) -> None:
        """Take a frame of the caller (0) or the agent (1)."""
        self._add(side, pcm)
        self._flush()

    def lose(self, lost: "Mapping[str, int] | str") -> None:
        """Say in the transcript what is missing from here on: so many frames of each side, which are silence, and
        words; or why nothing more of a side can come."""
        if isinstance(lost, str):
            self._note(type="lost", at=self._seconds(min(self._said)), reason=lost)
            return
        self._note(type="lost", at=self._seconds(min(self._said)), reason="The disk is too slow.", **lost)
        for side, name in enumerate(SIDES):
            if lost.get(name):
                self._add(side, np.zeros(lost[name] * FRAME_SAMPLES, np.int16))

    def say(self, text: str) -> None:
        """Take a piece of the agent's words, which belongs to the agent's last frame."""
        self._note(type="text", at=self._seconds(self._said[1] - FRAME_SAMPLES), text=text)

    def keep_up(self) -> None:
        """Fill what nobody said with silence."""
        due = int((self._clock() - self._began - BEHIND_S) * SAMPLE_RATE)
        for side in range(2):
            if self._said[side] < due:
                self._add(side, np.zeros(due - self._said[side], np.int16))
        self._flush()

    def end(self, reason: str) -> None:
        """Write the rest, and close."""
        longer = max(*self._said, FRAME_SAMPLES)  # a file without a sample is none
        for side in range(2):
            self._add(side, np.zeros(longer - self._said[side], np.int16))
        self._flush()
        self._note(type="end", at=self._seconds(longer), reason=reason)
        self.close()

    def close(self) -> None:
        """Close both files as they are."""
        self._opened.close()

    def _add(self, side: int, pcm: Pcm) -> None:
        self._tracks[side].append(pcm)
        self._said[side] += len(pcm)

    def _flush(self) -> None:
        """Write as far as both sides are known."""
        ready = min(self._said) - self._written
        if ready <= 0:
            return
        stereo = np.empty((ready, 2), np.int16)
        for side, track in enumerate(self._tracks):
            samples = np.concatenate(track)
            stereo[:, side] = samples[:ready]
            track[:] = [samples[ready:]]
        self._flac.write(stereo)
        self._written += ready

    def _note(self, **values: Any) -> None:
        line = json.dumps(values, ensure_ascii=False).encode() + b"\n"
        if self._transcript.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @staticmethod
    def _seconds(samples: int) -> float:
        return round(max(samples, 0) / SAMPLE_RATE, 2)
