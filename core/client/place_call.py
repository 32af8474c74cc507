"""A measured call: say a sound file's samples to a server in real time, and keep what the agent answers."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic

import numpy as np

from core.client.connection import SILENCE_S, CallOptions, Connection, connect, public_address, websocket_address
from core.client.frame_times import FrameTimes, Percentiles
from core.client.waking import find_calls
from core.engine.call import FRAME_S, frames_of
from core.errors import CallError
from core.media.audio_codecs import AudioFormat, Samples, open_reader, open_writer
from core.plugin.acting import Line
from core.session.protocol import Kind

LAST_ANSWERS_S = 2.0
"""How long the next answer may take after the last frame is sent."""


@dataclass(frozen=True)
class CallReport:
    """What a call was like. Times in milliseconds."""

    url: str
    """Without its query."""
    audio: AudioFormat
    session: str
    """The server's id of it; "" on `/api/chat`."""
    seed: int | None
    connect_ms: float
    """From the start to the accepted upgrade."""
    handshake_ms: float
    """From there to the handshake: the queue, and the prompt."""
    first_audio_ms: float | None
    """From the end of the first frame sent to its answer."""
    round_trip_ms: Percentiles | None
    """From the end of each frame sent to its answer."""
    frames_sent: int
    frames_received: int
    dropped: int
    """As the server says; 0 on `/api/chat`, which does not."""
    gaps: int
    """How often a player with a buffer of 80 ms would have run dry."""
    gap_ms: float
    """How long it would have been silent in all."""
    close_code: int
    close_reason: str
    text: str
    """What the agent said."""
    lines: tuple[Line, ...]
    """What both sides said; the caller's words where the server tells them."""


async def place_call(
    url: str,
    speech: Samples,
    options: CallOptions,
    progress: Callable[[str, int], None] = lambda _state, _frames: None,
) -> tuple[Samples, CallReport]:
    """Call `url` (see `websocket_address`) and say `speech`, float32[n] at 24 kHz.

    Where the server's calls are served elsewhere, and sleep, they are woken first. `progress` is called with the state
    (`waking the model, ...`, `connecting`, `waiting`, `talking`) and the number of frames sent. Returns what
    the agent said and how the call went, also when the server ended it early. Raises CallError when there was no
    conversation at all, and AudioError when the answer cannot be decoded.
    """
    progress("connecting", 0)
    url = await find_calls(url, options, lambda state: progress(state, 0))
    progress("connecting", 0)
    start = monotonic()
    times = FrameTimes()
    async with connect(url, options) as connection:
        connected = monotonic()
        progress("waiting", 0)
        await connection.wait_for_handshake()
        begun = monotonic()
        messages = _encode(speech, options.audio)
        sending = asyncio.create_task(
            connection.send_audio(messages, FRAME_S, times, lambda frames: progress("talking", frames))
        )
        try:
            answer = await _receive_answer(connection, options.audio, times, sending)
        finally:
            sending.cancel()
    round_trips = times.round_trips_ms()
    gaps, gap_s = times.gaps()
    seed = connection.ready.get("seed")
    report = CallReport(
        url=public_address(websocket_address(url, options)),
        audio=options.audio,
        session=str(connection.ready.get("session", "")),
        seed=seed if isinstance(seed, int) else None,
        connect_ms=(connected - start) * 1000,
        handshake_ms=(begun - connected) * 1000,
        first_audio_ms=round_trips[0] if round_trips else None,
        round_trip_ms=Percentiles.of(round_trips),
        frames_sent=len(times.sent),
        frames_received=len(times.answered),
        dropped=connection.dropped,
        gaps=gaps,
        gap_ms=gap_s * 1000,
        close_code=connection.close_code,
        close_reason=connection.close_reason,
        text=connection.text.strip(),
        lines=connection.transcript.lines,
    )
    return answer, report


def _encode(speech: Samples, audio: AudioFormat) -> Iterator[bytes]:
    writer = open_writer(audio)
    for frame in frames_of(speech):
        yield bytes([Kind.AUDIO]) + writer.write(frame)


async def _receive_answer(
    connection: Connection, audio: AudioFormat, times: FrameTimes, sending: asyncio.Task[None]
) -> Samples:
    """Receive until every frame is answered or dropped, no more answers come, or the server ends the call."""
    reader = open_reader(audio)
    pieces: list[Samples] = [np.empty(0, np.float32)]
    try:
        while not (sending.done() and len(times.answered) + connection.dropped >= len(times.sent)):
            silence_s = SILENCE_S
            if sending.done():
                silence_s = max([times.sent[-1], *times.answered[-1:]]) + LAST_ANSWERS_S - monotonic()
            payload = await connection.receive(silence_s)
            if payload is not None:
                now = monotonic()
                pieces.append(reader.read(payload))
                times.receive(len(pieces[-1]), now)
    except CallError:
        pass  # the report says why the server ended the call
    return np.concatenate(pieces)
