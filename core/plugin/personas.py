"""Personas, the characters that callers talk with: one YAML file each, whose name is the persona's id."""

import os
import re
import stat
import threading
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from core.engine.sampling import Sampling
from core.engine.speech_queue import check_sentence
from core.errors import ConfigError, SayError
from core.media.voices import not_offered
from core.plugin.persona_images import PersonaImage, read_image
from core.settings.yaml_files import read_yaml
from core.settings.yaml_structs import decode

PERSONA_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""The form of an id. It appears in addresses, logs and file names, so it has no other characters."""


SUFFIXES = (".yaml", ".yml")
"""Of a persona's file, in small letters."""


@dataclass(frozen=True)
class Persona:
    """A character that callers talk with. `prompt` is the text that the model is given; it must never be logged."""

    id: str
    name: str
    description: str
    voice: str
    prompt: str = field(repr=False)
    sampling: Sampling = field(default_factory=Sampling)
    source: str = ""
    """Where the persona comes from, such as the path of its file, for messages."""
    greeting: str = ""
    """What the agent says first, word for word; "" leaves that to the model."""
    group: str = ""
    """The heading under which the page shows it, or ""."""
    starters: tuple[str, ...] = ()
    """Sentences that a caller may begin with; the page shows them."""
    emoji: str = ""
    image: PersonaImage | None = None
    """The picture in place of the one that the page draws from the name; goes before `emoji`."""
    pin_prompt: bool | None = None
    """Whether the prompt stays in the model's window for as long as the call lasts; None is `engine.pin_prompt`."""


EMOJI_CATEGORIES = {"So", "Sk", "Sm", "Mn", "Me", "Cf", "Nd", "Po"}
"""Of Unicode's characters, those that emoji consist of: no letters and no spaces."""
Starter = Annotated[str, Meta(min_length=1, max_length=100)]


class _PersonaFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The keys of a persona's YAML file."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    voice: Annotated[str, Meta(min_length=1)]
    description: Annotated[str, Meta(max_length=500)] = ""
    prompt: str = ""
    greeting: str = ""
    sampling: Sampling = Sampling()
    group: Annotated[str, Meta(max_length=60)] = ""
    starters: Annotated[tuple[Starter, ...], Meta(max_length=6)] = ()
    emoji: Annotated[str, Meta(max_length=16)] = ""
    image: str = ""
    pin_prompt: bool | None = None


Stamp = tuple[int, int, int, int]
"""Times of modification and of a change of permissions, size and inode of a file: one of them changes with every edit.
"""


@dataclass(frozen=True)
class _Read:
    """What a file held when it was read."""

    stamp: Stamp
    persona: Persona | None
    problems: tuple[str, ...]
    image: Path | None
    """The file of the persona's picture, whether it is there or not."""
    image_stamp: Stamp | None


class PersonaFolder:
    """The personas in the `.yaml` files of one folder. A file is read again only when it has changed.

    `.yml` and capital letters are taken for the same; files whose names begin with a dot are skipped.
    """

    def __init__(self, folder: Path, max_prompt_chars: int) -> None:
        self.folder = folder
        self._max_prompt_chars = max_prompt_chars
        self._read: dict[Path, _Read] = {}
        self._lock = threading.Lock()

    def load(self, voices: Collection[str]) -> tuple[Persona, ...]:
        """The personas as they are now, ordered by id. `voices` are the names of the voices on offer.

        Raises ConfigError with every problem of every file. Blocks on the disk.
        """
        with self._lock:
            problems: list[str] = []
            files = self._files(problems)
            self._read = {path: self._up_to_date(path, stamp) for path, stamp in files.items()}
            personas: dict[str, Persona] = {}
            for path, read in self._read.items():
                problems.extend(read.problems)
                if (persona := read.persona) is None:
                    continue
                if persona.voice not in voices:
                    problems.append(f"{path}: voice: {not_offered(persona.voice, voices)}")
                if persona.id in personas:
                    other = Path(personas[persona.id].source).name
                    problems.append(f"{path}: {other} has the same name, so the same id. Remove one of the two.")
                personas[persona.id] = persona
        if problems:
            raise ConfigError(problems)
        return tuple(personas.values())

    def _files(self, problems: list[str]) -> dict[Path, Stamp]:
        """The persona files, ordered by id. Raises ConfigError when the folder cannot be read."""
        files = {}
        try:
            for path in sorted(self.folder.iterdir(), key=lambda path: (path.stem, path.suffix)):
                if path.name.startswith("."):  # editors and copies from a Mac leave such files
                    continue
                if path.suffix.lower() in SUFFIXES:
                    status = path.stat()
                    if not stat.S_ISDIR(status.st_mode):
                        files[path] = _stamp(status)
                elif path.suffix.lower() == ".txt" and Path(path.stem).suffix.lower() in SUFFIXES:
                    problems.append(f"{path}: a persona's file ends in .yaml. Rename it to {path.stem}.")
        except OSError as error:
            raise ConfigError([f"{error.filename}: personas cannot be read: {error.strerror or error}."]) from None
        return files

    def _up_to_date(self, path: Path, stamp: Stamp) -> _Read:
        known = self._read.get(path)
        if known is not None and known.stamp == stamp and known.image_stamp == _stamp_of(known.image):
            return known
        problems: list[str] = []
        found = _read_file(path, problems)
        image = path.parent / found.image if found and _is_file_name(found.image) else None
        image_stamp = _stamp_of(image)
        persona = _to_persona(path, found, self._max_prompt_chars, problems) if found else None
        return _Read(stamp, persona, tuple(problems), image, image_stamp)


