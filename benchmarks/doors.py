"""What the Live API costs beside `/ws/chat`: `python -m benchmarks.doors [--callers N] [--seconds S] [--rounds R]`.

The real server, with an engine that only echoes, in a process of its own. For each way of coding the sound, so many
callers talk at once in real time, in messages of 20 ms, and the time from the last message of a frame to its answer is
taken. The ways take turns, round after round, since the machine has moods. All sound is coded before, and no answer is
decoded, so what the callers themselves take is the same for all.
"""

import argparse
import asyncio
import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.server_process import ServerProcess, serve
from core.client.load_test_audio import synthetic_speech
from core.media.audio_codecs import PcmWriter
from core.media.raw_audio import RawAudioWriter, RawEncoding
from core.session.protocol import Kind

MESSAGES = 4
"""To a frame of 80 ms: 20 ms each."""
MESSAGE_SAMPLES = 480
FRAME_S = 0.08


@dataclass(frozen=True)
class Way:
    """One door, and how sound is coded on it."""

    name: str
    live: tuple[str, RawEncoding, int] | None = None
    """The format on the Live API; None is PCM on `/ws/chat`."""

    def messages(self, seconds: float) -> Sequence[str | bytes]:
        """What a caller sends."""
        speech = synthetic_speech(round(seconds) + 1)
        pieces = [speech[start : start + MESSAGE_SAMPLES] for start in range(0, len(speech), MESSAGE_SAMPLES)]
        if self.live is None:
            pcm = PcmWriter()
            return [bytes([Kind.AUDIO]) + pcm.write(piece) for piece in pieces]
        writer = RawAudioWriter(*self.live[1:])
        sounds = [base64.b64encode(writer.write(piece)).decode() for piece in pieces]
        return [f'{{"type":"session.input_audio.append","audio":"{sound}"}}' for sound in sounds]

    async def begin(self, socket: ClientConnection) -> None:
        """Wait until the caller is heard."""
        if self.live is None:
            while await socket.recv() != bytes([Kind.HANDSHAKE]):
                pass
            return
        type_, _, rate = self.live
        session = {"model": "personaplex", "audio": {"format": {"type": type_, "rate": rate}}}
        await socket.send(json.dumps({"type": "session.start", "session": session}))
        while '"session.started"' not in str(await socket.recv()):
            pass

    def is_sound(self, message: str | bytes) -> bool:
        """Whether this is a frame of the agent."""
        if isinstance(message, bytes):
            return message[0] == Kind.AUDIO
        return message.startswith('{"type":"session.output_audio.delta"')


WAYS = (
    Way("/ws/chat, PCM"),
    Way("Live, PCM 24 kHz", ("audio/pcm", "pcm", 24_000)),
    Way("Live, PCM 16 kHz", ("audio/pcm", "pcm", 16_000)),
    Way("Live, mu-law 8 kHz", ("audio/pcmu", "mulaw", 8_000)),
)


@dataclass
class Figures:
    """What was measured of one way, in all rounds."""

    delays_ms: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Seconds of the server's CPU for each second of each call, a round."""


async def call(way: Way, address: str, seconds: float, delay_s: float, delays_ms: list[float]) -> None:
    """One caller; the delay of each frame is added to `delays_ms`."""
    path = "/ws/chat?audio=pcm" if way.live is None else "/v1/live/sessions"
    messages, sent = way.messages(seconds), []
    async with connect(address.replace("http", "ws", 1) + path, compression=None, proxy=None) as socket:
        await way.begin(socket)
        await asyncio.sleep(delay_s)

        async def talk() -> None:
            due = time.perf_counter()
            for index in range(round(seconds / FRAME_S) * MESSAGES):
                await socket.send(messages[index])
                if index % MESSAGES == MESSAGES - 1:
                    sent.append(time.perf_counter())
                due += FRAME_S / MESSAGES
                await asyncio.sleep(due - time.perf_counter())

        talking = asyncio.create_task(talk())
        for frame in range(round(seconds / FRAME_S)):
            while not way.is_sound(await socket.recv()):
                pass
            delays_ms.append((time.perf_counter() - sent[frame]) * 1000)
        await talking


async def measure(server: ServerProcess, way: Way, callers: int, seconds: float, figures: Figures) -> None:
    """One round of one way."""
    before = await asyncio.to_thread(server.state)
    calls = (
        call(way, server.address, seconds, FRAME_S * index / callers, figures.delays_ms) for index in range(callers)
    )
    await asyncio.gather(*calls)
    after = await asyncio.to_thread(server.state)
    figures.cpu.append((after.cpu_s - before.cpu_s) / seconds / callers)


def main() -> None:
    """Measure all ways, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = {way: Figures() for way in WAYS}
    with serve("echo") as server:
        for _ in range(options.rounds):
            for way, figures in found.items():
                asyncio.run(measure(server, way, options.callers, options.seconds, figures))
    for way, figures in found.items():
        p50, p99 = np.percentile(figures.delays_ms, [50, 99])
        cpu = 1000 * float(np.median(figures.cpu))
        print(f"{way.name:20} p50 {p50:6.2f} ms   p99 {p99:6.2f} ms   {cpu:5.1f} ms of CPU a second and call")


if __name__ == "__main__":
    main()
