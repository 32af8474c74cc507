"""Record calls: each as a stereo FLAC file, the caller left and the agent right, with a JSON Lines transcript.

Off until `plugins: {options: {recording: {enabled: true}}}`. Files are written while the call goes on, so a process
that dies loses less than a second. A disk that is full or too slow ends recordings, and never calls.
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
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from core import (
    FRAME_SAMPLES,
    SAMPLE_RATE,
    CallerText,
    Config,
    ConfigError,
    FlacWriter,
    Frame,
    SessionEnded,
    SessionEvent,
    SessionInfo,
    SessionReady,
    TextSaid,
    TransformFailed,
    get_logger,
    hookimpl,
)

SIDES = ("caller", "agent")
MAX_QUEUED = 4096
"""How many items of all calls together may wait for the disk, about 16 MB.

Frames beyond are recorded as silence, which the log and the transcript say."""
SILENCE_AFTER_S = 0.4
"""A side that is this far behind the clock is filled up with silence, so that the file grows on."""
POLL_S = 0.2
"""How often the writer thread looks for sides that need silence."""
STOP_TIMEOUT_S = 10.0

_PRIVATE = partial(os.open, mode=0o600)
"""Opens a file so that only this user may read it."""

Pcm = npt.NDArray[np.int16]


@dataclass(frozen=True)
class _Item:
    """A frame, a text or an event of a call, queued for the writer thread."""

    session: SessionInfo
    kind: Literal["ready", "caller", "agent", "text", "caller_text", "lost", "end"]
    content: Any = None
    """int16[1920] for `caller` and `agent`, a text for `text`, a CallerText for `caller_text`, the reason for `end`;
    for `lost` the number of items of each kind that were left out, or why no more come."""


class Plugin:
    """Passes copies of frames and texts to a thread that writes them."""

    class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """`folder`: relative to the folder of config.yaml. `notice`: what callers must read before they call."""

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
    def startup(self, config: Config, engine: object) -> None:
        folder = Path(config.source).parent / Path(self._options.folder).expanduser()
        if engine is not None:
            self._writer = Writer(folder)
            return
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise ConfigError([f"plugins.options.recording.folder: {existing} is no folder that can be written."])

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
                self._writer.put(_Item(session, "ready"))
            case TransformFailed(plugin="recording", reason=failed):
                self._writer.put(_Item(session, "lost", failed))
            case TextSaid(text=text):
                self._writer.put(_Item(session, "text", text))
            case CallerText():
                self._writer.put(_Item(session, "caller_text", event))
            case SessionEnded(reason=reason):
                self._writer.put(_Item(session, "end", reason))


class Tap:
    """Copies the frames of one side for the writer."""

    observes = True

    def __init__(self, writer: "Writer", session: SessionInfo, side: Literal["caller", "agent"]) -> None:
        self._writer = writer
        self._session = session
        self._side = side

    def process(self, frame: Frame) -> Frame:
        """Copy one frame, float32[1920], and return it."""
        pcm = (np.clip(frame, -1, 1) * 32767).astype(np.int16)
        self._writer.put(_Item(self._session, self._side, pcm))
        return frame


class Writer:
    """One thread that writes the recordings of all calls. `problem` says why the last recording failed, or ""."""

    def __init__(self, folder: Path) -> None:
        """Creates the folder where it does not exist. Raises OSError."""
        folder.mkdir(0o700, parents=True, exist_ok=True)
        self.problem = ""
        self._folder = folder
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._recordings: dict[str, Recording | None] = {}
        """The recordings of running calls, by session id; None for one that has failed."""
        self._ended: deque[str] = deque(maxlen=1000)
        """Sessions that have ended, whose last frames may still be queued."""
        self._lost: dict[str, dict[str, int]] = {}
        """How many items of each kind were left out of a call since its last one, by session id."""
        self._lost_lock = threading.Lock()
        self._log = get_logger("recording")
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    def put(self, item: _Item) -> None:
        """Queue an item, from any thread. Never blocks: an item beyond MAX_QUEUED is left out, except for an end."""
        id_ = item.session.id
        if item.kind != "end" and self._queue.qsize() >= MAX_QUEUED:
            with self._lost_lock:
                lost = self._lost.setdefault(id_, {})
                lost[item.kind] = lost.get(item.kind, 0) + 1
            return
        if id_ in self._lost:
            with self._lost_lock:
                if lost := self._lost.pop(id_, {}):
                    self._queue.put(_Item(item.session, "lost", lost))
        self._queue.put(item)

    def stop(self) -> None:
        """Write what is queued and end all recordings. Blocks until that is done, for at most STOP_TIMEOUT_S."""
        self._queue.put(None)
        self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        looked = time.monotonic()
        while True:
            try:
                item = self._queue.get(timeout=POLL_S)
            except queue.Empty:
                pass
            else:
                if item is None:
                    break
                self._write(item)
            if time.monotonic() - looked >= POLL_S and self._queue.empty():  # else what was said waits to be written
                looked = time.monotonic()
                for id_ in list(self._recordings):
                    self._try(id_, Recording.keep_up)
        for id_ in list(self._recordings):
            self._try(id_, lambda recording: recording.end("shutdown"))

    def _write(self, item: _Item) -> None:
        id_ = item.session.id
        if id_ in self._ended:
            return
        if item.kind != "end" and id_ not in self._recordings:
            self._recordings[id_] = None
            try:
                self._recordings[id_] = Recording(self._folder, item.session)
            except Exception as error:  # as in `_try`
                self._fail(id_, error)
        if item.kind == "end":
            self._try(id_, lambda recording: recording.end(item.content))
            self._recordings.pop(id_, None)
            self._ended.append(id_)
        elif item.kind == "text":
            self._try(id_, lambda recording: recording.say(item.content))
        elif item.kind == "caller_text":
            self._try(id_, lambda recording: recording.understand(item.content))
        elif item.kind == "lost":
            self._log.error("recording incomplete", session=id_, lost=item.content)
            self._try(id_, lambda recording: recording.lose(item.content))
        elif item.kind in SIDES:
            self._try(id_, lambda recording: recording.hear(SIDES.index(item.kind), item.content))

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
    """The two files of one call. Every method raises OSError when writing fails."""

    def __init__(self, folder: Path, session: SessionInfo, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._tracks: tuple[list[Pcm], list[Pcm]] = ([], [])
        """For each side, the samples that have not been written."""
        self._said = [0, 0]
        """Number of samples of each side so far, filled-in silence included."""
        self._written = 0
        with ExitStack() as opened:
            self._transcript = opened.enter_context(
                open(folder / f"{session.id}.jsonl", "xb", buffering=0, opener=_PRIVATE)
            )
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
        """Add a frame, int16[1920], of the caller (side 0) or the agent (side 1)."""
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
        """Add a piece of the agent's text, which belongs to the agent's last frame."""
        self._note(type="text", at=self._seconds(self._said[1] - FRAME_SAMPLES), text=text)

    def understand(self, said: CallerText) -> None:
        """Add words of the caller, as a plugin has understood them. Both times count from the handshake."""
        start, end = round(said.start_ms / 1000, 2), round(said.end_ms / 1000, 2)
        self._note(type="caller_text", at=start, until=end, text=said.text)

    def keep_up(self) -> None:
        """Fill up with silence a side from which nothing came."""
        due = int((self._clock() - self._began - SILENCE_AFTER_S) * SAMPLE_RATE)
        for side in range(2):
            if self._said[side] < due:
                self._add(side, np.zeros(due - self._said[side], np.int16))
        self._flush()

    def end(self, reason: str) -> None:
        """Write what is left, and close the files."""
        longer = max(*self._said, FRAME_SAMPLES)  # a FLAC file without samples is not valid
        for side in range(2):
            self._add(side, np.zeros(longer - self._said[side], np.int16))
        self._flush()
        self._note(type="end", at=self._seconds(longer), reason=reason)
        self.close()

    def close(self) -> None:
        """Close both files without writing anything more."""
        self._opened.close()

    def _add(self, side: int, pcm: Pcm) -> None:
        self._tracks[side].append(pcm)
        self._said[side] += len(pcm)

    def _flush(self) -> None:
        """Write the samples up to which both sides have come."""
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
