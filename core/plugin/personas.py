"""Personas, the characters that callers talk with: one YAML file each, whose name is the persona's id."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from core.engine.sampling import Sampling
from core.errors import ConfigError
from core.media.voices import not_offered
from core.settings.yaml_structs import decode, read_yaml

PERSONA_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""The form of an id. It appears in addresses, logs and file names, so it has no other characters."""


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


class _PersonaFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The keys of a persona's YAML file."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    voice: Annotated[str, Meta(min_length=1)]
    description: Annotated[str, Meta(max_length=500)] = ""
    prompt: str = ""
    sampling: Sampling = Sampling()


def load_personas(folder: Path, voices: Collection[str], max_prompt_chars: int) -> tuple[Persona, ...]:
    """The personas in the `.yaml` files of `folder`, ordered by id. Blocks on the disk.

    `voices` are the names of the voices on offer. Raises ConfigError with every problem of every file.
    """
    problems: list[str] = []
    personas = [read_persona(path, voices, max_prompt_chars, problems) for path in _persona_files(folder)]
    if problems:
        raise ConfigError(problems)
    return tuple(persona for persona in personas if persona is not None)


def _persona_files(folder: Path) -> list[Path]:
    """The `.yaml` files of `folder`, ordered by name. Raises ConfigError when the folder cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".yaml" and path.is_file())
    except OSError as error:
        raise ConfigError([f"{folder}: personas cannot be read: {error.strerror or error}."]) from None


def read_persona(path: Path, voices: Collection[str], max_prompt_chars: int, problems: list[str]) -> Persona | None:
    """The persona in one file; None after adding what is wrong with it to `problems`."""
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
    if found.voice not in voices:
        problems.append(f"{path}: voice: {not_offered(found.voice, voices)}")
    if len(problems) > before:
        return None
    return Persona(path.stem, found.name, found.description.strip(), found.voice, prompt, found.sampling, str(path))
