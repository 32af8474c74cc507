"""Downloads of checkpoints from the Hugging Face hub, with errors that say what to do."""

import traceback
from pathlib import Path

from huggingface_hub import get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from core.errors import CheckpointError

WANTED = ["*.json", "*.safetensors", "*.model", "voices.tgz"]
"""The files of a repository that the engine reads."""


def is_cached(repository: str, revision: str, cache: Path | None) -> bool:
    """Whether the repository has been fetched before, as far as that can be told without the network."""
    try:
        folder = snapshot_download(repository, revision=revision, cache_dir=cache, local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError):
        return False
    return any(Path(folder).glob("*.safetensors"))


def has_token(token: str | None) -> bool:
    """Whether there is a token: from config, from HF_TOKEN, or from `hf auth login`."""
    return (token or get_token()) is not None


def fetch(repository: str, revision: str, cache: Path | None, token: str | None, offline: bool) -> Path:
    """Return the folder of a repository's checkpoint, downloading what is missing; an interrupted download is resumed.

    Blocks, and shows its progress on the terminal. Raises CheckpointError with a message that says what to do, without
    text from the libraries below: theirs may hold the headers of a request, and with them the token.
    """
    page = f"https://huggingface.co/{repository}"
    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            cache_dir=cache,
            token=token,
            local_files_only=offline,
            allow_patterns=WANTED,
        )
    except HFValidationError:
        raise CheckpointError(
            f"engine.checkpoint {repository!r} is neither a folder nor a repository's name like owner/name."
        ) from None
    except GatedRepoError:
        action = "accept its licence there with the account of your token"
        if not has_token(token):
            action = "accept its licence there, make a token, and set HF_TOKEN or engine.token"
        raise CheckpointError(f"{repository} is gated: open {page}, {action}, then start again.") from None
    except RevisionNotFoundError:
        raise CheckpointError(f"{repository} has no revision {revision!r}: correct engine.revision.") from None
    except RepositoryNotFoundError:
        action = "" if has_token(token) else ", and set HF_TOKEN or engine.token if it is private"
        raise CheckpointError(f"{repository} is not on the hub: correct engine.checkpoint{action}.") from None
    except LocalEntryNotFoundError:
        why = "engine.offline is on" if offline else "the hub cannot be reached"
        raise CheckpointError(
            f"{repository} is not in the cache and {why}: connect this machine once, or put the files into a folder "
            "and name it in engine.checkpoint."
        ) from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "an error")
        raise CheckpointError(f"The hub refused {repository} with {status}. Try again later.") from None
    except OSError as error:
        raise CheckpointError(
            f"{repository} cannot be fetched: {error.strerror or type(error).__name__}. It needs about 17 GiB of disk "
            f"{f'in {cache}' if cache else 'in the cache of the hub (set engine.cache for another place)'} "
            "and a connection; start again to go on."
        ) from None
    except Exception as error:  # of whichever HTTP library the hub's client uses
        raise CheckpointError(
            f"{repository} cannot be fetched: {type(error).__name__} at {_place(error)}. Look at HF_TOKEN, "
            "engine.token, and the variables of the proxy, if there are any; start again to go on."
        ) from None
    return Path(folder)


def _place(error: BaseException) -> str:
    """The file and line that raised an error, such as `_sessions.py:7`."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"
