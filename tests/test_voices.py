"""Voice files: read safely, made, unpacked, offered."""

import io
import os
import struct
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyloudnorm
import pytest
import safetensors.numpy
import sphn
import torch

from core.engine.prompt import Voice
from core.errors import AudioError, VoiceError
from core.media.sound_files import read_sound
from core.media.voice_archive import unpack_voices
from core.media.voice_clips import prepare_voice_clip
from core.media.voices import VoiceFolder, offered, read_packaged_voice, read_voice, voice_name, write_voice


def codes(frames: int = 20) -> npt.NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, 2048, (frames, 8))


def packaged(frames: int = 19, dim: int = 64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "embeddings": torch.randn((frames, 1, 1, dim), generator=generator).bfloat16(),
        "cache": torch.randint(0, 2048, (1, 17, 4), generator=generator, dtype=torch.int32),
    }


def murmur(seconds: float, rate: int = 24_000, level: float = 0.1) -> npt.NDArray[np.float32]:
    t = np.arange(int(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * 220 * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))).astype(np.float32)


def archive(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_codes_and_embeddings_are_the_same_after_writing(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    made = [
        Voice("coded", codes=codes()),
        Voice("embedded", embeddings=rng.standard_normal((19, 64), np.float32), ring=rng.integers(0, 2048, (17, 4))),
    ]
    for voice in made:
        write_voice(tmp_path / f"{voice.name}.safetensors", voice)
        read = read_voice(tmp_path / f"{voice.name}.safetensors")
        assert read.name == voice.name
        assert read.fingerprint == voice.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coded.safetensors", "embedded.safetensors"]
    with pytest.raises(VoiceError, match="recording"):
        write_voice(tmp_path / "r.safetensors", Voice("r", pcm=murmur(1)))


def test_a_voice_that_several_write_at_once_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "shared.safetensors"
    voices = [Voice("shared", codes=codes(frames)) for frames in range(100, 108)]

    def write(voice: Voice) -> None:
        for _ in range(20):
            write_voice(path, voice)

    with ThreadPoolExecutor(len(voices)) as threads:
        list(threads.map(write, voices))
    assert read_voice(path).fingerprint in [voice.fingerprint for voice in voices]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"codes": codes()[:, :7]}, "not int64"),
        ({"codes": codes().astype(np.int32)}, "not int64"),
        ({"codes": codes() + 2048}, "outside 0 to 2047"),
        ({"codes": codes()[:0]}, "0 rows"),
        ({"codes": np.zeros((3000, 8), np.int64)}, "3000 rows"),
        ({"other": codes()}, "other"),
        ({"embeddings": np.zeros((3, 4), np.float32)}, "ring"),
        ({"embeddings": np.full((3, 4), np.nan, np.float32), "ring": np.zeros((17, 4), np.int64)}, "not finite"),
        ({"embeddings": np.zeros((3, 4), np.float32), "ring": np.full((17, 4), 32000)}, "audio rows"),
        ({"embeddings": np.zeros((3, 4), np.float32), "ring": np.zeros((16, 4), np.int64)}, "ring is int64"),
    ],
)
def test_tensors_that_are_no_voice_are_refused(tmp_path: Path, tensors: dict[str, npt.NDArray[Any]], says: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(safetensors.numpy.save(tensors, metadata={"format": "personaplex-voice"}))
    with pytest.raises(VoiceError, match=says) as caught:
        read_voice(path)
    assert str(path) in str(caught.value)


def test_other_files_in_a_voices_clothes_are_refused(tmp_path: Path) -> None:
    contents = {
        "garbage.safetensors": b"\xff" * 100,
        "pickle.safetensors": saved({"codes": torch.zeros(3, 8)}),
        "foreign.safetensors": safetensors.numpy.save({"codes": codes()}),
        "empty.safetensors": b"",
        "garbage.wav": b"RIFF" + b"\x00" * 40,
        "empty.wav": b"",
        "packaged.pt": saved(packaged()),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(VoiceError, match=name):
            read_voice(tmp_path / name)


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
def test_a_recording_is_resampled_and_made_even(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "me.wav"
    sphn.write_wav(str(path), murmur(2, rate), rate)
    voice = read_voice(path)
    assert voice.name == "me"
    assert voice.pcm is not None
    assert voice.pcm.dtype == np.float32
    assert abs(len(voice.pcm) - 48_000) <= 1
    assert pyloudnorm.Meter(24_000).integrated_loudness(voice.pcm.astype(np.float64)) == pytest.approx(-24, abs=0.1)


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (murmur(0.5), "at least 1 s"),
        (murmur(61), "to 60 s or less"),
        (np.zeros(48_000, np.float32), "silent"),
        (murmur(2, level=0.0001), "silent"),
        (np.clip(murmur(2, level=3), -1, 1), "clipped"),
    ],
)
def test_a_recording_that_cannot_be_used_says_what_to_do(
    tmp_path: Path, samples: npt.NDArray[np.float32], says: str
) -> None:
    path = tmp_path / "me.wav"
    sphn.write_wav(str(path), samples, 24_000)
    with pytest.raises(VoiceError, match=says) as caught:
        read_voice(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_099, 44_100, 48_000])
