"""Fetching from a hub: a small one, served here, that does what the real one does."""

import hashlib
import json
import ssl
import subprocess
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.utils._http import reset_sessions

from core.boot.checkpoint_source import NANO, find_checkpoint
from core.engine.checkpoint import Checkpoint
from core.engine.hub import fetch, has_token, is_cached
from core.errors import CheckpointError
from core.settings.sections import EngineConfig
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
        self.refusing: tuple[int, str] = (0, "")
        """A status without a word why, and the part of a path for which it is answered."""
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
        status, part = self.server.refusing
        if status and part in path:
            return self.refuse(status)
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

    def refuse(self, status: int, code: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        elif status == 401:  # as the real hub answers a token that it does not know
            self.send_header("X-Error-Message", "Invalid credentials in Authorization header")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub(NANO)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # seconds between two looks whether to stop
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _: None))  # between attempts
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


REFUSALS = [
    (401, "right", "does not accept the token"),
    (403, "right", r"fine-grained.*settings/tokens"),
    (403, None, "set HF_TOKEN"),
    (429, "right", "asked too often"),
    (429, None, "With a token it allows more"),
    (500, None, r"fault of its own \(500\).*status.huggingface.co"),
    (503, None, r"fault of its own \(503\)"),
    (418, None, "refused someone/model with 418"),
]


@pytest.mark.parametrize("part", ["/revision/", "/resolve/"])
@pytest.mark.parametrize(("status", "token", "message"), REFUSALS)
def test_a_refusal_says_what_it_means(
    hub: Hub, tmp_path: Path, part: str, status: int, token: str | None, message: str
) -> None:
    hub.refusing = (status, part)
    with pytest.raises(CheckpointError, match=message) as caught:
        get(tmp_path, token=token)
    assert "connect this machine" not in str(caught.value)
    hub.refusing = (0, "")
    assert get(tmp_path, token=token).is_dir()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("HTTP_PROXY", "http://127.0.0.1:9", r"proxy.*HTTPS_PROXY"),
        ("HTTP_PROXY", "http://user:marker@127.0.0.1:9", r"proxy.*HTTPS_PROXY"),
    ],
)
def test_a_proxy_that_is_wrong_is_named(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://hub.invalid")
    with pytest.raises(CheckpointError, match=message) as caught:
        get(tmp_path)
    assert "marker" not in "".join(traceback.format_exception(caught.value))


def test_a_certificate_that_nobody_trusts_is_named(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    made = subprocess.run([*command, "-keyout", certificate, "-out", certificate], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip("openssl cannot make a certificate here")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    hub.socket = context.wrap_socket(hub.socket, server_side=True)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address.replace("http:", "https:"))
    with pytest.raises(CheckpointError, match="certificate is not trusted"):
        get(tmp_path)


def test_offline_by_the_hubs_own_variable_is_named(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    reset_sessions()  # which look at it when they are made
    try:
        with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set"):
            get(tmp_path)
    finally:
        reset_sessions()


@pytest.mark.skipif(find_spec("hf_transfer") is not None, reason="hf_transfer is installed")
def test_a_fast_download_without_its_package_is_named(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ENABLE_HF_TRANSFER", True)
    with pytest.raises(CheckpointError, match="pip install hf_transfer"):
        get(tmp_path)


def test_a_cache_that_cannot_be_written_is_named(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("core.engine.hub.snapshot_download", read_only)
    with pytest.raises(CheckpointError, match=r"cannot be written in .*Read-only file system"):
        get(tmp_path)


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


def test_without_a_home_the_hub_has_no_cache_and_no_folder_named_like_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    # As the library leaves it then.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "~/.cache/huggingface/hub")
    with pytest.raises(CheckpointError, match="Set HOME or HF_HOME"):
        fetch("owner/name", "main", None, None, offline=True)
    assert list(tmp_path.iterdir()) == []


def test_a_token_and_a_cache_that_may_not_be_read_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path))  # a folder: reading it is an OSError
    assert not has_token(None)
    (tmp_path / "cache").write_text("a file in its place")
    assert not is_cached("owner/name", "main", tmp_path / "cache")
