"""Fetching from a hub: a small one, served here, that does what the real one does."""

import hashlib
import json
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from core.boot.checkpoint_source import NANO, find_checkpoint
from core.engine.checkpoint import Checkpoint
from core.engine.hub import fetch, is_cached
from core.errors import CheckpointError
from core.settings.config import EngineConfig
from core.settings.yaml_structs import Secret

REPOSITORY = "someone/model"
COMMIT = "a" * 40
CUDA = torch.device("cuda")


class Hub(ThreadingHTTPServer):
    """A hub with one repository, which may be gated."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
        self.gated = False
        self.sent: list[str] = []
        self.ranges: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        if f"/{REPOSITORY}/" not in path:
            return self.refuse(404, "RepoNotFound")
        if self.server.gated and self.headers.get("Authorization") != "Bearer right":
            return self.refuse(401 if "Authorization" not in self.headers else 403, "GatedRepo")
        if "/revision/" in path:
            if path.rsplit("/", 1)[1] not in ("main", COMMIT):
                return self.refuse(404, "RevisionNotFound")
            siblings = [{"rfilename": name} for name in self.server.files]
            return self.send(json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode(), {}, body)
        name = path.split(f"/resolve/{COMMIT}/", 1)[1]
        content = self.server.files[name].read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        if body:
            self.server.sent.append(name)
        return self.send(content, headers, body)

    def send(self, content: bytes, headers: dict[str, str], body: bool) -> None:
        wanted = self.headers.get("Range")
        start = 0
        if wanted and wanted.startswith("bytes="):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            self.server.ranges.append(wanted)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content[start:])

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub(NANO)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def get(cache: Path, repository: str = REPOSITORY, token: str | None = None, **changed: object) -> Path:
    options = {"revision": "main", "offline": False} | changed
    return fetch(repository, cache=cache, token=token, **options)  # type: ignore[arg-type]


def test_a_checkpoint_is_fetched_whole_and_once(hub: Hub, tmp_path: Path) -> None:
    assert not is_cached(REPOSITORY, "main", tmp_path)
    folder = get(tmp_path)
    assert Checkpoint.read(folder).name == "nano"
    assert sorted(hub.sent) == sorted(set(hub.files) - {"README.md"})
    assert is_cached(REPOSITORY, "main", tmp_path)
    assert get(tmp_path) == folder
    assert len(hub.sent) == len(set(hub.sent))
    assert get(tmp_path, offline=True) == folder


def test_auto_takes_the_real_model_only_with_card_and_weights(hub: Hub, tmp_path: Path) -> None:
    told: list[str] = []
    config = EngineConfig(checkpoint=REPOSITORY, cache=str(tmp_path))
    assert "nano" in find_checkpoint(config, CUDA, told.append).name
    assert "Set HF_TOKEN" in told[0]
    with_token = EngineConfig(checkpoint=REPOSITORY, cache=str(tmp_path), token=Secret("right"))
    assert "nano" in find_checkpoint(with_token, torch.device("cpu"), told.append).name
    assert hub.sent == []
    folder = find_checkpoint(with_token, CUDA, told.append)
    assert Checkpoint.read(folder).weights.is_file()
    assert find_checkpoint(config, CUDA, told.append) == folder
    assert not any("right" in line for line in told)


@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_gated_repository_says_how_to_get_in(hub: Hub, tmp_path: Path, token: str | None) -> None:
    hub.gated = True
    with pytest.raises(CheckpointError, match="accept its licence") as error:
        get(tmp_path, token=token)
    assert ("HF_TOKEN" in str(error.value)) == (token is None)
    assert "wrong" not in str(error.value)
    assert get(tmp_path, token="right").is_dir()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"repository": "nobody/nothing"}, "nobody/nothing is not on the hub"),
        ({"repository": "not a name"}, "neither a folder nor a repository"),
        ({"revision": "v9"}, "no revision 'v9'"),
        ({"offline": True}, "engine.offline is on"),
    ],
)
def test_what_cannot_be_fetched_is_named(hub: Hub, tmp_path: Path, changed: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        get(tmp_path, **changed)  # type: ignore[arg-type]


def test_no_network_says_what_to_do(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match="cannot be reached"):
        get(tmp_path)


def test_a_librarys_text_is_not_shown_since_it_may_hold_the_token(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "_".join(("hf", "marker"))  # which is in no line of this file, and so in no line of a traceback
    with pytest.raises(CheckpointError, match="cannot be fetched") as caught:
        get(tmp_path, token=secret + "\n")  # which no header may hold
    for error in (ValueError(secret), OSError(secret), RuntimeError(f"Bearer {secret}")):

        def broken(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr("core.engine.hub.snapshot_download", broken)
        with pytest.raises(CheckpointError, match="cannot be fetched") as again:
            get(tmp_path)
        for shown in (caught, again):
            assert secret not in "".join(traceback.format_exception(shown.value))


def test_a_full_disk_says_what_to_do(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("core.engine.hub.snapshot_download", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*17 GiB"):
        get(tmp_path)


def test_a_fetch_that_broke_off_goes_on(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the weights are there from before; only the rest is asked for."""
    content = hub.files["model.safetensors"].read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    blobs = tmp_path / "models--someone--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{digest}.incomplete").write_bytes(content[: len(content) // 2])
    folder = get(tmp_path)
    assert (folder / "model.safetensors").read_bytes() == content
    assert hub.ranges == [f"bytes={len(content) // 2}-"]
