"""A load test over the wire: callers who start one after another, then all talk at once, in real time."""

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from core.client.load_test_audio import open_meter, speak
from core.client.place_call import (
    CONNECT_S,
    LAST_ANSWERS_S,
    CallOptions,
    Heard,
    count_gaps,
    note,
    receive,
    refusal,
    websocket_address,
)
from core.engine.call import FRAME_S, FRAME_SAMPLES
from core.errors import AudioError, ProtocolError
from core.media.audio_codecs import AudioFormat, Samples
from core.session.protocol import Kind

PROGRESS_S = 0.5
CLOSE_S = 2.0
"""How long the server may take to say goodbye."""


@dataclass(frozen=True)
class Load:
    """What the server has to carry."""

    callers: int
    seconds: float
    """How long all of them talk at once, after the last has started."""
    stagger_s: float = 0.23
    """Between the starts of two callers. No multiple of a frame's 80 ms, so that their frames do not come together."""


@dataclass(frozen=True)
class Spread:
    """Of a list of times, in milliseconds."""

    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, times: Sequence[float]) -> "Spread | None":
        """None when there are no times."""
        return cls(*(float(time) for time in np.percentile(times, (50, 95, 99, 100)))) if times else None


@dataclass(frozen=True)
class BenchReport:
    """How the callers fared. Times in milliseconds; None where nobody came so far."""

    url: str
    """Without its query."""
    audio: AudioFormat
    callers: int
    seconds: float
    held: int
    """Callers whose conversation lasted to the end."""
    connect_ms: Spread | None
    """From the start to the accepted upgrade."""
    handshake_ms: Spread | None
    """From there to the handshake: the queue, and the prompt."""
    first_audio_ms: Spread | None
    """From the end of the first frame said to its answer."""
    delay_ms: Spread | None
    """From the moment at which each frame was due to be sent to its answer. In a call that lost frames, the
    delays after that are counted longer than they are, by the frames lost."""
    frames_sent: int
    frames_answered: int
    dropped: int
    """Frames that were sent and never answered, in the calls that were held: the server dropped them."""
    gaps: int
    """How often players with a buffer of 80 ms would have run dry."""
    gap_ms: float
    """How long they would have been silent in all."""
    errors: dict[str, int]
    """What ended the other calls, and how many."""
    own_lag_ms: Spread | None
    """How late this load generator itself sent the frames. It is part of `delay_ms`."""
    own_cpu: float
    """What the generator took of one core."""


@dataclass
class _Caller:
    """One caller, as far as it came."""

    connect_ms: float | None = None
    handshake_ms: float | None = None
    due: list[float] = field(default_factory=list)
    """When each frame that was sent had to be."""
    late_ms: list[float] = field(default_factory=list)
    heard: Heard = field(default_factory=Heard)
    problem: str = "The call had not begun when the test ended: it waited for a slot or for its prompt."

    @property
    def delays_ms(self) -> list[float]:
        return [(back - due) * 1000 for due, back in zip(self.due, self.heard.arrived, strict=False)]


async def run_load(
    url: str,
    recording: Samples,
    load: Load,
    options: CallOptions,
    progress: Callable[[float, int], None] = lambda _seconds, _talking: None,
) -> BenchReport:
    """Call `url` (as `core.client.place_call.place_call` takes it) with every caller of `load`, all saying `recording`.

    `progress` hears the seconds gone by and how many talk. Raises ProtocolError for what is no address; calls that fail
    are in the report.
    """
    address = websocket_address(url, {**options.parameters, "audio": options.audio})
    total_s = (load.callers - 1) * load.stagger_s + load.seconds
    messages = await asyncio.to_thread(speak, recording, math.ceil(total_s / FRAME_S), options.audio)
    callers = [_Caller() for _ in range(load.callers)]
    cpu, begun = time.process_time(), monotonic()
    async with asyncio.TaskGroup() as group:
        calls = [
            group.create_task(
                _call(caller, address, options, messages, begun + index * load.stagger_s, begun + total_s)
            )
            for index, caller in enumerate(callers)
        ]
        while (await asyncio.wait(calls, timeout=PROGRESS_S))[1]:
            talking = sum(bool(caller.due) and not call.done() for caller, call in zip(callers, calls, strict=True))
            progress(min(monotonic() - begun, total_s), talking)
    own_cpu = (time.process_time() - cpu) / (monotonic() - begun)
    return _report(address, load, options.audio, callers, own_cpu)


