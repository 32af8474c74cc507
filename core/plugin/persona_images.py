"""Pictures of personas: PNG, JPEG or WebP, told by their content. SVG is left out, since it can carry script."""

from dataclasses import dataclass, field
from pathlib import Path

from core.settings.yaml_files import read_file

LARGEST = 256 * 1024
"""Bytes. A picture is shown at 70 pixels or so, and every visitor loads all of them."""


@dataclass(frozen=True)
class PersonaImage:
    """A picture that is served as it is. Raises ValueError for what is no PNG, JPEG or WebP, or too large."""

    content: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.content) > LARGEST:
            raise ValueError(f"{len(self.content) // 1024} KiB; at most {LARGEST // 1024}. Make the picture smaller.")
        if not self.media_type:
            raise ValueError("expected PNG, JPEG or WebP, and this is none of them, whatever its name says.")

    @property
    def media_type(self) -> str:
        """Its type by its first bytes, or ""."""
        start = self.content[:12]
        if start.startswith(b"\x89PNG\r\n\x1a\n"):
            return "image/png"
        if start.startswith(b"\xff\xd8\xff"):
            return "image/jpeg"
        return "image/webp" if start[:4] == b"RIFF" and start[8:] == b"WEBP" else ""


def read_image(path: Path) -> PersonaImage:
    """The picture in a file. Raises ValueError with what is wrong, as a part of a sentence."""
    try:
        content = read_file(path)
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror or error}.") from None
    except ValueError:
        raise ValueError(f"{path.name} is no file, or far too large for a picture.") from None
    return PersonaImage(content)
