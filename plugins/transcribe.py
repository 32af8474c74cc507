"""The caller's words, written down by Whisper: for the transcript, the page, the recording and other plugins.

Off until it has a model, in config.yaml under `plugins: {options: {transcribe: {model: base}}}`. Needs faster-whisper:
the extra `transcribe`.

A process of its own finds the turns in the sound of all callers, by Silero's voice activity detector, and writes them
down: so neither Python's lock nor a crash in a library touches a call. It is this same file, run as a program.
"""

import asyncio
import contextlib
import importlib.util
import itertools
import json
import math
import os
import queue
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO, Literal
from weakref import WeakValueDictionary

import msgspec
import numpy as np
import numpy.typing as npt

from core import SAMPLE_RATE, ControlError, Frame, PluginError, SessionControl, SessionEnded, get_logger, hookimpl

FRAME_MS = 80
WHISPER_KHZ = 16
WINDOW, WINDOW_MS, CONTEXT = 512, 32, 64
"""Samples at 16 kHz that Silero's detector looks at, how long they are, and those before them that it sees too."""
SPEECH, SILENCE = 0.5, 0.35
"""The probability of speech above which it begins, and below which it ends."""
PADDING_MS = 300
"""Kept before and after a turn: the detector hears soft beginnings and ends late."""
SHORTEST_MS = 200
"""Speech that is shorter is no word."""
LONGEST_MS = 28_000
"""Whisper hears 30 s at once. A turn that is longer is cut."""
MOST_TURNS, MOST_WAIT_S = 64, 10.0
"""Turns of all calls that may wait to be written down, and for how long; what comes too late is of no use."""
MOST_UNSENT = 2**20
"""Bytes of sound that may wait for the process, 22 s of a caller. Frames beyond are skipped."""
PROBLEM_S = 60.0
"""For how long `/health` says that words were skipped."""
RESTART_S = 5.0
ADVICE = "take a smaller plugins.options.transcribe.model, or another device."
REPETITIVE = 2.4
"""Text that compresses better than this is Whisper repeating itself, as it does in noise; from its own code."""
HEADER = struct.Struct("<IIH")
"""Before each frame: the call's number, the frame's, and the bytes of int16 at 24 kHz; none end the call."""

Samples = npt.NDArray[np.float32]
Turn = tuple[int, int, Samples]
"""When it begins and ends, in milliseconds from the handshake on, and its sound, float32[n] at 16 kHz."""


class Plugin:
    """Runs the process, and passes it the sound of every session."""

    class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """The plugin's block in config.yaml."""

        model: str = ""
        """A name of faster-whisper's, such as `base`, a repository on the Hugging Face hub, or a folder; "" is off."""
        language: str = "en"
        """What callers speak; "" finds it out for each turn."""
        device: Literal["cpu", "cuda"] = "cpu"
        at_once: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
        """How many turns are written down at once, over all calls."""
        threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
        """Cores that each of them takes."""
        pause_ms: Annotated[int, msgspec.Meta(ge=100, le=3000)] = 600
        """How long a caller is silent when the turn is over."""

    def __init__(self, options: Options) -> None:
        self.enabled = bool(options.model)
        self._options = options
        self._scribe: Scribe | None = None
        if self.enabled and importlib.util.find_spec("faster_whisper") is None:
            raise PluginError(
                "needs faster-whisper. Install it with: uv sync --extra transcribe, or: "
                "pip install 'personaplex-modal[transcribe]'."
            )

    @hookimpl
    async def startup(self, engine: object) -> None:
        if engine is not None:
            self._scribe = Scribe(self._options)
            await self._scribe.run()

    @hookimpl
    async def shutdown(self) -> None:
        if self._scribe is not None:
            await self._scribe.stop()

    @hookimpl
    def problems(self) -> list[str]:
        return self._scribe.problems if self._scribe else []

    @hookimpl
    def open_session(self, control: SessionControl) -> "Listener | None":
        return Listener(self._scribe, control) if self._scribe else None


class Listener:
    """Sends the caller's frames of one session to the process."""

    def __init__(self, scribe: "Scribe", control: SessionControl) -> None:
        self.control = control
        self._scribe, self._number, self._frames = scribe, next(scribe.numbers), 0
        scribe.listeners[self._number] = self

    async def caller_frame(self, frame: Frame) -> None:
        """The caller's next frame, float32[1920]."""
        pcm = (np.clip(frame, -1, 1) * 32767).astype("<i2").tobytes()
        self._scribe.send(self._number, self._frames, pcm)
        self._frames += 1

    async def close(self, ended: SessionEnded) -> None:  # noqa: ARG002 - the hook's signature
        """The session is over: nothing more is heard in it."""
        self._scribe.listeners.pop(self._number, None)
        self._scribe.send(self._number, 0, b"")


