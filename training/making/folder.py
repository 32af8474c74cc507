"""The files by which one command knows of another's run: locks, which end with their process, and what was asked."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from training.making.plan import Request

LOG = Path("logs") / "make.log"
"""Where a run tells how it goes, in its training folder."""
_LOCK, _REQUEST, _RESULT = "make.lock", "make.json", "make.result"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until nobody else is inside."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def claim(folder: Path) -> int:
    """A file descriptor that holds the folder's lock for as long as it is open, here or in a process that it is given
    to. Raises ClickException when a run has it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise click.ClickException(f"A run is going on in {folder}: watch it, or take another folder.") from None
    return descriptor


def is_running(folder: Path) -> bool:
    """Whether a run has the folder."""
    try:
        os.close(claim(folder))
    except click.ClickException:
        return True
    return False


def write_request(folder: Path, request: Request) -> None:
    """Say what is to be made; the result of an earlier run is forgotten."""
    (folder / _RESULT).unlink(missing_ok=True)
    (folder / _REQUEST).write_bytes(msgspec.json.encode(request))


def read_request(folder: Path) -> Request:
    """What is, or was, to be made. Raises ClickException where nothing was."""
    try:
        return msgspec.json.decode((folder / _REQUEST).read_bytes(), type=Request)
    except FileNotFoundError:
        raise click.ClickException(f"Nothing was made in {folder}: run `make` first.") from None


def write_result(folder: Path, code: int) -> None:
    """Leave the exit code of a run that has ended."""
    (folder / _RESULT).write_text(str(code))


def result(folder: Path) -> int | None:
    """The exit code of a run that has ended; None while it goes on, and where it was killed."""
    path = folder / _RESULT
    return int(path.read_text()) if path.exists() else None
