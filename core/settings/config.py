"""`config.yaml` and the environment -> one frozen `Config`.

Every key has a default, so an empty file is a configuration. A value `{env: NAME}` is read from the environment
variable NAME, which must be set unless a `default` stands beside it: `{env: NAME, default: null}`. Any key can be
overridden by a variable such as `PERSONAPLEX_SERVER__PORT=9000`: section and key in capitals, two underscores between;
its text is taken as it is where text is wanted, and else read as YAML.
"""

from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from core.errors import ConfigError
from core.settings.yaml_structs import EnvironmentText, Secret, decode, read_yaml

__all__ = ["Config", "ConfigError", "Secret", "load_config", "read_config", "shipped"]

ENVIRONMENT_PREFIX = "PERSONAPLEX_"

NotNegative = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Name = Annotated[str, Meta(min_length=1)]
WebOrigin = Annotated[str, Meta(pattern=r"^https?://[a-z0-9.:\[\]_-]+$")]
"""As browsers write it: no path, no default port, small letters."""
SocketOrigin = Annotated[str, Meta(pattern=r"^(wss?://[a-z0-9.:\[\]_-]+)?$")]


class ServerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the service listens, and how callers wait."""

    host: Name = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8998
    """0 takes any free port."""
    insecure: bool = False
    """Whether everybody may call who reaches a service that other machines can reach, and no plugin asks who it is."""
    origins: tuple[WebOrigin, ...] = ()
    """Other sites whose pages may use the service, such as `https://example.com`. Its own page always may."""
    trusted_proxies: tuple[Name, ...] = ()
    """Addresses or networks of proxies that are believed when they say whom they forward for; `*` is any."""
    queue: Annotated[int, Meta(ge=0, le=1000)] = 32
    """How many callers may wait for a slot."""
    queue_wait_s: Seconds = 120
    calls_per_identity: NotNegative = 0
    """How many callers of one name may talk or wait at once; 0 is any number."""
    calls_per_address: NotNegative = 0
    """The same for callers from one address; an IPv6 network of 64 bits is one."""
    max_message_bytes: Annotated[int, Meta(ge=8192)] = 65536
    """A frame of PCM has 3840 bytes; larger messages than this close the call."""
    request_s: Seconds = 10
    """A client must have sent its whole request in this time, and may keep an unused connection for as long."""
    drain_s: Annotated[float, Meta(ge=0)] = 8
    """How long running calls may go on when the service is told to stop."""
    workers: NotNegative | Literal["auto"] = "auto"
    """Processes that serve the sockets, beside one for each engine; 0 is everything in one process. `auto` is 0 where
    slots are few, and else as many as the cores and slots call for."""
    web: str = ""
    """The folder of the page; "" is the one that comes with the package."""
    role: Literal["all", "page", "gpu"] = "all"
    """What this process serves: `page` everything but the calls, without an engine; `gpu` the calls alone."""
    socket: SocketOrigin = ""
    """For the role `page`: where the calls are served, such as `wss://calls.example.com`."""
    wake: Literal["call", "page"] = "call"
    """For the role `page`: whether that process is woken by a call, or as soon as somebody opens the page."""
    wake_s: Seconds = 30
    """For the role `page`: how long waking usually takes, which callers are told while they wait."""

    def __post_init__(self) -> None:
        if self.role == "page" and not self.socket:
            raise ValueError("socket: the role page needs it: where the calls are served, wss://...")
        for proxy in self.trusted_proxies:
            try:
                proxy == "*" or ip_network(proxy)
            except ValueError:
                raise ValueError(
                    f"trusted_proxies: {proxy} is no address or network; give one such as 127.0.0.1 or 10.0.0.0/8."
                ) from None


class EngineConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Which model runs, from where, on what."""

    name: Literal["auto", "personaplex", "nano"] = "auto"
    checkpoint: Name = "nvidia/personaplex-7b-v1"
    """A repository on the Hugging Face hub, or a folder in the same layout."""
    revision: Name = "main"
    cache: str = ""
    """Where downloads are kept; "" is the hub's own cache folder."""
    offline: bool = False
    token: Secret | None = None
    device: Name = "auto"
    """`auto`, `cpu` or `cuda`; the variable CUDA_VISIBLE_DEVICES picks a card."""
    devices: Annotated[tuple[NotNegative, ...], Meta(min_length=1)] | Literal["all", "one"] = "one"
    """The GPUs to use, each with an engine of its own: numbers among those that are visible, or `all`."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    weights: Literal["auto", "int8"] = "auto"
    """`int8` halves what the weights take and what a frame reads, at a little precision; `auto` is `dtype`."""
    slots: Positive | Literal["auto"] = "auto"
    """How many callers at once; `auto` takes what the device holds."""
    threads: NotNegative = 0
    """CPU threads of the model; 0 is one, which is best for nano."""
    prompt_cache_mb: NotNegative = 2048
    """Memory for prepared prompts, so that a persona's later calls start at once."""
    max_lag_ms: Annotated[int, Meta(ge=80)] = 400
    """A caller whose frames wait longer than this loses the oldest."""

    def __post_init__(self) -> None:
        if self.devices != "one" and self.device == "cpu":
            raise ValueError("devices: only GPUs have numbers, and device is cpu. Leave one of the two out.")
        if isinstance(self.devices, tuple) and len(set(self.devices)) < len(self.devices):
            raise ValueError("devices: names a GPU twice.")


class VoicesConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Which voices are offered."""

    allow: Annotated[tuple[Name, ...], Meta(min_length=1)] = ("*",)
    """Names or globs such as `NAT*`, in the order in which the voices are shown."""
    folder: str = ""
    """The operator's own `.safetensors` and `.wav`; "" is `voices` beside config.yaml. May be missing."""


class PersonasConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Which personas are offered."""

    folder: str = ""
    """"" is `personas` beside config.yaml, or, where there is none, the ones that come with the package."""
    default: str = ""
    """The id of the persona for callers who name none; "" is the first in the list."""
    custom: bool = False
    """Whether callers may bring their own voice and prompt."""
    max_prompt_chars: Positive = 4000


class SessionConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one conversation."""

    max_s: Seconds = 900
    idle_s: Seconds = 120
    """The caller may be silent for so long."""
    warn_s: Annotated[float, Meta(ge=0)] = 30
    """The caller is told so long before one of these two ends the call."""
    auth_s: Seconds = 10
    """Who is calling, and the persona and voice, must be found out in this time."""
    prompt_s: Seconds = 30
    """The prompt must be ready in this time."""
    first_audio_s: Seconds = 60
    """The agent's first sound, which answers the caller's, must come in this time after the handshake."""
    send_s: Seconds = 5
    """A client that does not read for so long is closed."""
    max_messages_per_s: Positive = 400
    """Twice what a client sends that passes on each 128 samples of a browser's audio worklet."""
    max_ahead_s: Seconds = 15
    """How far the caller's audio may run ahead of the clock: what a network that stalled delivers together."""
    transform_budget_ms: Seconds = 8
    """What the audio transforms of plugins may take of each frame's 80 ms, in each direction."""

    @property
    def longest_s(self) -> float:
        """How much sound a caller may bring in one call."""
        return self.max_s + self.max_ahead_s


class PluginsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where plugins come from and what they are told."""

    folders: tuple[Name, ...] = ()
    """Folders of plugin files; when not given, `plugins` beside config.yaml if it is there."""
    disabled: tuple[Name, ...] = ()
    strict: bool = False
    """Whether any plugin that fails to load stops the boot. One that decides who may call always does."""
    options: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """A block a plugin, under its name."""


class LogConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How the log looks."""

    format: Literal["auto", "console", "json"] = "auto"
    """`auto` is `console` on a terminal and `json` elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"


class Sections(Struct, frozen=True, forbid_unknown_fields=True):
    """The keys of config.yaml."""

    server: ServerConfig = ServerConfig()
    engine: EngineConfig = EngineConfig()
    voices: VoicesConfig = VoicesConfig()
    personas: PersonasConfig = PersonasConfig()
    session: SessionConfig = SessionConfig()
    plugins: PluginsConfig = PluginsConfig()
    log: LogConfig = LogConfig()


class Config(Sections, frozen=True, forbid_unknown_fields=True):
    """All settings of one service. Folders are absolute when it comes from `load_config`."""

    source: str = "config.yaml"
    """The file this was read from, for messages."""

    def options(self, plugin: str) -> Mapping[str, Any]:
        """The plugin's own block of `plugins.options`; empty when there is none."""
        return self.plugins.options.get(plugin) or {}


