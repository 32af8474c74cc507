"""Raw audio of other services: PCM and G.711 at their rates, and the resampler between them and 24 kHz."""

import numpy as np
import numpy.typing as npt
import pytest
import soxr

from core.errors import AudioError
from core.media.raw_audio import RawAudioReader, RawAudioWriter, RawEncoding
from core.media.resampling import HALF_WIDTH_S, Resampler
from tests.conftest import speech

FORMATS: list[tuple[RawEncoding, int]] = [("pcm", 24_000), ("pcm", 16_000), ("mulaw", 8000), ("alaw", 8000)]


def tone(hertz: float, rate: int, seconds: float = 1.0) -> npt.NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def in_pieces(resampler: Resampler, samples: npt.NDArray[np.float32], sizes: list[int]) -> npt.NDArray[np.float32]:
    pieces: list[npt.NDArray[np.float32]] = []
    start = 0
    while start < len(samples):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(resampler.resample(samples[start : start + size]))
        start += size
    return np.concatenate(pieces)


# Values from the tables of ITU-T G.711 (11/88): mu-law 2a/2b and A-law 1a/1b, 14 and 13 bits scaled to 16.
@pytest.mark.parametrize(
    ("encoding", "byte", "value"),
    [
        ("mulaw", 0xFF, 0),
        ("mulaw", 0x80, 32124),
        ("mulaw", 0x00, -32124),
        ("mulaw", 0x8F, 16764),
        ("mulaw", 0xF0, 120),
        ("mulaw", 0xEF, 132),
        ("mulaw", 0xFE, 8),
        ("alaw", 0xD5, 8),
        ("alaw", 0x55, -8),
        ("alaw", 0xAA, 32256),
        ("alaw", 0x2A, -32256),
        ("alaw", 0x80, 5504),
    ],
)
def test_g711_is_that_of_the_standard(encoding: RawEncoding, byte: int, value: int) -> None:
    from core.media.raw_audio import _table_of_codes, _table_of_values

    assert _table_of_values(encoding)[byte] * 32768 == value
    assert _table_of_codes(encoding)[np.array(value, np.int16).view(np.uint16)] == byte


@pytest.mark.parametrize("encoding", ["mulaw", "alaw"])
def test_no_sample_is_off_by_more_than_half_a_step(encoding: RawEncoding) -> None:
    """A step of G.711 is a sixteenth of the power of two below the sample; what is beyond the last one is clipped."""
    from core.media.raw_audio import _table_of_codes, _table_of_values

    samples = np.arange(-32768, 32768).astype(np.int16)
    values = _table_of_values(encoding) * 32768
    came_back = values[_table_of_codes(encoding)[samples.view(np.uint16)]]
    size = np.minimum(np.abs(samples.astype(np.float64)), np.abs(values).max())
    assert (np.abs(np.abs(came_back) - size) <= np.maximum(size / 32 + 8, 16)).all()
    assert (np.sign(came_back) * np.sign(samples) >= 0).all()
    assert np.array_equal(values[_table_of_codes(encoding)[values.astype(np.int16).view(np.uint16)]], values)


@pytest.mark.parametrize(("encoding", "rate"), FORMATS)
def test_a_voice_survives_the_way_there_and_back(encoding: RawEncoding, rate: int) -> None:
    said = speech(2.0)
    writer, reader = RawAudioWriter(encoding, rate), RawAudioReader(encoding, rate)
    frames = said.reshape(-1, 1920)
    messages = [writer.write(frame) for frame in frames]
    width = 2 if encoding == "pcm" else 1
    assert {len(message) for message in messages} == {rate * 80 // 1000 * width}  # as many samples every time
    heard = np.concatenate([reader.read(message) for message in messages])
    assert heard.dtype == np.float32
    assert len(heard) == len(said)
    late = 0 if rate == 24_000 else round(2 * HALF_WIDTH_S * 24_000)
    known = said[: len(said) - late]
    if rate < 24_000:  # of what the lower rate has room for
        known = soxr.resample(soxr.resample(known, 24_000, rate), rate, 24_000)
    error = heard[late:][: len(known)] - known
    decibel = 10 * np.log10(np.mean(np.square(known)) / np.mean(np.square(error)))
    assert decibel > {"pcm": 40 if rate == 24_000 else 25, "mulaw": 20, "alaw": 20}[encoding]


@pytest.mark.parametrize(("from_rate", "to_rate"), [(8000, 24_000), (24_000, 8000), (16_000, 24_000), (24_000, 16_000)])
def test_where_the_stream_is_cut_is_not_heard(from_rate: int, to_rate: int) -> None:
    sound = speech(1.0)[:from_rate]
    whole = Resampler(from_rate, to_rate).resample(sound)
    pieces = in_pieces(Resampler(from_rate, to_rate), sound, [160, 1, 333, 7, 1920])
    assert len(whole) == len(pieces) == to_rate
    assert np.allclose(whole, pieces, atol=1e-6)


def test_what_a_telephone_has_no_room_for_does_not_fold_back() -> None:
    passed = in_pieces(Resampler(24_000, 8000), tone(1000, 24_000), [1920])
    assert np.sqrt(np.mean(np.square(passed[400:]))) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)
    for hertz in (4500, 5000, 7000, 11_000):
        folded = in_pieces(Resampler(24_000, 8000), tone(hertz, 24_000), [1920])
        assert np.abs(folded[400:]).max() < 0.5 * 10 ** (-60 / 20)


@pytest.mark.parametrize("data", [b"\x00", bytes(3841)])
def test_half_a_sample_is_refused(data: bytes) -> None:
    with pytest.raises(AudioError, match="whole 16-bit samples"):
        RawAudioReader("pcm", 16_000).read(data)


@pytest.mark.parametrize(("encoding", "rate"), FORMATS)
def test_more_than_ten_seconds_at_once_is_refused(encoding: RawEncoding, rate: int) -> None:
    width = 2 if encoding == "pcm" else 1
    reader = RawAudioReader(encoding, rate)
    assert len(reader.read(bytes(10 * rate * width))) == 240_000
    with pytest.raises(AudioError, match="10 s"):
        reader.read(bytes((10 * rate + 1) * width))


def test_what_is_beyond_full_scale_is_clipped() -> None:
    loud = np.array([2.0, -2.0, np.inf, np.nan], np.float32)
    assert RawAudioWriter("mulaw", 24_000).write(loud) == bytes([0x80, 0x00, 0x80, 0xFF])
