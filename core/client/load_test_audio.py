"""The audio of a load test: speech that is encoded once for all callers, and answers that are counted, not decoded.

Coding a frame takes most of a millisecond and holds Python's global lock, so twenty callers that each did it would
measure themselves. Sending encoded messages and reading the packet headers of the answers takes about 0.1 ms a frame.
"""

from typing import Protocol

import numpy as np

from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE
from core.errors import AudioError
from core.media.audio_codecs import AudioFormat, Samples, open_writer
from core.media.ogg import PacketReader
from core.session.protocol import Kind

FRAME_DURATIONS_MS = (10, 20, 40, 60) * 3 + (10, 20) * 2 + (2.5, 5, 10, 20) * 4
"""The duration of an Opus packet's frames, by the five upper bits of its first byte (RFC 6716, 3.1)."""


def synthetic_speech(seconds: float) -> Samples:
    """A gliding buzz in syllables, phrases and pauses like speech: float32[n] at 24 kHz, -20 dBFS."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch_hz = 125 + 25 * np.sin(2 * np.pi * 0.4 * t)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE
    buzz = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 24))
    syllables = np.clip(np.sin(2 * np.pi * 3.3 * t), 0, 1)
    phrases = np.clip(4 * np.sin(2 * np.pi * t / 5) + 1, 0, 1)  # three seconds of talk, two of listening
    breath = np.random.default_rng(1).standard_normal(len(t))
    sound = 0.25 * buzz * syllables * phrases + 0.001 * breath
    speech: Samples = np.clip(sound, -1, 1).astype(np.float32)
    return speech


def encode_messages(speech: Samples, frames: int, audio: AudioFormat) -> list[bytes]:
    """n AUDIO messages of one frame each, in which `speech` is said over and over."""
    writer = open_writer(audio)
    looped = np.resize(speech, (frames, FRAME_SAMPLES))
    return [bytes([Kind.AUDIO]) + writer.write(frame) for frame in looped]


class SampleCounter(Protocol):
    """Counts the samples of the answers in one conversation."""

    def count(self, data: bytes) -> int:
        """How many samples at 24 kHz `data` completes. Raises AudioError."""


class PcmSampleCounter:
    """Counts samples of s16le audio."""

    def count(self, data: bytes) -> int:
        """See SampleCounter."""
        return len(data) // 2


class OpusSampleCounter:
    """Counts samples of an Ogg/Opus stream by the first bytes of its packets, without decoding it."""

    def __init__(self) -> None:
        self._packets = PacketReader()

    def count(self, data: bytes) -> int:
        """See SampleCounter."""
        return sum(_duration(packet) for packet in self._packets.read(data))


def open_sample_counter(audio: AudioFormat) -> SampleCounter:
    """A counter for one conversation."""
    return OpusSampleCounter() if audio == "opus" else PcmSampleCounter()


def _duration(packet: bytes) -> int:
    """The samples at 24 kHz of an Opus packet (RFC 6716, 3.2)."""
    count = {0: 1, 1: 2, 2: 2}.get(packet[0] & 3)
    if count is None:
        if len(packet) < 2:
            raise AudioError("The answer has an Opus packet that ends too early.")
        count = packet[1] & 63
    return round(count * FRAME_DURATIONS_MS[packet[0] >> 3] * SAMPLE_RATE / 1000)