def test_resampling_moves_nothing_and_loses_nothing(tmp_path: Path, rate: int) -> None:
    """A sweep in a second of silence at either end comes out where it was."""
    time = np.arange(2 * rate) / rate
    sweep = np.where(abs(time - 1) < 0.9, np.sin(2 * np.pi * (300 + 400 * time) * time), 0)
    sphn.write_wav(str(tmp_path / "a.wav"), (0.3 * sweep).astype(np.float32), rate)
    got = read_sound(tmp_path / "a.wav")
    time = np.arange(48_000) / 24_000
    expected = 0.3 * np.where(abs(time - 1) < 0.9, np.sin(2 * np.pi * (300 + 400 * time) * time), 0)
    assert len(got) == 48_000
    assert float(np.square(got - expected).mean() / np.square(expected).mean()) < 1e-3


def with_header(rate: int, channels: int, size: int = 0xFFFFFFFF) -> bytes:
    """A second of 16-bit sound at 24 kHz with what a WAV header may say; sizes as in what is written into a pipe."""
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2 & 0xFFFFFFFF, channels * 2, 16)
    sound = (murmur(1)[:24_000] * 32767).astype("<i2").tobytes()
    return (
        b"RIFF"
        + struct.pack("<I", size)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", size)
        + sound
    )


def test_the_length_is_that_of_the_data(tmp_path: Path) -> None:
    """`ffmpeg -f wav -` does not know the length when it writes the header."""
    (tmp_path / "pipe.wav").write_bytes(with_header(24_000, 1))
    assert len(read_sound(tmp_path / "pipe.wav")) == 24_000


@pytest.mark.parametrize(("rate", "channels"), [(0, 1), (1, 1), (4_294_967_295, 1), (24_000, 0), (24_000, 1000)])
def test_a_header_that_cannot_be_true_is_refused(tmp_path: Path, rate: int, channels: int) -> None:
    (tmp_path / "odd.wav").write_bytes(with_header(rate, channels))
    with pytest.raises(AudioError, match=r"odd\.wav"):
        read_sound(tmp_path / "odd.wav")
    with pytest.raises(VoiceError, match=r"odd\.wav"):
        read_voice(tmp_path / "odd.wav")


def test_stereo_becomes_mono_and_wrong_numbers_are_refused() -> None:
    stereo = np.stack([murmur(2), murmur(2)])
    assert prepare_voice_clip(stereo, "x").shape == (48_000,)
    stereo[0, 7] = np.nan
    with pytest.raises(VoiceError, match="not numbers"):
        prepare_voice_clip(stereo, "x")


def test_nvidias_file_is_read_into_the_engines_form(tmp_path: Path) -> None:
    content = packaged()
    path = tmp_path / "NATF2.pt"
    torch.save(content, path)
    voice = read_packaged_voice(path)
    assert voice.name == "NATF2"
    assert voice.embeddings is not None
    assert voice.ring is not None
    assert voice.embeddings.shape == (19, 64)
    assert np.array_equal(voice.embeddings, content["embeddings"][:, 0, 0].float().numpy())
    assert np.array_equal(voice.ring, content["cache"][0].numpy())


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo no > evil_was_here",)


@pytest.mark.parametrize(
    "content",
    [
        Evil(),
        {"embeddings": Evil(), "cache": torch.zeros(1, 17, 4)},
        {"embeddings": torch.zeros(3, 1, 2, 8), "cache": torch.zeros(1, 17, 4)},
        {"embeddings": torch.zeros(3, 1, 1, 8), "cache": torch.zeros(2, 17, 4)},
        {"embeddings": torch.zeros(3, 1, 1, 8)},
        [1, 2],
    ],
)
def test_a_packaged_file_of_another_shape_or_with_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v.pt").write_bytes(saved(content))
    with pytest.raises(VoiceError, match=r"v\.pt"):
        read_packaged_voice(tmp_path / "v.pt")
    assert not (tmp_path / "evil_was_here").exists()


