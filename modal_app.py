"""The service on Modal: `uv run --extra modal modal deploy modal_app.py`. `docs/modal.md` says what to do before.

`Page` serves the page, the login and the lists on a small CPU; it has the only address. `Gpu` serves the calls: `Page`
calls it through Modal's API for somebody who is logged in, and it then takes calls on a port that Modal forwards to it,
at an address of its own, until nobody calls any more. They share one image, made of `pyproject.toml`, and a Volume with
weights, voices and, if there are some, settings that go before the checkout's.

Deploying needs Modal's client alone: the service itself is imported in the containers. The parts are in `deploy/`.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import modal

from deploy.choices import COMPILED, CONTAINER_S, DATA, NAME, RECORDINGS, ROOT, SETTINGS, START_S, Deployment
from deploy.prices import GPU_CORES, GPU_GIB, PAGE_CORES, PAGE_GIB

if TYPE_CHECKING:
    from deploy.settings import Settings

SHIPPED = ("core", "deploy", "plugins", "personas", "voices", "web")
PATIENCE_S = START_S + 300.0
"""How long a start may take, the wait for a card included."""


def check_settings(environment: Mapping[str, str | None]) -> None:
    """Refuse to deploy a `config.yaml` that is wrong. Raises ValueError.

    Only where the service is installed: where Modal's client alone is, the page's container finds out, which no card
    is paid for. A password may be in a secret, and so not in the environment here.
    """
    try:
        from core.settings.config import read_config
    except ImportError:
        return
    given = {name: value for name, value in environment.items() if value is not None}
    _, problems = read_config(ROOT / "config.yaml", given)
    wrong = [problem for problem in problems if "environment variable" not in problem]
    if wrong:
        raise ValueError("\n".join(["config.yaml is wrong, so nothing is deployed:", *wrong]))


deployment = Deployment.read(os.environ)
if modal.is_local():
    deployment = deployment.stamped()
    check_settings(deployment.environment())
volume = modal.Volume.from_name(NAME, create_if_missing=True)
compiled = modal.Volume.from_name(f"{NAME}-compiled", create_if_missing=True)
recordings = modal.Volume.from_name(f"{NAME}-recordings", create_if_missing=True)
passwords = modal.Secret.from_name(NAME)
hub_token = modal.Secret.from_name("huggingface", required_keys=["HF_TOKEN"])
state = modal.Dict.from_name(f"{deployment.name}-state", create_if_missing=True)
app = modal.App(deployment.name)

# The packages are a layer of their own, and the checkout is not in a layer at all but laid over the image when a
# container starts: an edit of the code builds nothing. Triton wants a C compiler, which is in Modal's Debian.
image = modal.Image.debian_slim(python_version="3.12").uv_sync(str(ROOT), extra_options="--no-dev")
for folder in (*SHIPPED, *deployment.folders.split()):
    if (ROOT / folder).is_dir():
        image = image.add_local_dir(ROOT / folder, f"/root/{folder}", ignore=["**/__pycache__"])
image = image.add_local_file(ROOT / "config.yaml", "/root/config.yaml")


class ModalRecords:
    """The records of `deploy.records`, in the `modal.Dict`."""

    async def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Set a key."""
        await state.put.aio(key, dict(value))

    async def pop(self, key: str) -> None:
        """Remove a key, if it is there."""
        await state.pop.aio(key, None)

    async def items(self) -> AsyncIterator[tuple[str, Any]]:
        """All keys and values."""
        async for key, value in state.items.aio():
            yield key, value


class ModalGpus:
    """Modal's API for `deploy.waking`."""

    async def start(self) -> str:
        """Call `Gpu.serve` without waiting; the id of the call."""
        called = await Gpu().serve.spawn.aio()
        return str(called.object_id)

    async def outcome(self, call: str) -> str | None:
        """Why this call failed; "" when it has returned, None while it is under way."""
        try:
            await modal.FunctionCall.from_id(call).get.aio(timeout=0)
        except Exception as error:
            if type(error) in (TimeoutError, modal.exception.TimeoutError):  # their subclasses are failures
                return None
            return str(error) or type(error).__name__
        return ""

    async def cancel(self, call: str) -> None:
        """End a call that is under way, and its container."""
        await modal.FunctionCall.from_id(call).cancel.aio(terminate_containers=True)


@asynccontextmanager
async def forward(port: int) -> AsyncIterator[str]:
    """Make a port of this container reachable, through TLS; gives the address."""
    async with modal.forward(port) as tunnel:
        yield tunnel.url


async def refresh_settings(settings: "Settings") -> None:
    """Have the Volume show what was put there."""
    try:
        await volume.reload.aio()  # type: ignore[no-untyped-call]
    except (RuntimeError, modal.Error) as error:  # a file is being read: it stays as it was until next time
        print(f"The Volume could not be looked at: {error}")
    settings.refresh()


