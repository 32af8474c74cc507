"""The service on Modal: `uv run --extra modal modal deploy modal_app.py`. `docs/modal.md` says what to do before.

`Page` serves the page, the login and the lists on a small CPU; `Gpu` serves the calls. They share one image, made of
`pyproject.toml`, and a Volume with weights, voices and, if there is one, a `config.yaml` that goes before the
checkout's. A call's socket goes to `Gpu`, with a ticket that `Page` signs with the password both know.

Deploying needs Modal's client alone: the service itself is imported in the containers.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import modal

if TYPE_CHECKING:
    from core.engine.call import Engine
    from core.settings.config import Config

NAME = "personaplex"
ROOT = Path(__file__).parent
"""The checkout; in a container /root, where the image has the same folders."""
SHIPPED = ("core", "plugins", "personas", "voices", "web")
DATA = Path("/data")
"""The Volume: the hub's cache, unpacked voices; the operator's `config.yaml`, `personas/`, `voices/`, `plugins/`."""
COMPILED = Path("/compiled")
"""A Volume of its own: libraries stay open from here, and a Volume with open files shows no news."""
REFRESH_S = 20.0
"""How old what a container sees of the Volume may be."""
PREFIX = "PERSONAPLEX_MODAL_"


@dataclass(frozen=True)
class Deployment:
    """What is chosen at `modal deploy`, each by its variable: `PERSONAPLEX_MODAL_GPU=L40S` and so on."""

    gpu: str = "A10G"
    slots: int = 3
    """Calls at once in a container: what an A10G's 22 GiB hold beside bfloat16 weights, and the start's reserve."""
    max_containers: int = 3
    """The bound of what can be spent: so many GPUs at once."""
    min_containers: int = 0
    scaledown_s: int = 300
    """How long a GPU waits for the next call before it is given back."""
    timeout_s: int = 3600
    """The longest that one call may take, with its wait and its prompt: a WebSocket is one function call."""
    gpu_snapshot: bool = True
    """Whether containers start from a picture of a loaded engine, which is an alpha feature of Modal."""
    region: str = ""
    """Where the GPUs are, such as `eu`; "" is anywhere, which costs least."""
    folders: str = ""
    """Further folders of the checkout that `config.yaml` names, with a space between."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Deployment":
        """The variables that are set, and the defaults. Raises ValueError naming the variable."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            name = PREFIX + field.name.upper()
            if not (text := environ.get(name, "")):
                continue
            if isinstance(field.default, bool):
                if text.lower() not in ("true", "false"):
                    raise ValueError(f"{name} must be true or false, not {text!r}.")
                values[field.name] = text.lower() == "true"
            elif isinstance(field.default, int):
                if not text.isdecimal():
                    raise ValueError(f"{name} must be a whole number, not {text!r}.")
                values[field.name] = int(text)
            else:
                values[field.name] = text
        return cls(**values)

    def environment(self) -> dict[str, str | None]:
        """The same for a container, and what follows of it for the service's own settings."""
        chosen: dict[str, str | None] = {PREFIX + name.upper(): str(value) for name, value in asdict(self).items()}
        return chosen | {
            "PERSONAPLEX_ENGINE__NAME": "personaplex",
            "PERSONAPLEX_ENGINE__CACHE": str(DATA / "cache"),
            "PERSONAPLEX_ENGINE__OFFLINE": "true",
            "PERSONAPLEX_ENGINE__SLOTS": str(self.slots),
            "PERSONAPLEX_LOG__FORMAT": "json",
            "TRITON_CACHE_DIR": str(COMPILED / "triton"),
            "TORCHINDUCTOR_CACHE_DIR": str(COMPILED / "inductor"),
        }


deployment = Deployment.read(os.environ)
volume = modal.Volume.from_name(NAME, create_if_missing=True)
compiled = modal.Volume.from_name(f"{NAME}-compiled", create_if_missing=True)
password = modal.Secret.from_name(NAME, required_keys=["PERSONAPLEX_PASSWORD"])
hub_token = modal.Secret.from_name("huggingface", required_keys=["HF_TOKEN"])
app = modal.App(NAME)