async def _call(
    caller: _Caller, address: str, options: CallOptions, messages: Sequence[bytes], start: float, end: float
) -> None:
    """One caller's conversation, from `start` to `end` on the clock of the event loop. Never raises what a server or
    network can cause."""
    await asyncio.sleep(start - monotonic())
    headers = {"Authorization": f"Bearer {options.password}"} if options.password else {}
    begun = monotonic()
    try:
        async with connect(
            address,
            additional_headers=headers,
            compression=None,
            open_timeout=CONNECT_S,
            close_timeout=CLOSE_S,
            max_size=2**20,
            proxy=None,
        ) as socket:
            caller.connect_ms = (monotonic() - begun) * 1000
            if await _begin(socket, caller, end):
                caller.problem = await _converse(socket, caller, options.audio, messages, end)
    except InvalidStatus as error:
        caller.problem = refusal(error)
    except (InvalidURI, InvalidHandshake, ValueError) as error:
        caller.problem = f"This is no address of a conversation: {error}."
    except (OSError, TimeoutError) as error:
        caller.problem = f"Cannot connect: {error or 'no answer'}."
    except ProtocolError as error:
        caller.problem = str(error)


async def _begin(socket: ClientConnection, caller: _Caller, end: float) -> bool:
    """Wait for the handshake; whether it came before the end of the test."""
    begun = monotonic()
    try:
        async with asyncio.timeout_at(end):
            while (message := await receive(socket))[0] != Kind.HANDSHAKE:
                note(*message, caller.heard)
    except TimeoutError:
        return False
    except ConnectionClosed:
        caller.problem = f"Ended before it began: {_why(socket, caller)}"
        return False
    caller.handshake_ms = (monotonic() - begun) * 1000
    return True


async def _converse(
    socket: ClientConnection, caller: _Caller, audio: AudioFormat, messages: Sequence[bytes], end: float
) -> str:
    """Talk until the end, and keep the slot until then; what ended the call before, or ""."""
    begun, heard = monotonic(), caller.heard
    said = messages[: int((end - begun) / FRAME_S)]
    speaking = asyncio.create_task(_speak(socket, caller, said, begun))
    meter, samples = open_meter(audio), 0
    try:
        async with asyncio.timeout_at(end + LAST_ANSWERS_S):
            while len(heard.arrived) < len(said):
                kind, payload = await receive(socket)
                now = monotonic()
                if kind == Kind.AUDIO:
                    samples += meter.samples(payload)
                    heard.arrived += [now] * (samples // FRAME_SAMPLES - len(heard.arrived))
                else:
                    note(kind, payload, heard)
        await asyncio.sleep(end - monotonic())
    except TimeoutError:
        return ""  # the frames that are missing are counted
    except ConnectionClosed:
        return f"Ended in the middle: {_why(socket, caller)}"
    except (ProtocolError, AudioError) as error:
        return str(error)
    finally:
        speaking.cancel()
    return ""


async def _speak(socket: ClientConnection, caller: _Caller, messages: Sequence[bytes], begun: float) -> None:
    """Send each frame at the moment at which a microphone would have it whole."""
    for index, message in enumerate(messages):
        due = begun + (index + 1) * FRAME_S
        await asyncio.sleep(due - monotonic())
        caller.late_ms.append((monotonic() - due) * 1000)
        caller.due.append(due)
        with contextlib.suppress(ConnectionClosed):  # whoever listens sees it too
            await socket.send(message)


def _why(socket: ClientConnection, caller: _Caller) -> str:
    reason = caller.heard.error or socket.close_reason or "no reason given"
    return f"{reason} (code {socket.close_code})"


def _report(address: str, load: Load, audio: AudioFormat, callers: Sequence[_Caller], own_cpu: float) -> BenchReport:
    held = [caller for caller in callers if not caller.problem]
    gaps = [count_gaps(caller.heard.arrived) for caller in callers]
    parts = urlsplit(address)
    return BenchReport(
        url=urlunsplit(parts._replace(query="", netloc=parts.netloc.rpartition("@")[2])),
        audio=audio,
        callers=load.callers,
        seconds=load.seconds,
        held=len(held),
        connect_ms=Spread.of([caller.connect_ms for caller in callers if caller.connect_ms is not None]),
        handshake_ms=Spread.of([caller.handshake_ms for caller in callers if caller.handshake_ms is not None]),
        first_audio_ms=Spread.of([caller.delays_ms[0] for caller in callers if caller.heard.arrived]),
        delay_ms=Spread.of([delay for caller in callers for delay in caller.delays_ms]),
        frames_sent=sum(len(caller.due) for caller in callers),
        frames_answered=sum(len(caller.heard.arrived) for caller in callers),
        dropped=sum(len(caller.due) - len(caller.heard.arrived) for caller in held),
        gaps=sum(count for count, _ in gaps),
        gap_ms=sum(seconds for _, seconds in gaps) * 1000,
        errors=dict(Counter(caller.problem for caller in callers if caller.problem)),
        own_lag_ms=Spread.of([late for caller in callers for late in caller.late_ms]),
        own_cpu=own_cpu,
    )