def _stamp(status: os.stat_result) -> Stamp:
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)


def _stamp_of(path: Path | None) -> Stamp | None:
    """The stamp of a file, None when there is none."""
    try:
        return None if path is None else _stamp(path.stat())
    except (OSError, ValueError):  # ValueError: no file can have that name
        return None


def load_personas(folder: Path, voices: Collection[str], max_prompt_chars: int) -> tuple[Persona, ...]:
    """The personas in the files of `folder`, as `PersonaFolder.load` returns and raises."""
    return PersonaFolder(folder, max_prompt_chars).load(voices)


def read_persona(path: Path, max_prompt_chars: int, problems: list[str]) -> Persona | None:
    """The persona in one file, whatever its voice. What is wrong with the file is added to `problems`; None when it
    cannot be understood.
    """
    found = _read_file(path, problems)
    return _to_persona(path, found, max_prompt_chars, problems) if found else None


def _read_file(path: Path, problems: list[str]) -> _PersonaFile | None:
    before = len(problems)
    if not PERSONA_ID.fullmatch(path.stem):
        problems.append(
            f"{path}: the file's name is the persona's id; use small letters, digits, '-' and '_', at most 64."
        )
    data = read_yaml(path, problems)
    return None if len(problems) > before else decode(_PersonaFile, data, str(path), problems)


def _to_persona(path: Path, found: _PersonaFile, max_prompt_chars: int, problems: list[str]) -> Persona:
    prompt = " ".join(found.prompt.split())
    if len(prompt) > max_prompt_chars:
        problems.append(
            f"{path}: prompt: {len(prompt)} characters; personas.max_prompt_chars allows {max_prompt_chars}."
        )
    greeting = " ".join(found.greeting.split())
    if greeting:
        try:
            check_sentence(greeting)
        except SayError as error:
            problems.append(f"{path}: greeting: {error}")
    if not _is_emoji(found.emoji):
        problems.append(f"{path}: emoji: expected one such as 🏨, not words.")
    image: PersonaImage | None = None
    if found.image and not _is_file_name(found.image):
        problems.append(f"{path}: image: expected the name of a file beside this one, without a folder.")
    elif found.image:
        try:
            image = read_image(path.parent / found.image)
        except ValueError as error:
            problems.append(f"{path}: image: {error}")
    return Persona(
        id=path.stem,
        name=found.name,
        description=found.description.strip(),
        voice=found.voice,
        prompt=prompt,
        sampling=found.sampling,
        source=str(path),
        greeting=greeting,
        group=found.group.strip(),
        starters=tuple(" ".join(starter.split()) for starter in found.starters),
        emoji=found.emoji,
        image=image,
        pin_prompt=found.pin_prompt,
    )


def _is_file_name(name: str) -> bool:
    """Whether this names a file of the folder itself, and none that is hidden."""
    return bool(name) and not name.startswith(".") and not set(name) & {"/", "\\", "\0"}


def _is_emoji(text: str) -> bool:
    """Whether text is "" or made of what emoji are made of: symbols, marks, joiners, and the digits of keycaps."""
    return all(unicodedata.category(character) in EMOJI_CATEGORIES or character in "#*" for character in text)


def invalid_field(persona: Persona) -> str:
    """What is wrong with the fields of a persona that a plugin made, such as `prompt: expected str, got null`, or "".

    Nothing that it holds is repeated, except for an id that is not valid.
    """
    if not isinstance(persona.sampling, Sampling):
        return f"sampling: expected Sampling, got {type(persona.sampling).__name__}"
    if not isinstance(persona.image, PersonaImage | None):
        return f"image: expected PersonaImage, got {type(persona.image).__name__}"
    try:
        msgspec.convert({**vars(persona), "sampling": vars(persona.sampling), "image": None}, Persona)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$.")
        return f"{place.rstrip('`')}: {message.replace('`', '').replace('Expected', 'expected', 1)}"
    for name in ("id", "name", "description", "voice", "prompt", "greeting", "group", "starters", "emoji"):
        try:
            "".join(getattr(persona, name)).encode()
        except UnicodeEncodeError:
            return f"{name}: holds half a character (a lone surrogate), which no text may"
    if not PERSONA_ID.fullmatch(persona.id):
        return f"id: {persona.id[:64]!r} has more than 64 characters, or others than small letters, digits, '-' and '_'"
    return ""
