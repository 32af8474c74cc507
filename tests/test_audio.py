"""Audio of strangers: whatever the bytes, samples or an AudioError."""

import contextlib
import io
import struct

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from core.engine.call import FRAME_SAMPLES, Frame
from core.errors import AudioError
from core.media.audio_codecs import (
    MAX_MESSAGE_SAMPLES,
    Framer,
    OpusReader,
    OpusWriter,
    PcmReader,
    PcmWriter,
)
from core.media.ogg import MAX_PACKET_BYTES, PacketReader
from tests.conftest import speech

HEAD = b"OpusHead" + bytes([1, 1]) + struct.pack("<HIhB", 312, 48000, 0, 0)
TAGS = b"OpusTags" + struct.pack("<II", 0, 0)


def page(packets: list[bytes], *, serial: int = 1, flags: int = 0, lacing: bytes | None = None) -> bytes:
    """An Ogg page of whole packets, or with a segment table of one's own."""
    if lacing is None:
        lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    header = b"OggS" + bytes([0, flags]) + struct.pack("<qIII", 0, serial, 0, 0) + bytes([len(lacing)])
    return header + lacing + b"".join(packets)


def opening(serial: int = 1) -> bytes:
    return page([HEAD], serial=serial, flags=2) + page([TAGS], serial=serial)


def coded(samples: npt.NDArray[np.float32]) -> list[bytes]:
    """One piece of Ogg/Opus for each frame."""
    writer = OpusWriter()
    return [writer.write(samples[at : at + FRAME_SAMPLES]) for at in range(0, len(samples), FRAME_SAMPLES)]


