"""Voices: their names, reading them safely from files, and which of them are offered.

A voice is `.safetensors` (ours, see `write_voice`) or a recording (`.wav`). NVIDIA's `.pt` can carry code, so it is
read in one place only, `read_packaged_voice`, for code that vouches for where the file comes from.
"""

import re
import secrets
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from core.engine.architecture import AGENT_CODEBOOKS, STREAMS
from core.engine.prompt import RING, Voice
from core.errors import VoiceError
from core.media.voice_clips import read_voice_clip

VOICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""The form of a voice's name, which appears in URLs, logs and file names."""

KINDS = {"NAT": "Natural", "VAR": "Varied"}
SEXES = {"F": "female", "M": "male"}

SUFFIXES = (".safetensors", ".wav")
"""Of a voice's file, in small letters; the first one has precedence."""
OTHER_SOUNDS = {".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma"}
FORMAT = "personaplex-voice"
MAX_VOICE_BYTES = 256 * 2**20
MAX_VOICE_FRAMES = 2000
"""160 s: two thirds of the model's context, far more than a voice needs."""
AUDIO_VOCAB_SIZE = 2048
TEXT_VOCAB_SIZE = 32000
"""Tokens are below these. In a ring, the size itself is the initial token, -1 no token, -2 one not known yet."""


def voice_name(text: str) -> str:
    """The name of a voice as a person or one of NVIDIA's clients writes it: they may add `.pt`."""
    return text.removesuffix(".pt")


def offered(available: Iterable[str], allow: Iterable[str]) -> list[str]:
    """The names in `available` that match the names and globs in `allow`, in the order of `allow`, each once."""
    names = sorted(set(available))
    return list(dict.fromkeys(name for pattern in allow for name in names if fnmatchcase(name, pattern)))


def packaged_label(name: str) -> str:
    """What one of PersonaPlex's own voices is like, such as "Natural, female 2" for NATF2; "" for any other."""
    parts = re.fullmatch(r"(NAT|VAR)([FM])(\d+)", name)
    return f"{KINDS[parts[1]]}, {SEXES[parts[2]]} {parts[3]}" if parts else ""


def not_offered(name: str, voices: Collection[str]) -> str:
    """A sentence that says that `name` is not among the offered `voices`."""
    known = f"Offered: {', '.join(voices)}" if voices else "No voice is offered at all"
    return f"the voice {name[:64]!r} is not offered. {known}; voices.allow in config.yaml decides."


def read_voice(path: Path) -> Voice:
    """The voice in a `.safetensors` or `.wav` file, named after the file. Raises VoiceError. Blocks on the disk."""
    if path.suffix.lower() == ".wav":
        return Voice(path.stem, pcm=read_voice_clip(path))
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    raise VoiceError(
        f"{path}: a voice is a .safetensors or .wav file. "
        "Make one from a recording with `personaplex voice make NAME IN.wav`."
    )


def write_voice(path: Path, voice: Voice) -> None:
    """Save `voice` as safetensors, whole or not at all. Raises VoiceError, also for a recording that is not encoded."""
    forms = {"codes": voice.codes, "embeddings": voice.embeddings, "ring": voice.ring}
    tensors = {key: np.ascontiguousarray(form) for key, form in forms.items() if form is not None}
    if not tensors:
        raise VoiceError(f"the voice {voice.name} is a recording; encode it before it is saved.")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")  # others may write the same voice now
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(safetensors.numpy.save(tensors, metadata={"format": FORMAT, "version": "1"}))
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise VoiceError(f"{path}: the voice cannot be written: {error.strerror or error}.") from error


def read_packaged_voice(path: Path) -> Voice:
    """The voice in one of NVIDIA's `.pt` files: `{"embeddings": [n, 1, 1, dim], "cache": [1, 17, 4]}`.

    Only for files of a model's own repository at a pinned revision: even with `weights_only` a hostile file is a risk.
    Raises VoiceError. Blocks on the disk.
    """
    import torch  # takes seconds to import, and only this function needs it here

    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
        embeddings = content["embeddings"].float().numpy()
        ring = content["cache"].long().numpy()
    except Exception as error:  # the unpickler raises whatever the file makes it raise
        raise VoiceError(f"{path}: not one of NVIDIA's voice files ({type(error).__name__}).") from error
    if embeddings.ndim != 4 or embeddings.shape[1:3] != (1, 1) or ring.shape != (1, STREAMS, RING):
        raise VoiceError(
            f"{path}: embeddings {list(embeddings.shape)} and cache {list(ring.shape)} are not "
            f"[n, 1, 1, dim] and [1, {STREAMS}, {RING}]."
        )
    return _checked(path, {"embeddings": embeddings[:, 0, 0].copy(), "ring": ring[0].copy()})


