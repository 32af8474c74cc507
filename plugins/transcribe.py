"""The caller's words, written down by Whisper: for the transcript, the page, the recording and other plugins.

Off until it has a model, in config.yaml under `plugins: {options: {transcribe: {model: base}}}`. Needs faster-whisper:
the extra `transcribe`.

A process of its own finds the turns in the sound of all callers (Silero's voice activity detector) and writes them down,
so that neither Python's lock nor a crash in a library touches a call. That process is this same file, run as a program.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import queue
import signal
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from core import SAMPLE_RATE, Config, ControlError, Frame, PluginError, SessionControl, SessionEnded, get_logger, hookimpl

FRAME_MS = 80
WHISPER_RATE = 16_000
WINDOW = 512
"""Samples at 16 kHz, 32 ms, of which Silero's detector says whether somebody speaks."""
CONTEXT = 64
"""Samples before each window that the detector sees too."""
SPEECH, SILENCE = 0.5, 0.35
"""The probability of speech above which it begins, and below which it ends."""
PADDING = WHISPER_RATE * 3 // 10
"""Samples kept before and after a turn, 0.3 s: the detector hears soft beginnings and ends late."""
SHORTEST_MS = 200
"""Speech that is shorter is no word."""
LONGEST = WHISPER_RATE * 28
"""Samples of a turn, 28 s; Whisper hears 30 s at once. What is longer is cut."""
MOST_TURNS = 64
"""Turns of all calls that may wait to be written down."""
MOST_WAIT_S = 10.0
"""A turn that has waited for longer is skipped: it would come too late to be of use."""
MOST_UNSENT = 2**20
"""Bytes of sound that may wait for the process, 22 s of a caller. Frames beyond are skipped."""
PROBLEM_S = 60.0
"""For how long `/health` says that speech was skipped, and how often the log does."""
RESTART_S = 5.0
HEADER = struct.Struct("<IIH")
"""Before each frame: the call's number, the frame's, and the bytes of int16 at 24 kHz; none end the call."""

Samples = npt.NDArray[np.float32]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The plugin's block in config.yaml."""

    model: str = ""
    """A name of faster-whisper's, such as `base`, `small.en` or `large-v3-turbo`, a repository on the Hugging Face hub,
    or a folder. Without it the plugin is off."""
    language: str = "en"
    """What callers speak; "" finds it out for each turn."""
    device: Literal["cpu", "cuda"] = "cpu"
    at_once: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    """How many turns are written down at once, over all calls."""
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    """Cores that each of them takes."""
    pause_ms: Annotated[int, msgspec.Meta(ge=100, le=3000)] = 600
    """How long a caller is silent when the turn is over."""


class Plugin:
    """Runs the process, and passes it the sound of every session."""

    Options = Options

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
    async def startup(self, config: Config, engine: object) -> None:
        if engine is None:
            return
        folder = Path(config.source).parent / self._options.model
        model = str(folder) if folder.is_dir() else self._options.model
        self._scribe = Scribe(msgspec.structs.replace(self._options, model=model))
        await self._scribe.start()

    @hookimpl
    async def shutdown(self) -> None:
        if self._scribe is not None:
            await self._scribe.stop()

    @hookimpl
    def problems(self) -> list[str]:
        return [self._scribe.problem] if self._scribe and self._scribe.problem else []

    @hookimpl
    def open_session(self, control: SessionControl) -> "Listener | None":
        return self._scribe.listen(control) if self._scribe else None


class Listener:
    """Sends the caller's frames of one session to the process."""

    def __init__(self, scribe: "Scribe", number: int, control: SessionControl) -> None:
        self._scribe, self._number, self.control = scribe, number, control
        self._frames = 0

    async def caller_frame(self, frame: Frame) -> None:
        """The caller's next frame, float32[1920]."""
        pcm = (np.clip(frame, -1, 1) * 32767).astype("<i2").tobytes()
        self._scribe.send(self._number, self._frames, pcm)
        self._frames += 1

    async def close(self, ended: SessionEnded) -> None:  # noqa: ARG002 - the hook's signature
        """The session is over."""
        self._scribe.forget(self._number)


