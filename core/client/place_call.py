"""A caller over the wire: sends a recording in real time, keeps the answer, and measures every delay."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from core.engine.call import FRAME_S, FRAME_SAMPLES, frames_of
from core.errors import ProtocolError
from core.media.audio_codecs import AudioFormat, Samples, open_reader, open_writer
from core.session.protocol import CloseCode, Kind

PLAYER_BUFFER_S = 0.08
"""What the player that counts the gaps holds back before it starts."""
LAST_ANSWERS_S = 2.0
"""How long the next answer may take after the last frame is sent."""
CONNECT_S = 10.0
SILENCE_S = 15.0
"""A server says something every 3 s; one that is silent for so long is gone."""


@dataclass(frozen=True)
class Percentiles:
    """Of a list of delays, in milliseconds."""

    p50: float
    p99: float
    max: float


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


@dataclass
class Heard:
    """What came from the server so far."""

    samples: list[Samples] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)
    """When each whole frame was there."""
    words: list[str] = field(default_factory=list)
    ready: dict[str, object] = field(default_factory=dict)
    dropped: int = 0
    error: str = ""


@dataclass(frozen=True)
class CallOptions:
    """How to call. `parameters` go into the query, beside those that the URL has."""

    parameters: Mapping[str, str]
    audio: AudioFormat = "opus"
    password: str | None = None


async def place_call(
    url: str,
    recording: Samples,
    options: CallOptions,
    progress: Callable[[str, int], None] = lambda _state, _frames: None,
) -> tuple[Samples, CallReport]:
    """Call `url` (`ws`, `wss`, `http` or `https`; no path means `/ws/chat`) and say `recording`.

    `progress` hears the state (`connecting`, `waiting`, `talking`) and the frames sent. Returns what the agent said and
    how it went, also when the server ended the call early. Raises ProtocolError when there was no conversation at all.
    """
    address = websocket_address(url, {**options.parameters, "audio": options.audio})
    headers = {"Authorization": f"Bearer {options.password}"} if options.password else {}
    progress("connecting", 0)
    begun = perf_counter()
    try:
        socket = await connect(
            address, additional_headers=headers, compression=None, open_timeout=CONNECT_S, max_size=2**20, proxy=None
        )
    except InvalidStatus as error:
        raise ProtocolError(refusal(error)) from None
    except (InvalidURI, InvalidHandshake, ValueError) as error:
        raise ProtocolError(f"{url}: this is no address of a conversation: {error}.") from None
    except (OSError, TimeoutError) as error:
        raise ProtocolError(f"{url}: cannot connect: {error or 'no answer'}. Is the server running there?") from None
    connected = perf_counter()
    heard = Heard()
    async with socket:
        progress("waiting", 0)
        await _wait_for_handshake(socket, heard)
        shaken = perf_counter()
        sent: list[float] = []
        async with asyncio.TaskGroup() as group:
            speaking = group.create_task(_speak(socket, recording, options.audio, sent, progress))
            await _listen(socket, options.audio, heard, speaking, sent)
            speaking.cancel()
    trips = [(back - out) * 1000 for out, back in zip(sent, heard.arrived, strict=False)]
    gaps, gap_s = count_gaps(heard.arrived)
    seed = heard.ready.get("seed")
    report = CallReport(
        url=urlunsplit(urlsplit(address)._replace(query="", netloc=urlsplit(address).netloc.rpartition("@")[2])),
        audio=options.audio,
        session=str(heard.ready.get("session", "")),
        seed=seed if isinstance(seed, int) else None,
        connect_ms=(connected - begun) * 1000,
        handshake_ms=(shaken - connected) * 1000,
        first_audio_ms=trips[0] if trips else None,
        round_trip_ms=Percentiles(*(float(p) for p in np.percentile(trips, (50, 99, 100)))) if trips else None,
        frames_sent=len(sent),
        frames_received=len(heard.arrived),
        dropped=heard.dropped,
        gaps=gaps,
        gap_ms=gap_s * 1000,
        close_code=socket.close_code or CloseCode.NORMAL,
        close_reason=heard.error or socket.close_reason or "",
        text="".join(heard.words).strip(),
    )
    return np.concatenate([np.empty(0, np.float32), *heard.samples]), report


async def _wait_for_handshake(socket: ClientConnection, heard: Heard) -> None:
    try:
        while True:
            kind, payload = await receive(socket)
            if kind == Kind.HANDSHAKE:
                return
            note(kind, payload, heard)
    except ConnectionClosed:
        why = heard.error or socket.close_reason or "no reason given"
        raise ProtocolError(f"The server ended the call before it began: {why} (code {socket.close_code}).") from None


async def _speak(
    socket: ClientConnection,
    recording: Samples,
    audio: AudioFormat,
    sent: list[float],
    progress: Callable[[str, int], None],
) -> None:
    """Send each frame at the moment at which a microphone would have it whole."""
    writer = open_writer(audio)
    begun = perf_counter()
    for index, frame in enumerate(frames_of(recording)):
        data = writer.write(frame)
        await asyncio.sleep(begun + (index + 1) * FRAME_S - perf_counter())
        sent.append(perf_counter())
        try:
            await socket.send(bytes([Kind.AUDIO]) + data)
        except ConnectionClosed:
            return
        progress("talking", index + 1)


async def _listen(
    socket: ClientConnection, audio: AudioFormat, heard: Heard, speaking: asyncio.Task[None], sent: list[float]
) -> None:
    """Take what comes until every frame is answered or dropped, no more answers come, or the server ends the call."""
    reader = open_reader(audio)
    total = 0
    try:
        while not (speaking.done() and len(heard.arrived) + heard.dropped >= len(sent)):
            patience_s = SILENCE_S
            if speaking.done():
                patience_s = max([sent[-1], *heard.arrived[-1:]]) + LAST_ANSWERS_S - perf_counter()
            kind, payload = await receive(socket, patience_s)
            now = perf_counter()
            if kind == Kind.AUDIO:
                heard.samples.append(reader.read(payload))
                total += len(heard.samples[-1])
                heard.arrived += [now] * (total // FRAME_SAMPLES - len(heard.arrived))
            else:
                note(kind, payload, heard)
    except (ConnectionClosed, ProtocolError):
        return


async def receive(socket: ClientConnection, patience_s: float = SILENCE_S) -> tuple[int, bytes]:
    """The next message. Raises ProtocolError when the server is silent, or speaks something else."""
    try:
        async with asyncio.timeout(patience_s):
            message = await socket.recv(decode=False)
    except TimeoutError:
        raise ProtocolError(f"The server said nothing for {patience_s:g} s.") from None
    if not message:
        raise ProtocolError("The server sent an empty message; it is not one of ours.")
    return message[0], bytes(message[1:])


def note(kind: int, payload: bytes, heard: Heard) -> None:
    """Keep what a message other than audio says."""
    if kind == Kind.TEXT:
        heard.words.append(payload.decode(errors="replace"))
    elif kind == Kind.ERROR:
        heard.error = payload.decode(errors="replace")
    elif kind == Kind.METADATA:
        try:
            values = json.loads(payload)
        except ValueError:
            return
        if values.get("type") == "ready":
            heard.ready = values
        elif values.get("type") == "stats":
            heard.dropped = int(values.get("dropped", 0))


def count_gaps(arrived: list[float]) -> tuple[int, float]:
    """How often, and for how many seconds, a player of these frames had none to play."""
    gaps, silent, due = 0, 0.0, 0.0
    for index, time in enumerate(arrived):
        due = time + PLAYER_BUFFER_S if index == 0 else due + FRAME_S
        if time > due:
            gaps += 1
            silent += time - due
            due = time
    return gaps, silent


def websocket_address(url: str, parameters: Mapping[str, str]) -> str:
    """The WebSocket address with these parameters. Raises ProtocolError."""
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname:
        raise ProtocolError(f"{url}: give an address such as ws://localhost:8998 or https://example.com/api/chat.")
    query = urlencode({**dict(parse_qsl(parts.query, keep_blank_values=True)), **parameters})
    return urlunsplit((scheme, parts.netloc, parts.path if parts.path not in ("", "/") else "/ws/chat", query, ""))


def refusal(error: InvalidStatus) -> str:
    """A sentence for an upgrade that was refused."""
    try:
        why = str(json.loads(error.response.body or b"")["error"])
    except (ValueError, KeyError, TypeError):
        why = error.response.reason_phrase
    return f"The server refused the call (HTTP {error.response.status_code}): {why}"