@app.cls(
    image=image,
    gpu=deployment.gpu,
    cpu=GPU_CORES,
    memory=int(GPU_GIB * 1024),
    region=deployment.region or None,
    volumes={str(DATA): volume, str(COMPILED): compiled, str(RECORDINGS): recordings},
    secrets=[passwords],
    env=deployment.environment(),
    min_containers=deployment.min_containers,
    max_containers=deployment.max_containers,
    scaledown_window=60,  # it has ended by then, but where MIN_CONTAINERS keeps it
    timeout=CONTAINER_S,
    startup_timeout=START_S,
    single_use_containers=True,  # an engine that failed is not used again
    enable_memory_snapshot=True,
    experimental_options={"enable_gpu_snapshot": True} if deployment.gpu_snapshot else {},
)
class Gpu:
    """The calls: `WS /ws/chat`, `WS /api/chat` and `/health`. A container has one engine, and serves one `serve`."""

    engine: Any = None
    settings: Any = None
    failure: Exception | None = None
    """Why the engine cannot be opened, for `serve` to raise: a start that raises is repeated by Modal, again and again.
    """

    @modal.enter(snap=True)
    def load(self) -> None:
        """Before the picture is taken: a loaded, warm engine whose thread waits. No socket, event loop or plugin.

        Without GPU snapshots there is no card yet, and nothing here may ask CUDA for anything: it only imports.
        """
        import core.http.app  # noqa: F401 - to be in the picture
        from deploy.settings import Settings

        self.settings = Settings(SETTINGS, ROOT, DATA)
        if deployment.gpu_snapshot:
            self._open()
            if self.failure:
                print(f"The picture is taken without an engine: {self.failure}")

    @modal.enter(snap=False)
    def start(self) -> None:
        """In every container, restored or not: the engine, where it is not in the picture."""
        if not modal.is_local():
            volume.reload()
        if self.engine is None:
            self._open()

    @modal.method()
    async def serve(self) -> None:
        """Take calls until there are none. Raises what has kept the engine from being opened."""
        from core.boot.garbage import leave_out_what_stays
        from deploy.gpu import serve

        if self.failure:
            raise self.failure
        leave_out_what_stays()
        await serve(
            self.settings,
            self.engine,
            await address(Page().web),
            deployment,
            ModalRecords(),
            forward,
            refresh_settings,
            commit,
            call=str(modal.current_function_call_id()),
        )

    @modal.exit()
    def stop(self) -> None:
        """After the goodbye: end the engine's thread."""
        if self.engine:
            self.engine.close()

    def _open(self) -> None:
        from core.boot.local_engine import open_engine
        from deploy.settings import explained

        self.failure = None
        try:
            config = self.settings.load("gpu")
            self.engine = open_engine(config.engine, print, config.session.longest_s)
        except Exception as error:
            self.failure = explained(error)


@app.cls(
    image=image,
    cpu=PAGE_CORES,
    memory=int(PAGE_GIB * 1024),
    volumes={str(DATA): volume},
    secrets=[passwords],
    env=deployment.environment(),
    max_containers=1,  # guesses at the password are counted in one place, and GPUs started by one
    scaledown_window=300,
    timeout=60,
    enable_memory_snapshot=True,
)
@modal.concurrent(max_inputs=200)
class Page:
    """The page and what it asks for: login, personas, voices, tickets, and where to call. No GPU, and no model."""

    service: Any = None

    @modal.enter(snap=True)
    def load(self) -> None:
        """Before the picture is taken: the imports, which are most of a start."""
        import deploy.page  # noqa: F401

    @modal.enter(snap=False)
    async def start(self) -> None:
        """In every container: settings as they are now, plugins, and the app."""
        from deploy.page import page_app
        from deploy.settings import Settings

        if not modal.is_local():
            await volume.reload.aio()  # type: ignore[no-untyped-call]
        settings = Settings(SETTINGS, ROOT, DATA)
        gpus = ModalGpus()
        self.service = await page_app(settings, DATA, deployment, ModalRecords(), gpus, PATIENCE_S, refresh_settings)

    @modal.asgi_app()
    def web(self) -> Any:
        """The app, whose lifespan Modal runs."""
        return self.service


@app.function(
    image=image,
    cpu=4.0,
    memory=4096,
    volumes={str(DATA): volume},
    secrets=[hub_token],
    # The last makes the hub's client show its progress where there is no terminal.
    env=deployment.environment() | {"PERSONAPLEX_ENGINE__OFFLINE": "false", "TQDM_POSITION": "-1"},
    timeout=7200,
)
def download() -> None:
    """`modal run modal_app.py::download`: put the checkpoint on the Volume, and its voices as safetensors."""
    from core.boot.page_engine import PageEngine
    from deploy.settings import Settings
    from deploy.voice_index import VoiceIndex

    engine = PageEngine.find(Settings(SETTINGS, ROOT, DATA).engine(), print)
    index = VoiceIndex.of(engine)
    index.write(DATA)
    if not modal.is_local():
        volume.commit()
    print(f"On the Volume {NAME}: {index.name}, with the voices {', '.join(index.voices)}")


async def commit() -> None:
    """Keep the recordings that are written."""
    if not modal.is_local():
        await recordings.commit.aio()  # type: ignore[no-untyped-call]


async def address(web: Any) -> str:
    """Where a function is served: `https://...`, without a path."""
    return str(await web.get_web_url.aio()).rstrip("/")