class Scribe:
    """The process, from this side. Belongs to the event loop."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._listeners: dict[int, Listener] = {}
        self._numbers = 0
        self._skipped_s = 0.0
        """Speech that was skipped and that the log has not said."""
        self._logged = self._skipped = -PROBLEM_S
        """When the log last said so, and when that last happened."""
        self._log = get_logger("transcribe")

    @property
    def problem(self) -> str:
        """What is wrong now, or ""."""
        if self._process is None:
            return "Callers' words are not written down: the process of the plugin transcribe has ended; see the log."
        if time.monotonic() - self._skipped < PROBLEM_S:
            return (
                "Callers' words are not written down in time, and some are skipped. Take a smaller "
                "plugins.options.transcribe.model, or a faster device."
            )
        return ""

    async def start(self) -> None:
        """Start the process and wait until its model is loaded. Raises PluginError."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # so that no plugin beside this file stands for a library of its name
            __file__,
            msgspec.json.encode(self._options).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert process.stdout is not None
        self._process = process
        try:
            line = await process.stdout.readline()
        except BaseException:  # a start that is given up leaves nothing behind
            await self.stop()
            raise
        told = json.loads(line or "{}")
        if "ready" not in told:
            await self.stop()
            raise PluginError(f"the model '{self._options.model}' cannot be used: {told.get('error', 'see the log')}")
        self._reading = asyncio.create_task(self._read(process), name="transcribe")

    async def stop(self) -> None:
        """End the process."""
        if self._reading is not None:
            self._reading.cancel()
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def listen(self, control: SessionControl) -> Listener:
        """What takes the frames of one session."""
        self._numbers += 1
        self._listeners[self._numbers] = Listener(self, self._numbers, control)
        return self._listeners[self._numbers]

    def send(self, number: int, frame: int, pcm: bytes) -> None:
        """Pass on a frame. Never blocks: where too much waits, the frame is skipped."""
        pipe = self._process.stdin if self._process is not None else None
        if pipe is None or pipe.is_closing():
            return
        if pipe.transport.get_write_buffer_size() > MOST_UNSENT:
            self._note_skipped(FRAME_MS / 1000)
            return
        pipe.write(HEADER.pack(number, frame, len(pcm)) + pcm)

    def forget(self, number: int) -> None:
        """A session is over: nothing more is heard in it."""
        if self._listeners.pop(number, None) is not None:
            self.send(number, 0, b"")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Take what the process writes, and start another one when it ends."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            told = json.loads(line)
            if "skipped_s" in told:
                self._note_skipped(told["skipped_s"])
            elif listener := self._listeners.get(told["call"]):
                with contextlib.suppress(ControlError):  # the session has just ended
                    listener.control.caller_said(told["text"], told["start_ms"], told["end_ms"])
        self._process = None
        self._log.error("the process has ended, and is started again", code=await process.wait())
        while self._process is None:
            await asyncio.sleep(RESTART_S)
            try:
                await self.start()
            except (OSError, PluginError) as error:
                self._log.error("the process cannot be started again", reason=str(error))

    def _note_skipped(self, seconds: float) -> None:
        self._skipped = time.monotonic()
        self._skipped_s += seconds
        if self._skipped - self._logged >= PROBLEM_S:
            self._log.warning("speech was skipped, as it came too fast", seconds=round(self._skipped_s, 1))
            self._logged, self._skipped_s = self._skipped, 0.0


# From here on, what runs in the process.


class Turns:
    """Finds the turns in the sound of one caller."""

    def __init__(self, detector: Any, pause_ms: int, first_frame: int) -> None:
        """`detector` is the ONNX session of Silero's model, which all callers share."""
        import soxr

        self._detector = detector
        self._pause = pause_ms * WHISPER_RATE // 1000
        self._resampler = soxr.ResampleStream(SAMPLE_RATE, WHISPER_RATE, 1, dtype="float32")
        self._state = [np.zeros((1, 1, 128), np.float32)] * 2
        self._context = np.zeros(CONTEXT, np.float32)
        self._rest = np.empty(0, np.float32)
        """Samples that fill no window yet."""
        self._kept = np.empty(0, np.float32)
        """The turn so far, with what was before it; between turns the latest samples."""
        self._end = first_frame * FRAME_MS * WHISPER_RATE // 1000
        """Where `_kept` ends, in samples from the handshake on."""
        self._speech_began: int | None = None
        """Where the turn began; None between turns."""
        self._speech_ended = 0
        self.next_frame = first_frame

    def hear(self, pcm: bytes) -> Iterator[tuple[int, int, Samples]]:
        """Take the next frame. Yields turns that are over: their start and end in ms, and float32[n] at 16 kHz."""
        self.next_frame += 1
        frame = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
        sound = np.concatenate((self._rest, self._resampler.resample_chunk(frame)))
        count = len(sound) // WINDOW
        self._rest = sound[count * WINDOW :]
        if count:
            windows = sound[: count * WINDOW].reshape(count, WINDOW)
            for window, probability in zip(windows, self._detect(windows), strict=True):
                yield from self._follow(window, probability)

    def finish(self) -> Iterator[tuple[int, int, Samples]]:
        """The turn that is going on is over, whatever comes."""
        if self._speech_began is not None and self._speech_ended - self._speech_began >= _samples(SHORTEST_MS):
            end = len(self._kept) - max(0, self._end - self._speech_ended - PADDING)
            yield _ms(self._speech_began), _ms(self._speech_ended), self._kept[:end]
        self._speech_began = None

    def _detect(self, windows: Samples) -> list[float]:
        """The probability of speech in each of float32[n, 512]."""
        before = np.concatenate((self._context[None], windows[:-1, -CONTEXT:]))
        self._context = windows[-1, -CONTEXT:]
        names = dict(zip(("h", "c"), self._state, strict=True))
        found, *self._state = self._detector.run(None, {"input": np.concatenate((before, windows), axis=1), **names})
        return [float(one) for one in found.ravel()]

    def _follow(self, window: Samples, probability: float) -> Iterator[tuple[int, int, Samples]]:
        start = self._end
        self._end += WINDOW
        self._kept = np.concatenate((self._kept, window))
        if probability >= SPEECH or (self._speech_began is not None and probability >= SILENCE):
            self._speech_began = start if self._speech_began is None else self._speech_began
            self._speech_ended = self._end
            if len(self._kept) >= LONGEST:
                yield from self.finish()
                self._kept = self._kept[:0]
            return
        if self._speech_began is None or self._end - self._speech_ended >= self._pause:
            yield from self.finish()
            self._kept = self._kept[-PADDING:]


