"""Static files: the page, read into memory at the start and served by exact name."""

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.errors import ConfigError

INDEX = "index.html"
SHARED = ("talk.js",)
"""Scripts that pages of other sites may load. What such a page may do, the frame that they make decides."""
LARGEST_FILE = 8 * 2**20
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".html": "text/html", ".svg": "image/svg+xml"}
"""Media types that the page depends on. The system's own table may have others, with which browsers refuse the file."""


@dataclass(frozen=True)
class StaticFile:
    """A file's content and the headers that describe it."""

    content: bytes
    gzipped: bytes
    """The content, compressed with gzip."""
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
        """The endpoint of `/{name:path}`: the file of that name, `index.html` for an empty name, or 404."""
        file = self._files.get(request.path_params.get("name") or INDEX)
        if file is None:
            return JSONResponse({"error": "There is nothing at this address."}, status_code=404)
        headers = {"etag": file.etag, "cache-control": "no-cache", "vary": "accept-encoding"}
        if request.path_params.get("name") in SHARED:
            headers |= {"access-control-allow-origin": "*", "cross-origin-resource-policy": "cross-origin"}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(file.gzipped, media_type=file.media_type, headers=headers | {"content-encoding": "gzip"})
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