class Scribe:
    """The process, from this side. Belongs to the event loop."""

    def __init__(self, options: Plugin.Options) -> None:
        self.listeners: WeakValueDictionary[int, Listener] = WeakValueDictionary()
        self.numbers = itertools.count()
        self._options = options
        self._process: Any = None  # an asyncio.subprocess.Process
        self._reading: asyncio.Task[None] | None = None
        self._skipped = -math.inf
        """When words were last skipped, by `time.monotonic`."""
        self._log = get_logger("transcribe")

    @property
    def problems(self) -> list[str]:
        """What is wrong now, for the operator."""
        if self._process.returncode is not None:
            return ["Callers' words are not written down: the process of the plugin transcribe has ended."]
        if time.monotonic() - self._skipped < PROBLEM_S:
            return ["Callers' words come faster than they can be written down, and some are skipped: " + ADVICE]
        return []

    async def start(self) -> None:
        """Start the process and wait until its model is loaded. Raises PluginError."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P"),  # so that no plugin beside this file stands for a library of its name
            *(__file__, msgspec.json.encode(self._options).decode()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        try:
            told = json.loads(await self._process.stdout.readline() or "{}")
            if "ready" not in told:
                reason = told.get("error", "its process has ended; the log has more")
                raise PluginError(f"the model '{self._options.model}' cannot be used: {reason}.")
        except BaseException:  # a start that is given up, too, leaves nothing behind
            await self._kill()
            raise

    async def run(self) -> None:
        """`start`, and from then on take what the process writes. Another one is started when it ends."""
        await self.start()
        self._reading = asyncio.create_task(self._read(), name="transcribe")

    async def stop(self) -> None:
        """End the process."""
        if self._reading is not None:
            self._reading.cancel()
            await self._kill()

    async def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    def send(self, number: int, frame: int, pcm: bytes) -> None:
        """Pass on a frame. Never blocks: where too much waits, the frame is skipped."""
        pipe = self._process.stdin
        if pipe.transport.get_write_buffer_size() > MOST_UNSENT:
            self._skip()
        elif not pipe.is_closing():
            pipe.write(HEADER.pack(number, frame, len(pcm)) + pcm)

    async def _read(self) -> None:
        while True:
            while line := await self._process.stdout.readline():
                told = json.loads(line)
                if "skipped" in told:
                    self._skip()
                elif listener := self.listeners.get(told["call"]):
                    with contextlib.suppress(ControlError):  # the session has just ended
                        listener.control.caller_said(told["text"], told["start_ms"], told["end_ms"])
            await self._kill()
            self._log.error("the process has ended, and is started again")
            while self._process.returncode is not None:
                await asyncio.sleep(RESTART_S)
                try:
                    await self.start()
                except (OSError, PluginError) as error:
                    self._log.error("the process cannot be started again", reason=str(error))

    def _skip(self) -> None:
        """Note that a part of what a caller says is not written down."""
        if time.monotonic() - self._skipped > PROBLEM_S:
            self._log.warning("callers' words are skipped: they come faster than they can be written down")
        self._skipped = time.monotonic()


# From here on, what runs in the process.


class Turns:
    """Finds the turns in the sound of one caller."""

    def __init__(self, detector: Any, pause_ms: int, first_frame: int) -> None:
        """`detector` is the ONNX session of Silero's model, which all callers share."""
        import soxr

        self.next_frame = first_frame
        self._detector, self._pause_ms = detector, pause_ms
        self._state = [np.zeros((1, 1, 128), np.float32)] * 2
        self._context: Samples = np.zeros(CONTEXT, np.float32)
        self._resampler = soxr.ResampleStream(SAMPLE_RATE, WHISPER_KHZ * 1000, 1, dtype="float32")
        self._rest: Samples = np.empty(0, np.float32)
        """Samples that fill no window yet."""
        self._kept: Samples = np.empty(0, np.float32)
        """The turn so far, with what was before it, up to `_now_ms`; between turns the latest samples."""
        self._now_ms = first_frame * FRAME_MS
        self._began_ms: int | None = None
        """Where the turn began; None between turns."""
        self._ended_ms = 0
        """Where there was speech at last."""

    def hear(self, pcm: bytes) -> Iterator[Turn]:
        """Take the next frame. Yields turns that are over."""
        self.next_frame += 1
        frame = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
        sound = np.concatenate((self._rest, self._resampler.resample_chunk(frame)))
        count = len(sound) // WINDOW
        self._rest = sound[count * WINDOW :]
        windows = sound[: count * WINDOW].reshape(count, WINDOW)
        if count:
            for window, probability in zip(windows, self._detect(windows), strict=True):
                yield from self._follow(window, probability)

    def finish(self) -> Iterator[Turn]:
        """The turn that is going on is over, whatever comes."""
        began_ms, self._began_ms = self._began_ms, None
        if began_ms is not None and self._ended_ms - began_ms >= SHORTEST_MS:
            silence_ms = max(0, self._now_ms - self._ended_ms - PADDING_MS)
            yield began_ms, self._ended_ms, self._kept[: len(self._kept) - silence_ms * WHISPER_KHZ]

    def _detect(self, windows: Samples) -> list[float]:
        """The probability of speech in each of float32[n, 512]."""
        before = np.concatenate((self._context[None], windows[:-1, -CONTEXT:]))
        self._context = windows[-1, -CONTEXT:]
        state = dict(zip(("h", "c"), self._state, strict=True))
        found, *self._state = self._detector.run(None, {"input": np.concatenate((before, windows), axis=1), **state})
        return [float(one) for one in found.ravel()]

    def _follow(self, window: Samples, probability: float) -> Iterator[Turn]:
        self._kept = np.concatenate((self._kept, window))
        if probability >= (SPEECH if self._began_ms is None else SILENCE):
            self._began_ms = self._now_ms if self._began_ms is None else self._began_ms
            self._ended_ms = self._now_ms + WINDOW_MS
        self._now_ms += WINDOW_MS
        if self._began_ms is None or self._now_ms - self._ended_ms >= self._pause_ms:
            yield from self.finish()
            self._kept = self._kept[-PADDING_MS * WHISPER_KHZ :]
        elif len(self._kept) >= LONGEST_MS * WHISPER_KHZ:
            yield from self.finish()
            self._kept = self._kept[:0]