def alike(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    """Whether loud and soft come at the same times in both, or up to 20 ms later in b: what a lossy codec keeps of any
    sound, and how late it may be when it is coded twice."""

    def levels(sound: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        loud: npt.NDArray[np.float32] = np.sqrt(
            np.square(sound[: len(sound) // 480 * 480].reshape(-1, 480)).mean(axis=1)
        )
        return loud

    length = len(a) - 480
    late = [np.corrcoef(levels(a[:length]), levels(b[start:][:length]))[0, 1] for start in range(0, 481, 80)]
    return bool(max(late) > 0.95)


def test_opus_carries_speech_frame_by_frame() -> None:
    samples = speech(2.0)[: 24 * FRAME_SAMPLES]
    reader = OpusReader()
    frames = [reader.read(piece) for piece in coded(samples)]
    assert [len(frame) for frame in frames] == [FRAME_SAMPLES] * 24
    assert alike(samples, np.concatenate(frames))


@given(st.data())
def test_opus_in_any_chunking_is_the_same(data: st.DataObject) -> None:
    stream = b"".join(coded(speech(0.4)[: 5 * FRAME_SAMPLES]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    reader = OpusReader()
    pieces = [reader.read(stream[a:b]) for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    np.testing.assert_array_equal(np.concatenate(pieces), OpusReader().read(stream))


def test_pages_of_an_old_stream_are_dropped() -> None:
    old, new = coded(speech(0.8, seed=1)), coded(speech(0.8, seed=2))
    reader = OpusReader()
    assert len(reader.read(b"".join(old[3:6]))) == 0
    got = reader.read(b"".join(new))
    np.testing.assert_array_equal(got, OpusReader().read(b"".join(new)))


def test_pages_of_another_stream_in_between_are_dropped() -> None:
    reader = OpusReader()
    reader.read(opening(serial=1))
    assert len(reader.read(page([b"\xfc"], serial=2))) == 0
    assert len(reader.read(page([b"\xfc"], serial=1))) == 480


def test_a_stream_that_begins_again_is_decoded_afresh() -> None:
    pieces = coded(speech(0.8))
    reader = OpusReader()
    first = reader.read(b"".join(pieces))
    np.testing.assert_array_equal(reader.read(b"".join(pieces)), first)


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (b"\xfc" * 40, "Wrap bare Opus packets in Ogg pages"),
        (b"OggS\x07" + b"\x00" * 30, "version 7"),
        (page([b"\x01vorbis"], flags=2), "not Opus"),
        (page([b""], flags=2) + page([b"\xfc"]), "not Opus"),
        (b"\x1aE\xdf\xa3" + b"\x00" * 30, "WebM, as a browser's MediaRecorder makes it"),
        (b"RIFF\x00\x00\x00\x00WAVE", "a WAV file"),
        (page([HEAD[:12]], flags=2), "header that ends too early"),
        (page([HEAD[:9] + b"\x06" + HEAD[10:18] + b"\x01"], flags=2), "6 channels; send mono or stereo"),
        (opening() + page([b"\xff\xff\xff"]), "not valid Opus"),
        (opening() + page([b"\xfc" * 255 * 80], lacing=b"\xff" * 80), str(MAX_PACKET_BYTES)),
        (opening() + page([b"\x18"] * 40) * 20, "more than 10 s"),
        (opening() + page([b"\xfc"])[:-1] + b"X" + b"garbage", "not an Ogg stream"),
    ],
)
def test_bad_streams_are_refused_with_a_reason(stream: bytes, why: str) -> None:
    with pytest.raises(AudioError, match=why):
        OpusReader().read(stream)


def test_a_packet_over_many_pages_is_not_kept_for_ever() -> None:
    reader = OpusReader()
    reader.read(opening())
    endless = page([b"\xfc" * 255 * 30], lacing=b"\xff" * 30, flags=1)
    assert len(reader.read(endless * 2)) == 0
    with pytest.raises(AudioError, match="Opus packet of more"):
        reader.read(endless)


def test_tags_of_any_size_go_by() -> None:
    """A picture among the tags makes a packet of many pages."""
    reader = OpusReader()
    assert len(reader.read(page([HEAD], flags=2))) == 0
    for index in range(20):
        assert (
            len(reader.read(page([(TAGS + b"y" * 40_800)[:40_800]], lacing=b"\xff" * 160, flags=1 if index else 0)))
            == 0
        )
    assert len(reader.read(page([b"y"], flags=1) + page([b"\xfc"]))) == 480


def test_a_page_of_more_than_five_seconds_is_heard() -> None:
    """255 packets of 20 ms, most of one byte, as discontinuous transmission makes them."""
    assert len(OpusReader().read(opening() + page([b"\x08"] * 255))) == 255 * 480


def test_a_packet_without_content_is_no_sound() -> None:
    assert len(OpusReader().read(opening() + page([b"\xfc", b"", b"\xfc"]))) == 2 * 480


def test_a_skeleton_beside_the_sound_is_passed_over() -> None:
    skeleton = page([b"fishead\x00" + bytes(56)], serial=9, flags=2)
    bones = page([b"fisbone\x00" + bytes(44)], serial=9) + page([b""], serial=9, flags=4)
    stream = skeleton + page([HEAD], flags=2) + bones + page([TAGS]) + page([b"\xfc"])
    assert len(OpusReader().read(stream)) == 480


def test_stereo_is_mixed_down() -> None:
    stereo = HEAD[:9] + b"\x02" + HEAD[10:]
    assert len(OpusReader().read(page([stereo], flags=2) + page([TAGS]) + page([b"\xfc"]))) == 480


@pytest.mark.parametrize("stream", [page([b""]) * 1000, opening() * 500])
def test_pages_without_sound_cost_something(stream: bytes) -> None:
    """So that whoever sends them without end comes to a limit."""
    reader = OpusReader()
    reader.read(opening())
    before = reader.overhead
    assert len(reader.read(stream)) == 0
    assert reader.overhead - before >= 24_000


def test_what_is_written_is_ogg_as_the_standard_has_it() -> None:
    """libsndfile, which checks each page's checksum and position, reads as much as was written."""
    samples = speech(2.0)[: 24 * FRAME_SAMPLES]
    data, rate = soundfile.read(io.BytesIO(b"".join(coded(samples))), dtype="float32")
    assert rate == 24_000
    assert abs(len(data) - len(samples)) <= 480
    assert alike(samples, np.pad(data, (0, max(0, len(samples) - len(data))))[: len(samples)])


def test_packets_are_found_wherever_pages_end() -> None:
    """A packet of 255 * n bytes ends with a segment of none, which may lie on the next page."""
    long = b"\xfc" + bytes(509)
    reader = PacketReader()
    got = list(reader.read(opening() + page([long], lacing=b"\xff\xff") + page([b"\xfc"], lacing=b"\x00\x01", flags=1)))
    assert got == [long, b"\xfc"]


def test_an_empty_last_page_is_no_fault() -> None:
    reader = OpusReader()
    reader.read(opening())
    assert len(reader.read(page([b""], flags=4))) == 0
    assert len(reader.read(page([], flags=4))) == 0


def test_a_truncated_stream_gives_what_was_whole() -> None:
    stream = b"".join(coded(speech(0.8)))
    assert len(OpusReader().read(stream[:-7])) >= 8 * FRAME_SAMPLES


@given(st.binary(max_size=4000))
def test_any_bytes_are_samples_or_an_audio_error(data: bytes) -> None:
    for reader in (OpusReader(), PcmReader()):
        with contextlib.suppress(AudioError):
            assert reader.read(data).dtype == np.float32


@given(st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), max_size=20), st.integers(1, 700))
def test_any_damage_to_a_stream_is_samples_or_an_audio_error(damage: list[tuple[int, int]], chunk: int) -> None:
    stream = bytearray(b"".join(coded(speech(0.4)[: 5 * FRAME_SAMPLES])))
    for at, value in damage:
        stream[at % len(stream)] = value
    reader = OpusReader()
    with contextlib.suppress(AudioError):
        for at in range(0, len(stream), chunk):
            assert len(reader.read(bytes(stream[at : at + chunk]))) <= MAX_MESSAGE_SAMPLES


@given(st.lists(st.binary(max_size=600), max_size=8), st.binary(min_size=0, max_size=20), st.integers(0, 7))
def test_any_packets_after_a_good_start_are_bounded(packets: list[bytes], lacing: bytes, flags: int) -> None:
    reader = OpusReader()
    reader.read(opening())
    with contextlib.suppress(AudioError):
        assert len(reader.read(page(packets, flags=flags & 5, lacing=lacing or None))) <= MAX_MESSAGE_SAMPLES


@given(st.lists(st.integers(0, 5000), max_size=10))
def test_frames_are_the_samples_cut_without_loss(lengths: list[int]) -> None:
    framer, start = Framer(), 0
    frames: list[Frame] = []
    for length in lengths:
        frames += framer.frames(np.arange(start, start + length, dtype=np.float32))
        start += length
    assert all(frame.shape == (FRAME_SAMPLES,) for frame in frames)
    assert len(frames) == start // FRAME_SAMPLES
    np.testing.assert_array_equal(np.concatenate([*frames, []]), np.arange(len(frames) * FRAME_SAMPLES))


def test_pcm_there_and_back() -> None:
    samples = speech(0.5)
    back = PcmReader().read(PcmWriter().write(samples))
    np.testing.assert_allclose(back, samples, atol=2 / 32768)


def test_pcm_of_half_a_sample_is_refused() -> None:
    with pytest.raises(AudioError, match="3 bytes"):
        PcmReader().read(b"\x00\x01\x02")


@pytest.mark.parametrize("writer", [PcmWriter, OpusWriter])
def test_no_sample_breaks_a_writer(writer: type[PcmWriter] | type[OpusWriter]) -> None:
    frame = np.zeros(FRAME_SAMPLES, np.float32)
    frame[:6] = [np.nan, np.inf, -np.inf, 1e30, -5, 2]
    assert writer().write(frame)


def test_pcm_writer_clips_instead_of_wrapping() -> None:
    assert np.frombuffer(PcmWriter().write(np.array([2, -2, np.nan], np.float32)), "<i2").tolist() == [32767, -32767, 0]
