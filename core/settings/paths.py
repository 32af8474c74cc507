"""Paths as people write them in settings: relative to a folder, or with `~`, and perhaps impossible."""

import os
from pathlib import Path

from core.errors import EngineError
from core.settings.sections import EngineConfig


def absolute_path(base: Path, given: str | Path) -> Path:
    """`given` as an absolute path: `~` is the user's home, and a relative path is relative to `base`.

    Raises ValueError, for people, when a home is not known or the current folder, where it is needed, does not exist.
    """
    try:
        return (base / Path(given).expanduser()).absolute()
    except RuntimeError:
        user = Path(given).parts[0][1:]
        raise ValueError(
            f"{given}: there is no user {user!r} with a home folder. Write the whole path."
            if user
            else f"{given}: the home folder is not known. Set the variable HOME, or write the whole path."
        ) from None
    except FileNotFoundError:
        raise ValueError(f"{given}: the current folder does not exist any more. Go to another one.") from None


def is_folder(path: Path) -> bool:
    """Whether there is a folder at `path`. Raises ValueError, for people, when that cannot be found out."""
    try:
        return path.is_dir()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}.") from None


def cache_folder(config: EngineConfig) -> Path:
    """The folder for files that the service derives from a checkpoint, such as unpacked voices.

    Raises EngineError when no folder is known.
    """
    if config.cache:
        return Path(config.cache) / "personaplex"
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "personaplex"
    except RuntimeError:
        raise EngineError(
            "The home folder is not known, so there is no folder for a cache. Set HOME, or engine.cache, to a folder."
        ) from None