class Writer:
    """Writes turns down, so many at once, and tells what it heard, a line each."""

    def __init__(self, options: Plugin.Options, output: BinaryIO) -> None:
        """Loads the model. Raises whatever faster-whisper does."""
        if options.device == "cuda":
            import torch  # noqa: F401 - loads CUDA's libraries, which CTranslate2 finds by their names alone
        from faster_whisper import WhisperModel

        self._language = options.language or None
        self._output, self._lock = output, threading.Lock()
        self._turns: queue.Queue[tuple[float, int, Turn]] = queue.Queue(MOST_TURNS)
        size = {"cpu_threads": options.threads, "num_workers": options.at_once}
        self._model: Any = WhisperModel(options.model, options.device, compute_type="auto", **size)
        self._hear(np.zeros(1000 * WHISPER_KHZ, np.float32))  # what is wrong with device or language shows here
        for _ in range(options.at_once):
            threading.Thread(target=self._run, daemon=True).start()

    def tell(self, **values: Any) -> None:
        """Write a line to the service."""
        with self._lock:
            self._output.write(json.dumps(values).encode() + b"\n")
            self._output.flush()

    def put(self, call: int, turn: Turn) -> None:
        """Queue a turn, or skip it where too many wait."""
        try:
            self._turns.put_nowait((time.monotonic(), call, turn))
        except queue.Full:
            self.tell(skipped=call)

    def _run(self) -> None:
        try:
            while True:
                came, call, turn = self._turns.get()
                if time.monotonic() - came > MOST_WAIT_S:
                    self.tell(skipped=call)
                elif text := self._hear(turn[2]):
                    self.tell(call=call, start_ms=turn[0], end_ms=turn[1], text=text)
        except Exception:  # such as a GPU without memory: the service starts another process
            traceback.print_exc()
            os._exit(1)

    def _hear(self, sound: Samples) -> str:
        """What is said in float32[n] at 16 kHz, or ""."""
        way = {"beam_size": 1, "temperature": 0.0, "without_timestamps": True, "condition_on_previous_text": False}
        pieces, _ = self._model.transcribe(sound, language=self._language, **way)
        return " ".join(piece.text.strip() for piece in pieces if piece.compression_ratio < REPETITIVE).strip()


def main(options: Plugin.Options, sound: BinaryIO, output: BinaryIO) -> None:
    """Take the frames of all calls from `sound` until it ends, and write what was said to `output`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the service, whose end ends this
    os.nice(19)  # frames come first
    try:
        writer = Writer(options, output)
    except Exception as error:  # whatever the libraries raise, the service tells the operator
        output.write(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        return
    from faster_whisper.vad import get_vad_model

    detector = get_vad_model().session
    calls: dict[int, Turns] = {}
    writer.tell(ready=True)
    while len(header := sound.read(HEADER.size)) == HEADER.size:
        call, frame, size = HEADER.unpack(header)
        pcm = sound.read(size)
        turns = calls.pop(call, None)
        if not pcm:
            continue
        if turns is None or frame != turns.next_frame:  # it is new, or frames were skipped
            for turn in turns.finish() if turns else ():
                writer.put(call, turn)
            turns = Turns(detector, options.pause_ms, frame)
        for turn in turns.hear(pcm):
            writer.put(call, turn)
        calls[call] = turns


if __name__ == "__main__":
    told = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the lines
    main(msgspec.json.decode(sys.argv[1], type=Plugin.Options), sys.stdin.buffer, told)
    os._exit(0)  # without a wait for what is being written down: nobody hears it any more
