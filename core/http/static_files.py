"""The page's files: read once at the start, served by their exact name, from memory."""

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.errors import ConfigError

INDEX = "index.html"
LARGEST_FILE = 8 * 2**20
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".html": "text/html", ".svg": "image/svg+xml"}
"""Types that the page depends on; the system's table may have others for them, and a browser refuses those."""


@dataclass(frozen=True)
class StaticFile:
    """One file as it is served."""

    content: bytes
    zipped: bytes
    """The same through gzip."""
    media_type: str
    etag: str


class StaticFiles:
    """All files of a folder, as they are at the start. Hidden files are not served.

    A link stands for what it leads to, wherever that is: a mounted Kubernetes ConfigMap and a folder installed by a
    package manager consist of links, and whoever may put one into the folder may also put the file there.
    """

    def __init__(self, folder: Path) -> None:
        """Read the folder. Raises ConfigError when it cannot be read, has no `index.html` or a link to nothing."""
        try:
            self._files = {name: _read(path) for name, path in _listing(folder)}
        except OSError as error:
            raise ConfigError([f"server.web: {folder} cannot be read: {error.strerror or error}."]) from None
        if INDEX not in self._files:
            raise ConfigError([f"server.web: {folder} has no {INDEX}. Give the folder of a page, or remove the key."])

    async def serve(self, request: Request) -> Response:
        """The endpoint of `/{name:path}`; an empty name is the page itself."""
        file = self._files.get(request.path_params.get("name") or INDEX)
        if file is None:
            return JSONResponse({"error": "There is nothing at this address."}, status_code=404)
        headers = {"etag": file.etag, "cache-control": "no-cache", "vary": "accept-encoding"}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(file.zipped, media_type=file.media_type, headers=headers | {"content-encoding": "gzip"})
        return Response(file.content, media_type=file.media_type, headers=headers)


def _listing(folder: Path, above: tuple[Path, ...] = ()) -> list[tuple[str, Path]]:
    """Names relative to the folder, with '/' between, of the files in it. `above` are the folders that it is in."""
    place = folder.resolve()
    if place in above:  # a link to a folder that it is in
        return []
    found: list[tuple[str, Path]] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")) or path.name == "node_modules":
            continue
        if path.is_dir():
            found += [(f"{path.name}/{name}", file) for name, file in _listing(path, (*above, place))]
        elif path.is_file() and path.stat().st_size <= LARGEST_FILE:
            found.append((path.name, path))
        elif path.is_symlink() and not path.exists():
            raise ConfigError([f"server.web: {path} is a link to nothing: {path.readlink()}. Correct or remove it."])
    return found


def _read(path: Path) -> StaticFile:
    content = path.read_bytes()
    media_type = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return StaticFile(content, gzip.compress(content, mtime=0), media_type, etag)
