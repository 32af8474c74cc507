"""Paths as people write them in settings: relative to a folder, or with `~`, and perhaps impossible."""

from pathlib import Path


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
