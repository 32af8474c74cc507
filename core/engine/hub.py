"""Downloads of checkpoints from the Hugging Face hub, with errors that say what to do."""

import errno
import traceback
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import constants, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # not in its __all__

from core.errors import CheckpointError

WANTED = ["*.json", "*.safetensors", "*.model", "voices.tgz"]
"""The files of a repository that the engine reads."""


def is_cached(repository: str, revision: str, cache: Path | None) -> bool:
    """Whether the repository has been fetched before, as far as that can be told without the network."""
    try:
        folder = snapshot_download(repository, revision=revision, cache_dir=cache, local_files_only=True)
    except (OSError, ValueError):  # LocalEntryNotFoundError and HFValidationError are such; or the cache is unreadable
        return False
    return any(Path(folder).glob("*.safetensors"))


def require_repository(name: str) -> None:
    """Raise CheckpointError unless `name` has the form of a repository's name on the hub."""
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise CheckpointError(_not_a_repository(name)) from error


def has_token(token: str | None) -> bool:
    """Whether there is a token: from config, from HF_TOKEN, or from `hf auth login`."""
    try:
        return (token or get_token()) is not None
    except OSError:  # the file of `hf auth login` may not be read
        return False


def fetch(repository: str, revision: str, cache: Path | None, token: str | None, offline: bool) -> Path:
    """Return the folder of a repository's checkpoint, downloading what is missing; an interrupted download is resumed.

    Blocks, and shows its progress on the terminal. Raises CheckpointError with a message that says what to do. No text
    of the libraries below stands in it, nor is their error its cause: they put headers into theirs, and with them the
    token.
    """
    if cache is None and constants.HF_HUB_CACHE.startswith("~"):  # else a folder called `~` is made
        raise CheckpointError(
            "The home folder is not known, so the hub has no cache. Set HOME or HF_HOME, or engine.cache, to a folder."
        )
    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            cache_dir=cache,
            token=token,
            local_files_only=offline,
            allow_patterns=WANTED,
        )
    except Exception as error:  # of the hub's client, or of whichever HTTP library it uses
        raise CheckpointError(_explain(error, repository, revision, cache, has_token(token), offline)) from None
    return Path(folder)


def _explain(
    error: Exception, repository: str, revision: str, cache: Path | None, with_token: bool, offline: bool
) -> str:
    """What a person should know about an error of `snapshot_download`, and do."""
    page = f"https://huggingface.co/{repository}"
    make_one = "make a token at https://huggingface.co/settings/tokens, and set HF_TOKEN or engine.token"
    otherwise = "Or put the files into a folder and name it in engine.checkpoint."
    match error:
        case HFValidationError():
            return _not_a_repository(repository)
        case GatedRepoError():
            action = "with the account of your token" if with_token else f", {make_one}"
            return f"{repository} is gated: open {page}, accept its licence there {action}, then start again."
        case RevisionNotFoundError():
            return f"{repository} has no revision {revision!r}: correct engine.revision."
        case RepositoryNotFoundError():
            action = "the token, which must be one of an account that may see it" if with_token else "HF_TOKEN"
            return f"{repository} is not on the hub: correct engine.checkpoint; if it is private, correct {action}."
        case LocalEntryNotFoundError() if offline or _is(error, "OfflineModeIsEnabled"):
            why = "engine.offline is on" if offline else "HF_HUB_OFFLINE is set"
            return f"{repository} is not in the cache and {why}: connect this machine once. {otherwise}"
    status = _status(error)
    if status == 401:
        return f"The hub does not accept the token (401), which may have expired: {make_one}, then start again."
    if status == 403 and with_token:
        return (
            f"The token may not read {repository} (403): open {page} and accept its licence with the token's account. "
            'A fine-grained token also needs "Read access to contents of all public gated repos you can access": '
            "https://huggingface.co/settings/tokens."
        )
    if status == 403:
        return f"The hub lets nobody read {repository} without a token (403): {make_one}. {otherwise}"
    if status == 429:
        more = "" if with_token else f" With a token it allows more: {make_one}."
        return f"The hub is asked too often from this address (429): wait some minutes, then start again.{more}"
    if status >= 500:
        return (
            f"The hub has a fault of its own ({status}) and does not send {repository}: start again in some minutes; "
            f"https://status.huggingface.co says how it is. {otherwise}"
        )
    if status:
        return f"The hub refused {repository} with {status}: start again later. {otherwise}"
    return _explain_failure(error, repository, cache)


def _explain_failure(error: Exception, repository: str, cache: Path | None) -> str:
    """As `_explain`, for what did not come from the hub: the network, the disk, a package."""
    place = f"in {cache}" if cache else "in the cache of the hub (set engine.cache for another place)"
    if constants.HF_HUB_ENABLE_HF_TRANSFER and find_spec("hf_transfer") is None:
        return (
            "HF_HUB_ENABLE_HF_TRANSFER is set, but the package hf_transfer is not installed: unset the variable, or "
            "install it with: pip install hf_transfer."
        )
    if _is(error, "ProxyError"):
        return (
            f"The proxy does not let {repository} be fetched: correct HTTPS_PROXY and HTTP_PROXY, or name the hub in "
            "NO_PROXY."
        )
    if _is(error, "SSLError"):
        return (
            f"The hub's certificate is not trusted, so {repository} is not fetched: where a proxy brings one of its "
            "own, name the file of its authority in REQUESTS_CA_BUNDLE; else look at this machine's clock."
        )
    if isinstance(error, LocalEntryNotFoundError):
        return (
            f"{repository} is not in the cache and the hub cannot be reached: connect this machine once, or put the "
            "files into a folder and name it in engine.checkpoint."
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{repository} cannot be written {place}: {error.strerror}. Let the service's user write there."
    if isinstance(error, OSError):
        return (
            f"{repository} cannot be fetched: {error.strerror or type(error).__name__}. It needs about 17 GiB of disk "
            f"{place} and a connection; start again to go on."
        )
    return (
        f"{repository} cannot be fetched: {type(error).__name__} at {_place(error)}. Look at HF_TOKEN, engine.token, "
        "and the variables of the proxy, if there are any; start again to go on."
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is(error: Exception, kind: str) -> bool:
    """Whether an error, or one that it came of, is of this kind in whichever HTTP library the hub's client uses."""
    return any(kind in (base.__name__ for base in type(cause).__mro__) for cause in _causes(error))


def _status(error: Exception) -> int:
    """The HTTP status with which the hub refused; 0 where it did not answer."""
    answers = (getattr(cause, "response", None) for cause in _causes(error))
    return next((int(answer.status_code) for answer in answers if answer is not None), 0)


def _place(error: BaseException) -> str:
    """The file and line that raised an error, such as `_sessions.py:7`."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def _not_a_repository(name: str) -> str:
    return f"engine.checkpoint {name!r} is neither a folder nor a repository's name like owner/name."
