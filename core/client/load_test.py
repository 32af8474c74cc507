"""A load test over the wire: callers who start one after another, then all talk at once, in real time."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

from core.client.connection import CallOptions, Connection, connect, public_address, websocket_address
from core.client.frame_times import FrameTimes, Percentiles
from core.client.load_test_audio import encode_messages, open_sample_counter
from core.client.place_call import LAST_ANSWERS_S
from core.engine.call import FRAME_S
from core.errors import AudioError, CallError
from core.media.audio_codecs import AudioFormat, Samples

PROGRESS_S = 0.5


@dataclass(frozen=True)
class Load:
    """How many callers call, when, and for how long."""

    callers: int
    seconds: float
    """How long all of them talk at once, after the last has started."""
    stagger_s: float = 0.23
    """Between the starts of two callers. No multiple of a frame's 80 ms, so that their frames do not come together."""


@dataclass(frozen=True)
class BenchReport:
    """How the calls went. Times in milliseconds; None where no call came so far."""

    url: str
    """Without its query."""
    audio: AudioFormat
    callers: int
    seconds: float
    held: int
    """Callers whose conversation lasted to the end."""
    connect_ms: Percentiles | None
    """From the start to the accepted upgrade."""
    handshake_ms: Percentiles | None
    """From there to the handshake: the queue, and the prompt."""
    first_audio_ms: Percentiles | None
    """From the end of the first frame said to its answer."""
    delay_ms: Percentiles | None
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
    own_lag_ms: Percentiles | None
    """How late this load generator itself sent the frames. It is part of `delay_ms`."""
    own_cpu: float
    """What the generator took of one core."""


@dataclass
class _Caller:
    """How the call of one caller went so far."""

    connect_ms: float | None = None
    handshake_ms: float | None = None
    times: FrameTimes = field(default_factory=FrameTimes)
    problem: str = "The call had not begun when the test ended: it waited for a slot or for its prompt."
    """What ended the call, or kept it from beginning; "" when it lasted to the end."""


async def run_load(
    url: str,
    speech: Samples,
    load: Load,
    options: CallOptions,
    progress: Callable[[float, int], None] = lambda _seconds, _talking: None,
) -> BenchReport:
    """Call `url` (see `websocket_address`) with every caller of `load`, all saying `speech` over and over.

    `progress` is called with the seconds passed and the number of callers that talk. Raises CallError when `url` is no
    address; calls that fail are in the report.
    """
    address = public_address(websocket_address(url, options))
    total_s = (load.callers - 1) * load.stagger_s + load.seconds
    messages = await asyncio.to_thread(encode_messages, speech, math.ceil(total_s / FRAME_S), options.audio)
    callers = [_Caller() for _ in range(load.callers)]
    cpu, begun = time.process_time(), monotonic()
    async with asyncio.TaskGroup() as group:
        calls = [
            group.create_task(_call(caller, url, options, messages, begun + index * load.stagger_s, begun + total_s))
            for index, caller in enumerate(callers)
        ]
        while (await asyncio.wait(calls, timeout=PROGRESS_S))[1]:
            talking = sum(
                bool(caller.times.sent) and not call.done() for caller, call in zip(callers, calls, strict=True)
            )
            progress(min(monotonic() - begun, total_s), talking)
    own_cpu = (time.process_time() - cpu) / (monotonic() - begun)
    return _report(address, load, options.audio, callers, own_cpu)


async def _call(
    caller: _Caller, url: str, options: CallOptions, messages: Sequence[bytes], start: float, end: float
) -> None:
    """One caller's conversation, from `start` to `end` on the clock of the event loop. Never raises what a server or
    network can cause."""
    await asyncio.sleep(start - monotonic())
    begun = monotonic()
    try:
        async with connect(url, options) as connection:
            connected = monotonic()
            caller.connect_ms = (connected - begun) * 1000
            try:
                async with asyncio.timeout_at(end):
                    await connection.wait_for_handshake()
            except TimeoutError:
                return
            caller.handshake_ms = (monotonic() - connected) * 1000
            await _converse(connection, caller.times, options.audio, messages, end)
            caller.problem = ""
    except (CallError, AudioError) as error:
        caller.problem = str(error)


async def _converse(
    connection: Connection, times: FrameTimes, audio: AudioFormat, messages: Sequence[bytes], end: float
) -> None:
    """Talk until the end, and keep the slot until then. Raises CallError or AudioError when the call ends before."""
    messages = messages[: int((end - monotonic()) / FRAME_S)]
    sending = asyncio.create_task(connection.send_frames(messages, times))
    counter = open_sample_counter(audio)
    try:
        async with asyncio.timeout_at(end + LAST_ANSWERS_S):
            while len(times.answered) < len(messages):
                payload = await connection.receive()
                if payload is not None:
                    now = monotonic()
                    times.receive(counter.count(payload), now)
        await asyncio.sleep(end - monotonic())
    except TimeoutError:
        pass  # the report counts the frames that are not answered
    finally:
        sending.cancel()


def _report(address: str, load: Load, audio: AudioFormat, callers: Sequence[_Caller], own_cpu: float) -> BenchReport:
    held = [caller for caller in callers if not caller.problem]
    delays = [caller.times.delays_ms() for caller in callers]
    gaps = [caller.times.gaps() for caller in callers]
    return BenchReport(
        url=address,
        audio=audio,
        callers=load.callers,
        seconds=load.seconds,
        held=len(held),
        connect_ms=Percentiles.of([caller.connect_ms for caller in callers if caller.connect_ms is not None]),
        handshake_ms=Percentiles.of([caller.handshake_ms for caller in callers if caller.handshake_ms is not None]),
        first_audio_ms=Percentiles.of([one[0] for one in delays if one]),
        delay_ms=Percentiles.of([delay for one in delays for delay in one]),
        frames_sent=sum(len(caller.times.sent) for caller in callers),
        frames_answered=sum(len(caller.times.answered) for caller in callers),
        dropped=sum(len(caller.times.sent) - len(caller.times.answered) for caller in held),
        gaps=sum(count for count, _ in gaps),
        gap_ms=sum(seconds for _, seconds in gaps) * 1000,
        errors=dict(Counter(caller.problem for caller in callers if caller.problem)),
        own_lag_ms=Percentiles.of([late for caller in callers for late in caller.times.lateness_ms()]),
        own_cpu=own_cpu,
    )
