"""Unpacks the `voices.tgz` of a model's repository into a folder of `.safetensors`, once."""

import hashlib
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from core.errors import VoiceError
from core.media.voices import MAX_VOICE_BYTES, VOICE_NAME, VoiceFolder, read_packaged_voice, write_voice

MAX_MEMBERS = 1000
MAX_TOTAL_BYTES = 2 * 2**30
STAMP = ".archive"


def unpack_voices(archive: Path, folder: Path) -> VoiceFolder:
    """The voices of `archive` as a folder of `.safetensors`, written only when `folder` does not hold them yet.

    The caller vouches that the archive is from a model's own repository at a pinned revision: its `.pt` files are read.
    Raises VoiceError, naming the member, for links, devices, paths that lead out of it, and sizes that no voice has.
    Blocks on the disk.
    """
    try:
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        folder = folder / digest[:16]
        stamp = folder / STAMP
        if stamp.is_file():
            return VoiceFolder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch, tarfile.open(archive, "r:*") as tar:
            for path in _extract(archive, tar, Path(scratch)):
                write_voice(folder / f"{path.stem}.safetensors", read_packaged_voice(path))
        stamp.write_text(digest)  # last: it says that all of them are there
    except (tarfile.TarError, EOFError, OSError) as error:
        raise VoiceError(
            f"{archive}: the voices cannot be unpacked: {error}. Delete the file to fetch it again."
        ) from error
    return VoiceFolder(folder)


def _extract(archive: Path, tar: tarfile.TarFile, scratch: Path) -> list[Path]:
    total = 0
    paths = []
    for count, member in enumerate(tar):
        total += member.size
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or "\\" in member.name:
            raise VoiceError(f"{archive}: {member.name!r} leads out of the archive; nothing of it is used.")
        if not (member.isreg() or member.isdir()):
            raise VoiceError(f"{archive}: {member.name!r} is a link or a device; nothing of it is used.")
        if count >= MAX_MEMBERS or member.size > MAX_VOICE_BYTES or total > MAX_TOTAL_BYTES:
            raise VoiceError(
                f"{archive}: {member.name!r} makes it larger than any archive of voices; nothing of it is used."
            )
        if member.isreg() and path.suffix == ".pt" and VOICE_NAME.fullmatch(path.stem):
            tar.extract(member, scratch, filter="data")
            paths.append(scratch / path)
    if not paths:
        raise VoiceError(f"{archive}: holds no voices (.pt files).")
    return paths