class Writer:
    """Writes turns down, so many at once, and tells what it heard a line each."""

    def __init__(self, options: Options, output: BinaryIO) -> None:
        """Loads the model. Raises whatever faster-whisper does."""
        if options.device == "cuda":
            import torch  # noqa: F401 - loads CUDA's libraries, which CTranslate2 finds by their names alone
        from faster_whisper import WhisperModel

        self._language = options.language or None
        self._output = output
        self._lock = threading.Lock()
        self._turns: queue.Queue[tuple[float, int, int, int, Samples]] = queue.Queue(MOST_TURNS)
        self._model: Any = WhisperModel(
            options.model,
            device=options.device,
            compute_type="auto",
            cpu_threads=options.threads,
            num_workers=options.at_once,
        )
        self._write_down(np.zeros(WHISPER_RATE, np.float32))  # what is wrong with device or language shows here
        for _ in range(options.at_once):
            threading.Thread(target=self._run, daemon=True).start()

    def tell(self, **values: Any) -> None:
        """Write a line to the service."""
        with self._lock:
            self._output.write(json.dumps(values).encode() + b"\n")
            self._output.flush()

    def put(self, call: int, start_ms: int, end_ms: int, sound: Samples) -> None:
        """Queue a turn, or skip it where too many wait."""
        try:
            self._turns.put_nowait((time.monotonic(), call, start_ms, end_ms, sound))
        except queue.Full:
            self.tell(skipped_s=len(sound) / WHISPER_RATE)

    def _run(self) -> None:
        while True:
            came, call, start_ms, end_ms, sound = self._turns.get()
            if time.monotonic() - came > MOST_WAIT_S:
                self.tell(skipped_s=len(sound) / WHISPER_RATE)
            elif text := self._write_down(sound):
                self.tell(call=call, start_ms=start_ms, end_ms=end_ms, text=text)

    def _write_down(self, sound: Samples) -> str:
        """What is said in float32[n] at 16 kHz; "" where Whisper hears no words, or repeats itself as it does in noise."""
        pieces, about = self._model.transcribe(
            sound,
            language=self._language,
            beam_size=1,
            temperature=0.0,
            without_timestamps=True,
            condition_on_previous_text=False,
        )
        return " ".join(piece.text.strip() for piece in pieces if piece.compression_ratio < 2.4).strip()


def main(options: Options, sound: BinaryIO, output: BinaryIO) -> None:
    """Take the frames of all calls from `sound` until it ends, and write what was said to `output`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the service, whose end ends this
    os.nice(10)  # frames come first
    try:
        writer = Writer(options, output)
    except Exception as error:  # whatever the libraries raise, the service tells the operator
        output.write(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        return
    from faster_whisper.vad import get_vad_model

    detector = get_vad_model().session
    calls: dict[int, Turns] = {}
    writer.tell(ready=True)
    while header := sound.read(HEADER.size):
        call, frame, size = HEADER.unpack(header)
        turns = calls.get(call)
        if turns is not None and (not size or frame != turns.next_frame):  # it is over, or frames were skipped
            for turn in turns.finish():
                writer.put(call, *turn)
            turns = calls.pop(call) and None
        if size:
            turns = turns or calls.setdefault(call, Turns(detector, options.pause_ms, frame))
            for turn in turns.hear(sound.read(size)):
                writer.put(call, *turn)


def _ms(samples: int) -> int:
    return samples * 1000 // WHISPER_RATE


def _samples(milliseconds: int) -> int:
    return milliseconds * WHISPER_RATE // 1000


if __name__ == "__main__":
    told = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the lines
    main(msgspec.json.decode(sys.argv[1], type=Options), sys.stdin.buffer, told)
    os._exit(0)  # without a wait for what is being written down: nobody hears it any more
