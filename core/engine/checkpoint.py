"""A checkpoint: a folder in the hub's layout, described by its `config.json`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moshi.models.loaders import MIMI_NAME, MOSHI_NAME, TEXT_TOKENIZER_NAME

from core.engine.architecture import AGENT_CODEBOOKS, Architecture
from core.engine.mimi.spectral import SpectralShape
from core.engine.prompt import SpecialCodes
from core.engine.sampling import USUAL, Sampling
from core.engine.weights import read_json
from core.errors import CheckpointError, SamplingError

EXTENSION = "personaplex"
"""The key of `config.json` for settings beyond Moshi's: name, notice, text, silence and sine codes, sampling."""
WRITTEN, SPOKEN = "written", "spoken"
"""How prompts give numbers: as they are written, or as one says them, for a model that was trained without digits."""


@dataclass(frozen=True)
class Checkpoint:
    """The files of a model and the settings that go with them.

    `special` is None when the checkpoint has a codec of its own but not its special codes, which are then measured.
    """

    folder: Path
    name: str
    notice: str
    architecture: Architecture
    weights: Path
    mimi: Path
    mimi_config: dict[str, Any] | None
    tokenizer: Path
    spell: bool
    """Whether numbers in prompts are to be written as one says them."""
    special: SpecialCodes | None
    sampling: Sampling

    @classmethod
    def read(cls, folder: Path) -> "Checkpoint":
        """Read a folder's `config.json`; without architecture keys it describes Moshi 7B, as PersonaPlex's own does.

        Raises CheckpointError, naming the file or key that is wrong.
        """
        source = folder / "config.json"
        config = read_json(source) if source.exists() else {}
        extension = config.get(EXTENSION, {})
        if not isinstance(extension, dict):
            raise CheckpointError(f"{source}: {EXTENSION} must be an object.")
        mimi_name = str(config.get("mimi_name", MIMI_NAME))
        mimi_config = config.get("mimi_config_name")
        checkpoint = cls(
            folder=folder,
            name=str(extension.get("name", folder_name(folder))),
            notice=str(extension.get("notice", "")),
            architecture=Architecture.from_config(config, str(source)),
            weights=folder / str(config.get("moshi_name", MOSHI_NAME)),
            mimi=folder / mimi_name,
            mimi_config=None if mimi_config is None else read_mimi_config(folder / str(mimi_config)),
            tokenizer=folder / str(config.get("tokenizer_name", TEXT_TOKENIZER_NAME)),
            spell=_spells(extension, str(source)),
            special=special_codes(extension, str(source), standard=mimi_name == MIMI_NAME),
            sampling=usual_sampling(extension, str(source)),
        )
        for part in (checkpoint.weights, checkpoint.mimi, checkpoint.tokenizer):
            if not part.is_file():
                raise CheckpointError(f"{folder} is not a whole checkpoint: {part.name} is missing.")
        return checkpoint


def folder_name(folder: Path) -> str:
    """The default name of the checkpoint in a folder: its own, or NAME in `models--OWNER--NAME/snapshots/COMMIT`."""
    repository = folder.parent.parent.name.rpartition("--")[2]
    return repository if folder.parent.name == "snapshots" and repository else folder.name


def read_mimi_config(path: Path) -> dict[str, Any]:
    """Read a codec's config. Raises CheckpointError, naming the file and the key that is wrong."""
    config = read_json(path)
    SpectralShape.from_config(config, str(path))
    return config


def _spells(extension: dict[str, Any], source: str) -> bool:
    text = extension.get("text", WRITTEN)
    if text not in (WRITTEN, SPOKEN):
        raise CheckpointError(f"{source}: {EXTENSION}.text must be {WRITTEN} or {SPOKEN}, not {text!r}.")
    return bool(text == SPOKEN)


def special_codes(extension: dict[str, Any], source: str, standard: bool) -> SpecialCodes | None:
    """The codes of silence and sine: those in the config, or those of Kyutai's Mimi where the checkpoint uses it."""
    if "silence" not in extension and "sine" not in extension:
        return SpecialCodes() if standard else None
    codes = {key: extension.get(key) for key in ("silence", "sine")}
    for key, value in codes.items():
        if not (isinstance(value, list) and len(value) == AGENT_CODEBOOKS and all(type(code) is int for code in value)):
            raise CheckpointError(f"{source}: {EXTENSION}.{key} must be a list of {AGENT_CODEBOOKS} codes.")
    return SpecialCodes(**{key: tuple(value) for key, value in codes.items() if value is not None})


def usual_sampling(extension: dict[str, Any], source: str) -> Sampling:
    """A checkpoint's default sampling: `sampling` in its config, and PersonaPlex's where that says nothing."""
    configured = extension.get("sampling", {})
    try:
        return Sampling(**configured).over(USUAL)
    except (TypeError, SamplingError) as error:
        raise CheckpointError(f"{source}: {EXTENSION}.sampling is wrong: {error}") from None
