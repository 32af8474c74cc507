"""Personas, the characters that callers talk with: one YAML file each, whose name is the persona's id."""

import re
import stat
import threading
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
from core.settings.yaml_structs import decode, read_yaml

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


class _PersonaFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The keys of a persona's YAML file."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    voice: Annotated[str, Meta(min_length=1)]
    description: Annotated[str, Meta(max_length=500)] = ""
    prompt: str = ""
    greeting: str = ""
    sampling: Sampling = Sampling()


Stamp = tuple[int, int, int, int]
"""Times of modification and of a change of permissions, size and inode of a file: one of them changes with every edit.
"""


class PersonaFolder:
    """The personas in the `.yaml` files of one folder. A file is read again only when it has changed.

    `.yml` and capital letters are taken for the same; files whose names begin with a dot are skipped.
    """

    def __init__(self, folder: Path, max_prompt_chars: int) -> None:
        self.folder = folder
        self._max_prompt_chars = max_prompt_chars
        self._read: dict[Path, tuple[Stamp, Persona | None, tuple[str, ...]]] = {}
        """For each file what it held when it was read, and what is wrong with it."""
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
            for path, (_, persona, found) in self._read.items():
                problems.extend(found)
                if persona is None:
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
                        files[path] = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
                elif path.suffix.lower() == ".txt" and Path(path.stem).suffix.lower() in SUFFIXES:
                    problems.append(f"{path}: a persona's file ends in .yaml. Rename it to {path.stem}.")
        except OSError as error:
            raise ConfigError([f"{error.filename}: personas cannot be read: {error.strerror or error}."]) from None
        return files

    def _up_to_date(self, path: Path, stamp: Stamp) -> tuple[Stamp, Persona | None, tuple[str, ...]]:
        known = self._read.get(path)
        if known is not None and known[0] == stamp:
            return known
        problems: list[str] = []
        persona = read_persona(path, self._max_prompt_chars, problems)
        return stamp, persona, tuple(problems)


def load_personas(folder: Path, voices: Collection[str], max_prompt_chars: int) -> tuple[Persona, ...]:
    """The personas in the files of `folder`, as `PersonaFolder.load` returns and raises."""
    return PersonaFolder(folder, max_prompt_chars).load(voices)


def read_persona(path: Path, max_prompt_chars: int, problems: list[str]) -> Persona | None:
    """The persona in one file, whatever its voice. What is wrong with the file is added to `problems`; None when it
    cannot be understood.
    """
    before = len(problems)
    if not PERSONA_ID.fullmatch(path.stem):
        problems.append(
            f"{path}: the file's name is the persona's id; use small letters, digits, '-' and '_', at most 64."
        )
    data = read_yaml(path, problems)
    if len(problems) > before:
        return None
    found = decode(_PersonaFile, data, str(path), problems)
    if found is None:
        return None
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
    description = found.description.strip()
    return Persona(path.stem, found.name, description, found.voice, prompt, found.sampling, str(path), greeting)


def invalid_field(persona: Persona) -> str:
    """What is wrong with the fields of a persona that a plugin made, such as `prompt: expected str, got null`, or "".

    Nothing that it holds is repeated, except for an id that is not valid.
    """
    if not isinstance(persona.sampling, Sampling):
        return f"sampling: expected Sampling, got {type(persona.sampling).__name__}"
    try:
        msgspec.convert({**vars(persona), "sampling": vars(persona.sampling)}, Persona)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$.")
        return f"{place.rstrip('`')}: {message.replace('`', '').replace('Expected', 'expected', 1)}"
    for name in ("id", "name", "description", "voice", "prompt", "greeting"):
        try:
            getattr(persona, name).encode()
        except UnicodeEncodeError:
            return f"{name}: holds half a character (a lone surrogate), which no text may"
    if not PERSONA_ID.fullmatch(persona.id):
        return f"id: {persona.id[:64]!r} has more than 64 characters, or others than small letters, digits, '-' and '_'"
    return ""