class VoiceFolder:
    """The voices in one folder, looked up by name; files may be added and removed while it is in use.

    A name is never used as a path: it is looked up in the folder's listing. NAME.safetensors takes precedence over
    NAME.wav; the ending may have capital letters.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, tuple[tuple[str, int, int, int], Voice | VoiceError]] = {}
        """What came of the last look at each file, and which file that was."""

    def names(self) -> list[str]:
        """The names of the voices that are in the folder now, sorted; none when the folder does not exist."""
        return list(self._files())

    def load(self, name: str) -> Voice | None:
        """The voice of that name, read again when its file has changed; None when there is none.

        Raises VoiceError when its file cannot be used. Blocks on the disk.
        """
        path = self._files().get(name)
        if path is None:
            return None
        try:
            status = path.stat()
        except OSError as error:
            raise VoiceError(f"{path}: cannot be read: {error.strerror or error}.") from error
        stamp = (path.name, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        known = self._read.get(name)
        if known is None or known[0] != stamp:
            try:
                known = (stamp, read_voice(path))
            except VoiceError as error:
                known = (stamp, error)
            self._read[name] = known
        if isinstance(known[1], VoiceError):
            raise VoiceError(str(known[1]))
        return known[1]

    def problems(self) -> list[str]:
        """One sentence for each file that looks like a voice and cannot be offered. Blocks on the disk."""
        found, files = [], self._files()
        for path in self._listing():
            suffix = path.suffix.lower()
            if suffix in SUFFIXES and not VOICE_NAME.fullmatch(path.stem):
                found.append(f"{path}: a voice's name has only letters, digits, '-' and '_'. Rename the file.")
            elif suffix in SUFFIXES and not path.is_file():
                found.append(f"{path}: a link to nothing, or no file. Remove it.")
            elif suffix in SUFFIXES and (used := files.get(path.stem, path)) != path and used.suffix.lower() == suffix:
                found.append(f"{path}: {used.name} is the same voice's name. Remove one of the two.")
            elif suffix in OTHER_SOUNDS and path.stem not in files:
                found.append(f"{path}: a voice is a .wav or .safetensors file. Save the recording as .wav.")
            elif suffix in {".pt", ".pth", ".ckpt", ".bin"}:
                found.append(f"{path}: such files can carry code and are not read. Use .safetensors or .wav.")
        return found

    def _files(self) -> dict[str, Path]:
        """The file of each voice, by its name."""
        files: dict[str, Path] = {}
        for suffix in reversed(SUFFIXES):  # the first one has precedence, and small letters before others
            for path in sorted(self._listing(), key=lambda path: path.suffix == suffix):
                if path.suffix.lower() == suffix and VOICE_NAME.fullmatch(path.stem) and path.is_file():
                    files[path.stem] = path
        return dict(sorted(files.items()))

    def _listing(self) -> list[Path]:
        """Everything in the folder but other folders, and files that editors and copies from a Mac leave."""
        try:
            return sorted(path for path in self.folder.iterdir() if not path.name.startswith(".") and not path.is_dir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise VoiceError(f"{error.filename}: voices cannot be read: {error.strerror or error}.") from error


def _read_safetensors(path: Path) -> Voice:
    try:
        if path.stat().st_size > MAX_VOICE_BYTES:
            raise VoiceError(f"{path}: larger than {MAX_VOICE_BYTES // 2**20} MiB; this is not a voice.")
        with safe_open(path, framework="numpy") as file:  # type: ignore[no-untyped-call]
            if (file.metadata() or {}).get("format") != FORMAT:
                raise VoiceError(f"{path}: not a voice, but other safetensors. Make one with `personaplex voice make`.")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise VoiceError(f"{path}: not a whole safetensors file: {error}") from error
    return _checked(path, tensors)


def _checked(path: Path, tensors: dict[str, npt.NDArray[Any]]) -> Voice:
    """The voice in `tensors`, after a check of shapes, dtypes and token ranges: a wrong token can crash the GPU."""
    if tensors.keys() == {"codes"}:
        codes = tensors["codes"]
        _check(path, "codes", codes, np.int64, (None, AGENT_CODEBOOKS))
        _check_range(path, "codes", codes, 0, AUDIO_VOCAB_SIZE - 1)
        return Voice(path.stem, codes=codes)
    if tensors.keys() == {"embeddings", "ring"}:
        embeddings, ring = tensors["embeddings"], tensors["ring"]
        _check(path, "embeddings", embeddings, np.float32, (None, None))
        _check(path, "ring", ring, np.int64, (STREAMS, RING))
        _check_range(path, "ring's text row", ring[:1], -2, TEXT_VOCAB_SIZE)
        _check_range(path, "ring's audio rows", ring[1:], -2, AUDIO_VOCAB_SIZE)
        if not np.isfinite(embeddings).all():
            raise VoiceError(f"{path}: embeddings has values that are not finite.")
        return Voice(path.stem, embeddings=embeddings, ring=ring)
    raise VoiceError(f"{path}: holds {sorted(tensors)}; a voice has codes, or embeddings and ring.")


def _check(
    path: Path, key: str, tensor: npt.NDArray[Any], dtype: type[np.generic], shape: tuple[int | None, int | None]
) -> None:
    expected = f"{dtype.__name__}[{', '.join('n' if size is None else str(size) for size in shape)}]"
    fits = tensor.ndim == 2 and all(size in (None, actual) for size, actual in zip(shape, tensor.shape, strict=True))
    if not fits or tensor.dtype != dtype:
        raise VoiceError(f"{path}: {key} is {tensor.dtype}{list(tensor.shape)}, not {expected}.")
    if not 1 <= len(tensor) <= MAX_VOICE_FRAMES or tensor.shape[1] < 1:
        raise VoiceError(f"{path}: {key} has {len(tensor)} rows; a voice has 1 to {MAX_VOICE_FRAMES} frames.")


def _check_range(path: Path, key: str, tensor: npt.NDArray[Any], low: int, high: int) -> None:
    if tensor.min() < low or tensor.max() > high:
        raise VoiceError(f"{path}: {key} has tokens outside {low} to {high}.")