def shipped(name: str) -> Path:
    """A file or folder that comes with the project (`config.yaml`, `personas`, `web`): in a checkout it lies beside the
    package `core`, in a wheel in `core/shipped`."""
    inside = Path(__file__).parent.parent / "shipped" / name
    return inside if inside.exists() else Path(__file__).parent.parent.parent / name


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The configuration in `path`; None takes `config.yaml` in the current folder, or else the shipped one.

    Relative folders are those beside the file. Raises ConfigError with every problem, each naming file and key.
    """
    config, problems = read_config(path, environ)
    if problems:
        raise ConfigError(problems)
    return config


def read_config(path: Path | None, environ: Mapping[str, str]) -> tuple[Config, list[str]]:
    """As `load_config`, but gives the problems beside what could be read; sections with problems are the defaults."""
    if path is None:
        here = Path("config.yaml")
        path = here if here.is_file() else shipped("config.yaml")
    path = path.absolute()
    problems: list[str] = []
    data = read_yaml(path, problems)
    data = {key: _fill(value, environ, f"{path}: {key}", problems) for key, value in data.items()}
    _override(data, environ, problems)

    sections = {}
    for key in list(data):
        found = decode(Sections, {key: data[key]}, str(path), problems)
        if found is not None:
            sections[key] = getattr(found, key)
    return _resolve(Config(source=str(path), **sections), path.parent, problems), problems


def _fill(value: Any, environ: Mapping[str, str], where: str, problems: list[str]) -> Any:
    """`value` with each `{env: NAME}` in it replaced."""
    if isinstance(value, list):
        return [_fill(item, environ, f"{where}[{index}]", problems) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "env" not in value or not value.keys() <= {"env", "default"}:
        return {key: _fill(item, environ, f"{where}.{key}", problems) for key, item in value.items()}
    name = value["env"]
    if not isinstance(name, str) or not name:
        problems.append(f"{where}: env must name an environment variable.")
    elif name in environ:
        return EnvironmentText(environ[name], name)
    elif "default" not in value:
        problems.append(
            f"{where}: the environment variable {name} is not set. Set it, or write {{env: {name}, default: ...}}."
        )
    return value.get("default")


def _override(data: dict[str, Any], environ: Mapping[str, str], problems: list[str]) -> None:
    """Put `PERSONAPLEX_SECTION__KEY` variables in their places."""
    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX) or "__" not in name:
            continue
        *parents, last = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        place = data
        for parent in parents:
            if place.get(parent) is None:
                place[parent] = {}
            place = place[parent]
            if not isinstance(place, dict):
                problems.append(f"the environment variable {name}: '{parent}' is not a mapping, so it has no '{last}'.")
                break
        else:
            place[last] = EnvironmentText(environ[name], name)


def _resolve(config: Config, base: Path, problems: list[str]) -> Config:
    """`config` with absolute folders; those that must be there and are not are problems."""

    def folder(key: str, given: str, default: Path) -> str:
        if given and not (base / given).expanduser().is_dir():
            problems.append(
                f"{config.source}: {key}: the folder {base / given} does not exist. Make it, or correct it."
            )
        return str((base / Path(given).expanduser()).absolute() if given else default.absolute())

    personas = base / "personas" if (base / "personas").is_dir() else shipped("personas")
    beside = (str(base / "plugins"),) if (base / "plugins").is_dir() else ()
    folders = tuple(folder("plugins.folders", name, base) for name in config.plugins.folders)
    checkpoint = (base / Path(config.engine.checkpoint).expanduser()).absolute()
    cache = config.engine.cache and str((base / Path(config.engine.cache).expanduser()).absolute())
    replace = msgspec.structs.replace
    return replace(
        config,
        server=replace(config.server, web=folder("server.web", config.server.web, shipped("web"))),
        engine=replace(
            config.engine,
            checkpoint=str(checkpoint) if checkpoint.is_dir() else config.engine.checkpoint,
            cache=cache,
        ),
        voices=replace(config.voices, folder=str((base / (config.voices.folder or "voices")).absolute())),
        personas=replace(config.personas, folder=folder("personas.folder", config.personas.folder, personas)),
        plugins=replace(config.plugins, folders=folders or beside),
    )
