"""`modal_app` as it is deployed and as it runs in a container, without Modal."""

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

modal = pytest.importorskip("modal")
from modal._functions import _Function  # noqa: E402 - there is no other way to see what a deployment asks for
from modal._image import _Image  # noqa: E402
from modal._partial_function import _find_callables_for_obj, _PartialFunctionFlags  # noqa: E402

from core.boot.local_engine import open_engine  # noqa: E402
from core.engine.call import Engine  # noqa: E402
from deploy import gpu  # noqa: E402
from deploy.choices import Deployment  # noqa: E402
from deploy.settings import Settings  # noqa: E402
from deploy.voice_index import VoiceIndex  # noqa: E402

ROOT = Path(__file__).parent.parent
PASSWORD = "open sesame"
BEFORE, AFTER, EXIT = (
    _PartialFunctionFlags.ENTER_PRE_SNAPSHOT,
    _PartialFunctionFlags.ENTER_POST_SNAPSHOT,
    _PartialFunctionFlags.EXIT,
)


class Deployed:
    """A fresh `modal_app`, and what it asks of Modal, by function."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
        self.asked: dict[str, dict[str, Any]] = {}
        self.layers: list[str] = []
        """The commands that build the image."""
        self.laid_over: dict[str, Path] = {}
        """What containers see in /root, and where it is here."""
        function, layer = _Function._from_local, _Image._from_args

        def asked(info: Any, *given: Any, **options: Any) -> Any:
            self.asked[info.function_name] = options
            return function(info, *given, **options)

        def built(*given: Any, dockerfile_function: Any = None, **options: Any) -> Any:
            if dockerfile_function:
                self.layers += dockerfile_function("2025.06").commands
            return layer(*given, dockerfile_function=dockerfile_function, **options)

        monkeypatch.setattr(_Function, "_from_local", staticmethod(asked))
        monkeypatch.setattr(_Image, "_from_args", staticmethod(built))
        for name in ("add_local_dir", "add_local_file"):
            monkeypatch.setattr(modal.Image, name, self._noting(getattr(modal.Image, name)))
        for name, value in variables.items():
            monkeypatch.setenv(f"PERSONAPLEX_MODAL_{name}", value)
        spec = importlib.util.spec_from_file_location("modal_app", ROOT / "modal_app.py")
        assert spec is not None
        assert spec.loader is not None
        self.app: ModuleType = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "modal_app", self.app)
        spec.loader.exec_module(self.app)

    def _noting(self, original: Any) -> Any:
        def noted(image: Any, here: Path, there: str, **options: Any) -> Any:
            self.laid_over[there] = here
            return original(image, here, there, **options)

        return noted


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What a container has: the Volume's folder, the secret, and settings (with nano in place of PersonaPlex)."""
    monkeypatch.setenv("PERSONAPLEX_PASSWORD", PASSWORD)
    monkeypatch.setenv("PERSONAPLEX_ENGINE__NAME", "nano")
    monkeypatch.setenv("PERSONAPLEX_ENGINE__DEVICE", "cpu")
    monkeypatch.setenv("PERSONAPLEX_ENGINE__SLOTS", "2")
    monkeypatch.setattr("deploy.settings.configure_logging", lambda _config: None)  # it is the whole process's
    (tmp_path / "data").mkdir()
    VoiceIndex("nano", "Small.", ("NATF2", "NATM2", "VARF0", "VARM0")).write(tmp_path / "data")
    return tmp_path / "data"


def deploy(monkeypatch: pytest.MonkeyPatch, place: Path, **variables: str) -> ModuleType:
    """A `modal_app` whose Volume is `place`."""
    app = Deployed(monkeypatch, **variables).app
    monkeypatch.setattr(app, "DATA", place)
    monkeypatch.setattr(app, "SETTINGS", place.parent / "settings")
    return app


def hooks(instance: Any, flag: _PartialFunctionFlags) -> dict[str, Any]:
    """The lifecycle methods of an instance, as Modal finds them."""
    return dict(_find_callables_for_obj(instance, flag))


def container(app: ModuleType, name: str) -> Any:
    """An instance as Modal makes it in a container."""
    return getattr(app, name)._get_user_cls()()


class DictRecords:
    """A `modal.Dict`, in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, Mapping[str, Any]] = {}

    async def put(self, key: str, value: Mapping[str, Any]) -> None:
        self.kept[key] = dict(value)

    async def pop(self, key: str) -> None:
        self.kept.pop(key, None)

    async def items(self) -> AsyncIterator[tuple[str, Any]]:
        for pair in list(self.kept.items()):
            yield pair


@dataclass
class LocalGpus:
    """Modal's API: containers with a GPU, which are tasks here, each with an engine and a port of its own."""

    records: DictRecords
    place: Path
    origin: str
    deployment: Deployment
    running: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)
    engines: dict[str, Engine] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    fail_with: str = ""
    """Why starts fail."""
    hang: bool = False
    """Whether starts take for ever."""

    async def start(self) -> str:
        call = f"fc-{len(self.running) + 1}"
        self.running[call] = asyncio.create_task(self._serve(call))
        return call

    async def outcome(self, call: str) -> str | None:
        task = self.running[call]
        if not task.done():
            return None
        if task.cancelled():
            return "cancelled"
        return str(task.exception() or "")

    async def cancel(self, call: str) -> None:
        self.running[call].cancel()

    async def _serve(self, call: str) -> None:
        if self.fail_with:
            raise RuntimeError(self.fail_with)
        if self.hang:
            await asyncio.Event().wait()
        settings = Settings(self.place.parent / f"settings {call}", ROOT, self.place)
        config = settings.load("gpu")
        engine = self.engines[call] = await asyncio.to_thread(open_engine, config.engine, lambda _line: None)

        @asynccontextmanager
        async def forward(port: int) -> AsyncIterator[str]:
            yield f"http://localhost:{port}"

        async def refresh(settings: Settings) -> None:
            settings.refresh()

        async def commit() -> None:
            self.commits.append(call)

        try:
            await gpu.serve(
                settings, engine, self.origin, self.deployment, self.records, forward, refresh, commit, call, port=0
            )
        finally:
            await asyncio.to_thread(engine.close)

    async def close(self) -> None:
        """End all of them."""
        for task in self.running.values():
            task.cancel()
        await asyncio.gather(*self.running.values(), return_exceptions=True)
