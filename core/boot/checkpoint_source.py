"""Where the checkpoint and its packaged voices come from: the package, a folder, or the Hugging Face hub."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from core.engine.hub import fetch, has_token, is_cached
from core.media.voice_archive import unpack_voices
from core.media.voices import VoiceFolder
from core.settings.log import get_logger
from core.settings.paths import cache_folder, is_folder
from core.settings.sections import EngineConfig

NANO = Path(__file__).parent.parent / "nano"
"""The folder of the small checkpoint that comes with the package."""
COMMIT = re.compile(r"[0-9a-f]{40}")

log = get_logger("engine")


def is_local(checkpoint: Path) -> bool:
    """Whether a checkpoint is a folder of this machine. The name of a repository may be too long to be one."""
    with suppress(ValueError):
        return is_folder(checkpoint)
    return False


def find_checkpoint(config: EngineConfig, device: torch.device, report: Callable[[str], None]) -> Path:
    """Return the folder of the checkpoint to run, downloading it if need be; `report` is told of a download.

    The name `auto` means PersonaPlex where both a GPU and its weights are available, else nano. Blocks. Raises
    CheckpointError.
    """
    folder = Path(os.path.expanduser(config.checkpoint))  # noqa: PTH111 - which, unlike pathlib's, never raises
    cache = Path(config.cache) if config.cache else None
    token = config.token.reveal() if config.token else None
    name = config.name
    if name == "auto":
        here = is_local(folder) or is_cached(config.checkpoint, config.revision, cache)
        available = here or (has_token(token) and not config.offline)
        name = "personaplex" if device.type == "cuda" and available else "nano"
        if name == "nano" and device.type == "cuda":
            report("No PersonaPlex weights and no token to fetch them: running nano. Set HF_TOKEN for the real model.")
    if name == "nano":
        return NANO
    if is_local(folder):
        return folder
    report(f"Fetching {config.checkpoint} at {config.revision}")
    return fetch(config.checkpoint, config.revision, cache, token, config.offline)


def packaged_voices(folder: Path, config: EngineConfig) -> VoiceFolder:
    """Return a checkpoint's own voices: its folder `voices`, or its archive, which is unpacked once.

    The archive contains `.pt` files, so it is opened only where somebody vouches for it: NVIDIA for its own repository,
    the operator for a commit or a folder.
    """
    archive = folder / "voices.tgz"
    if not archive.is_file():
        return VoiceFolder(folder / "voices")
    vouched = COMMIT.fullmatch(config.revision) or config.checkpoint.startswith("nvidia/")
    if not vouched and not Path(config.checkpoint).expanduser().is_dir():
        log.warning("voices.tgz left closed: set engine.revision to a commit to vouch for it", file=str(archive))
        return VoiceFolder(folder / "voices")
    return unpack_voices(archive, cache_folder(config) / "voices")