# The packages are a layer of their own, and the checkout is not in a layer at all but laid over the image when a
# container starts: an edit of the code builds nothing. Triton wants a C compiler, which is in Modal's Debian.
image = modal.Image.debian_slim(python_version="3.12").uv_sync(str(ROOT), extra_options="--no-dev")
for folder in (*SHIPPED, *deployment.folders.split()):
    if (ROOT / folder).is_dir():
        image = image.add_local_dir(ROOT / folder, f"/root/{folder}", ignore=["**/__pycache__"])
image = image.add_local_file(ROOT / "config.yaml", "/root/config.yaml")


@app.cls(
    image=image,
    gpu=deployment.gpu,
    cpu=2.0,
    memory=8192,
    region=deployment.region or None,
    volumes={str(DATA): volume, str(COMPILED): compiled},
    secrets=[password],
    env=deployment.environment(),
    min_containers=deployment.min_containers,
    max_containers=deployment.max_containers,
    scaledown_window=deployment.scaledown_s,
    timeout=deployment.timeout_s,
    startup_timeout=900,
    enable_memory_snapshot=True,
    experimental_options={"enable_gpu_snapshot": True} if deployment.gpu_snapshot else {},
)
@modal.concurrent(max_inputs=deployment.slots)
class Gpu:
    """The calls: `WS /ws/chat`, `WS /api/chat` and `/health`. A container has one engine, and an input a slot."""

    engine: "Engine | None" = None
    service: Any = None

    @modal.enter(snap=True)
    def load(self) -> None:
        """Before the picture is taken: a loaded, warm engine whose thread waits. No socket, event loop or plugin.

        Without GPU snapshots there is no card yet, and nothing here may ask CUDA for anything: it only imports.
        """
        import core.http.app  # noqa: F401 - to be in the picture
        from core.boot.local_engine import open_engine

        if deployment.gpu_snapshot:
            with on_the_volume():
                config = configured("gpu")
                self.engine = open_engine(config.engine, print, config.session.longest_s)

    @modal.enter(snap=False)
    def start(self) -> None:
        """In every container, restored or not: settings as they are now, plugins, and the app."""
        from core.boot.local_engine import open_engine

        if not modal.is_local():
            volume.reload()
        config = configured("gpu", origins=(address(Page().web),))
        longest = config.server.queue_wait_s + config.session.prompt_s + config.session.max_s
        if longest > deployment.timeout_s:
            raise ValueError(
                f"By {config.source} a call may take {longest:.0f} s, but Modal ends it after {deployment.timeout_s}: "
                f"lower session.max_s or server.queue_wait_s, or deploy with {PREFIX}TIMEOUT_S={longest:.0f}."
            )
        if self.engine is None:
            with on_the_volume():
                self.engine = open_engine(config.engine, print, config.session.longest_s)
        self.service = served(config, self.engine)

    @modal.asgi_app()
    def web(self) -> Any:
        """The app. Modal runs its lifespan: plugins start, and at the end calls are said goodbye to."""
        return self.service

    @modal.exit()
    def stop(self) -> None:
        """After the goodbye: end the engine's thread."""
        if self.engine:
            self.engine.close()


@app.cls(
    image=image,
    cpu=0.5,
    memory=1024,
    volumes={str(DATA): volume},
    secrets=[password],
    env=deployment.environment(),
    max_containers=1,  # guesses at the password are counted in one place
    scaledown_window=300,
    timeout=60,
    enable_memory_snapshot=True,
)
@modal.concurrent(max_inputs=200)
class Page:
    """The page and what it asks for: login, personas, voices, tickets. No GPU, and no model."""

    service: Any = None

    @modal.enter(snap=True)
    def load(self) -> None:
        """Before the picture is taken: the imports, which are most of a start."""
        import core.boot.page_engine
        import core.http.app  # noqa: F401

    @modal.enter(snap=False)
    def start(self) -> None:
        """In every container: settings as they are now, plugins, and the app."""
        from core.boot.page_engine import PageEngine

        if not modal.is_local():
            volume.reload()
        config = configured("page", socket=address(Gpu().web).replace("http", "ws", 1))
        with on_the_volume():
            self.service = served(config, PageEngine.find(config.engine, print))

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

    engine = PageEngine.find(configured("all").engine, print)
    if not modal.is_local():
        volume.commit()
    print(f"On the Volume {NAME}: {engine.info.name}, with the voices {', '.join(engine.voices())}")


