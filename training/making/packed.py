"""What a run brings back: weights and logs, few and small files in one folder."""

import shutil
import tarfile
from pathlib import Path

import click

from training.making.folder import locked
from training.packing import DECODER, pack, pack_decoder, pieces_in

LOGS = "logs.tar.gz"


def pack_all(folder: Path, target: Path) -> str:
    """Pack what the training folder has now; returns what was packed, in words."""
    target.mkdir(parents=True, exist_ok=True)
    with locked(folder / "packing.lock"):
        found = []
        if (folder / "lm.pt").exists():
            found.append(f"the language model in {len(pack(folder / 'lm.pt', target))} pieces")
        if (folder / "codec.pt").exists():
            pack_decoder(folder / "codec.pt", target)
            found.append("the decoder")
        part = target / f"{LOGS}.part"
        with tarfile.open(part, "w:gz") as archive:
            archive.add(folder / "logs", arcname="logs")
        part.replace(target / LOGS)
    return ", ".join([*found, "logs"])


def copy_all(folder: Path, packed: Path, target: Path) -> list[Path]:
    """Copy what was last packed into another folder; returns the copies."""
    target.mkdir(parents=True, exist_ok=True)
    with locked(folder / "packing.lock"):
        try:
            pieces = pieces_in(packed)
        except click.ClickException:
            pieces = []
        found = [*pieces, *(path for path in (packed / DECODER, packed / LOGS) if path.exists())]
        return [Path(shutil.copy(path, target)) for path in found]