def test_an_archive_is_unpacked_once(tmp_path: Path) -> None:
    members = {f"voices/{name}.pt": saved(packaged()) for name in ("NATF2", "VARM0")}
    source = archive(tmp_path / "voices.tgz", {**members, "voices/README": b"read me"})
    voices = unpack_voices(source, tmp_path / "out")
    assert voices.names() == ["NATF2", "VARM0"]
    assert voices.load("NATF2") is not None
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert unpack_voices(source, tmp_path / "out").names() == ["NATF2", "VARM0"]
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    archive(source, {"voices/NATM0.pt": saved(packaged(10))})
    assert "NATM0" in unpack_voices(source, tmp_path / "out").names()


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "members",
    [
        {"../evil.pt": b"x"},
        {"/evil.pt": b"x"},
        {"voices/../../evil.pt": b"x"},
        {"a": link("a", tarfile.SYMTYPE, "/etc")},
        {"a": link("a.pt", tarfile.LNKTYPE, "/etc/passwd")},
        {"a": link("a", tarfile.FIFOTYPE, "")},
        {"voices/a.txt": b"nothing"},
        {"voices/a.pt": b"not a voice"},
    ],
)
def test_a_hostile_archive_leaves_nothing_behind(tmp_path: Path, members: dict[str, Any]) -> None:
    source = archive(tmp_path / "voices.tgz", members)
    with pytest.raises(VoiceError, match=r"evil|'a|holds no voices|a\.pt"):
        unpack_voices(source, tmp_path / "out")
    assert not list(tmp_path.rglob("evil*"))
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_an_archive_that_is_none_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.media.voice_archive.MAX_VOICE_BYTES", 100)
    with pytest.raises(VoiceError, match="larger"):
        unpack_voices(archive(tmp_path / "big.tgz", {"a.pt": b"x" * 101}), tmp_path / "out")
    whole = archive(tmp_path / "cut.tgz", {"a.pt": os.urandom(90)}).read_bytes()
    (tmp_path / "cut.tgz").write_bytes(whole[:60])
    for name in ("cut.tgz", "none.tgz"):
        with pytest.raises(VoiceError, match="cannot be unpacked"):
            unpack_voices(tmp_path / name, tmp_path / "out")


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    packed = archive(tmp_path / "voices.tgz", {"voices/NATF0.pt": saved(packaged())})
    (tmp_path / "cache").write_text("a file in its place")
    with pytest.raises(VoiceError, match="cannot be unpacked there: Not a directory"):
        unpack_voices(packed, tmp_path / "cache")


def test_a_folder_follows_its_files(tmp_path: Path) -> None:
    folder = VoiceFolder(tmp_path / "voices")
    assert folder.names() == []
    (tmp_path / "voices").mkdir()
    path = tmp_path / "voices" / "mine.safetensors"
    write_voice(path, Voice("mine", codes=codes(5)))
    assert folder.names() == ["mine"]
    first = folder.load("mine")
    assert folder.load("mine") is first
    write_voice(path, Voice("mine", codes=codes(6)))
    changed = folder.load("mine")
    assert changed is not None
    assert changed.codes is not None
    assert len(changed.codes) == 6
    path.write_bytes(b"half of it")
    for _ in range(2):
        with pytest.raises(VoiceError, match="not a whole safetensors file"):
            folder.load("mine")
    write_voice(path, Voice("mine", codes=codes(7)))
    assert folder.load("mine") is not None
    path.unlink()
    assert folder.load("mine") is None


def test_a_name_never_becomes_a_path(tmp_path: Path) -> None:
    write_voice(tmp_path / "secret.safetensors", Voice("secret", codes=codes()))
    (tmp_path / "voices").mkdir()
    folder = VoiceFolder(tmp_path / "voices")
    for name in ("../secret", str(tmp_path / "secret"), "..", "", "a/b", "\x00", "x" * 5000):
        assert folder.load(name) is None


def test_files_that_cannot_be_offered_are_named(tmp_path: Path) -> None:
    for name in ("my voice.wav", "old.pt", "notes.txt", "._anna.wav", ".anna.wav", "bob.MP3", "twice.WAV", "twice.wav"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "lost.wav").symlink_to(tmp_path / "nowhere")
    folder = VoiceFolder(tmp_path)
    assert folder.names() == ["twice"]
    problems = folder.problems()
    for problem, (name, says) in zip(
        problems,
        (
            ("bob.MP3", "Save the recording as .wav"),
            ("lost.wav", "a link to nothing"),
            ("my voice.wav", "only letters"),
            ("old.pt", "carry code"),
            ("twice.WAV", "twice.wav is the same voice's name"),
        ),
        strict=True,
    ):
        assert problem.startswith(f"{tmp_path / name}: ")
        assert says in problem


def test_endings_in_capital_letters_are_taken(tmp_path: Path) -> None:
    write_voice(tmp_path / "bob.safetensors", Voice("bob", codes=np.zeros((9, 8), np.int64)))
    (tmp_path / "bob.safetensors").rename(tmp_path / "bob.SafeTensors")
    sphn.write_wav(tmp_path / "ANNA.wav", murmur(2.0), 24_000)
    (tmp_path / "ANNA.wav").rename(tmp_path / "ANNA.WAV")
    folder = VoiceFolder(tmp_path)
    assert folder.names() == ["ANNA", "bob"]
    assert folder.problems() == []
    for name in ("ANNA", "bob"):
        voice = folder.load(name)
        assert voice is not None
        assert voice.name == name


def test_the_allowed_voices_come_in_the_order_of_the_list() -> None:
    available = ["VARM0", "NATF1", "NATF0", "NATM0", "mine"]
    assert offered(available, ["mine", "NAT*", "NATF1"]) == ["mine", "NATF0", "NATF1", "NATM0"]
    assert offered(available, ["natf0"]) == []
    assert voice_name("NATF2.pt") == voice_name("NATF2") == "NATF2"