def configured(role: str, **server: Any) -> "Config":
    """The settings of the Volume, or else those of the checkout, for one role. Raises ConfigError."""
    import msgspec

    from core.settings.config import load_config
    from core.settings.log import configure_logging

    path = DATA / "config.yaml" if (DATA / "config.yaml").is_file() else ROOT / "config.yaml"
    config = load_config(path, os.environ)
    configure_logging(config.log)
    server |= {"role": role, "origins": (*config.server.origins, *server.get("origins", ()))}
    server["host"] = "0.0.0.0"  # noqa: S104 - whoever knows a function's address reaches it
    return msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, **server))


def served(config: "Config", engine: "Engine") -> Any:
    """The service as an app, which in a container finds edits on the Volume by itself."""
    from core.boot.check import require_protection
    from core.http.app import create_app
    from core.plugin.host import PluginHost

    host = PluginHost.load(config)
    require_protection(config.server, host.protected)
    service = create_app(config, engine, host)
    return service if modal.is_local() else FreshVolume(service, volume)


@contextmanager
def on_the_volume() -> Iterator[None]:
    """Say what to do when the checkpoint is not there."""
    from core.errors import CheckpointError

    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(
            f"The Volume {NAME} has no whole checkpoint. Run `modal run modal_app.py::download`. ({error})"
        ) from error


def address(web: Any) -> str:
    """Where a function is served: `https://...`, without a path."""
    return str(web.get_web_url()).rstrip("/")


class FreshVolume:
    """ASGI middleware: a request finds what the Volume held at most REFRESH_S ago."""

    def __init__(self, app: Any, volume: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._volume, self._clock = app, volume, clock
        self._due = clock() + REFRESH_S

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan" and self._clock() >= self._due:
            self._due = self._clock() + REFRESH_S
            try:
                await self._volume.reload.aio()
            except (RuntimeError, modal.Error) as error:  # a file is being read: it stays as it was until next time
                print(f"The Volume could not be looked at: {error}")
        await self._app(scope, receive, send)


# What it costs.

PRICED = "modal.com/pricing as of 2026-09; look there for today's"
GPU_SECOND = {
    "T4": 0.000164,
    "L4": 0.000222,
    "A10G": 0.000306,
    "L40S": 0.000542,
    "A100-40GB": 0.000583,
    "A100-80GB": 0.000694,
    "H100": 0.001097,
}
"""Dollars a second, outside of a chosen region, which costs more."""
CORE_SECOND = 0.0000131
GIB_SECOND = 0.00000222


def hourly(gpu: str, cores: float, gib: float) -> float:
    """Dollars an hour of a container; `gpu` is "" for one without."""
    return 3600 * (GPU_SECOND.get(gpu, 0.0) + cores * CORE_SECOND + gib * GIB_SECOND)


def cost_table(gpu: str, slots: int, scaledown_s: int) -> str:
    """What an hour costs, and what it costs each of those who talk in it."""
    hour, page = hourly(gpu, 2.0, 8.0), hourly("", 0.5, 1.0)
    callers = sorted({1, max(1, slots // 2), slots})
    return "\n".join(
        [
            f"{gpu}, {slots} slots, at the prices of {PRICED}:",
            f"  an hour of the GPU container    ${hour:7.3f}",
            f"  an hour of the page             ${page:7.3f}",
            *(f"  a caller-hour, {count:2} talking       ${hour / count:7.3f}" for count in callers),
            f"  waiting {scaledown_s} s after the last call ${hour * scaledown_s / 3600:7.3f}",
            "  nobody there                    $  0.000",
        ]
    )


@app.local_entrypoint()
def cost(gpu: str = deployment.gpu, slots: int = deployment.slots) -> None:
    """`modal run modal_app.py::cost`: the table for this deployment, or for another with --gpu and --slots."""
    print(cost_table(gpu, slots, deployment.scaledown_s))
