"""A run starts from a copy of the packages in its own folder: the project's may be changed, or gone, while it runs."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from training.making.folder import LOG, claim, write_request
from training.making.plan import Request
from training.making.processes import death_signal, surroundings
from training.making.rehearsal import write_codec
from training.packing import DECODER, unpack

PROJECT = Path(__file__).parents[2]
COPIED = ("core", "training", "personas", "config.yaml", "pyproject.toml")
"""What the stages need of the project."""


@dataclass(frozen=True)
class Given:
    """What a run is given from outside its folder: a folder of packed weights and a decoder's, to go on from, and the
    folders of flite's libraries, of RHVoice and of Kokoro's voices."""

    resume: Path | None = None
    codec: Path | None = None
    flite: Path | None = None
    rhvoice: Path | None = None
    voices: Path | None = None


def start(folder: Path, request: Request, given: Given, detach: bool) -> None:
    """Begin to make what is requested, in a process of its own, which ends with this one unless it is to `detach`.

    Raises ClickException when a run is going on in the folder.
    """
    lock = claim(folder)
    try:
        source = copy_source(folder)
        request = take_in(folder, request, given)
        if request.small:
            write_codec(folder)
        write_request(folder, request)
        (folder / LOG).parent.mkdir(exist_ok=True)
        with (folder / LOG).open("wb") as log:
            subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "training.making", str(folder)],
                cwd=source,
                env=surroundings(source),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
                preexec_fn=None if detach else death_signal(signal.SIGTERM),
            )
    finally:
        os.close(lock)


def copy_source(folder: Path) -> Path:
    """Copy the packages into the training folder's `source/`."""
    source = folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    for name in COPIED:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (PROJECT / name).exists():
            shutil.copy(PROJECT / name, source / name)
    return source


def take_in(folder: Path, request: Request, given: Given) -> Request:
    """Take copies of what is given, too; returns the request with what has become of it."""
    decoder = given.codec
    if given.resume is not None:
        request = msgspec.structs.replace(request, steps=unpack(given.resume, folder / "lm.pt"))
        if decoder is None and (given.resume / DECODER).exists():
            decoder = given.resume / DECODER
    if decoder is not None:
        shutil.copy(decoder, folder / "codec.pt")
    request = msgspec.structs.replace(request, goes_on=(folder / "codec.pt").exists() or not request.small)
    copied: dict[str, str] = {}
    for name, source in (("flite", given.flite), ("rhvoice", given.rhvoice), ("voices", given.voices)):
        if source is not None:
            copied[name] = str(shutil.copytree(source, folder / "source" / name))
    return msgspec.structs.replace(request, **copied)
