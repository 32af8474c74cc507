"""The sections of `config.yaml`: every key with its type, its default and what it means."""

import re
from ipaddress import ip_network
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from core.settings.yaml_structs import FromEnvironment, OptionalToken

NotNegative = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Name = Annotated[str, Meta(min_length=1)]
WebOrigin = Annotated[
    str,
    Meta(
        pattern=r"^https?://[a-z0-9.:\[\]_-]+$",
        description="an origin such as https://example.com or http://10.0.0.7:8080: small letters, no / at the end",
    ),
]
"""An origin as browsers send it: in small letters, without a path and without a default port."""
FrameAncestor = Annotated[
    str,
    Meta(
        pattern=r"^https?://(\*\.)?[a-z0-9.:\[\]_-]+$",
        description="an origin such as https://example.com, or all below it: https://*.example.com; no / at the end",
    ),
]
_CSP = "directives such as script-src, each with its sources: spaces between them, no ; and no ,"
CspDirective = Annotated[str, Meta(pattern=r"^(?!frame-ancestors)[a-z-]+$", description=_CSP)]
CspSources = Annotated[str, Meta(pattern=r"^[!-+\--:<-~]+( [!-+\--:<-~]+)*$", description=_CSP)]
SocketOrigin = Annotated[
    str,
    Meta(
        pattern=r"^(wss?://(\*\.)?[a-z0-9.:\[\]_-]+)?$",
        description="an address such as wss://calls.example.com: small letters, no path, no / at the end",
    ),
]


Device = Literal["auto", "cpu", "cuda"]


class ServerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the service listens, whom it trusts, and how callers wait for a slot."""

    host: Name = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8998
    """0 takes any free port."""
    insecure: bool = False
    """Whether the service may be reachable from other machines although no plugin authenticates callers."""
    origins: tuple[WebOrigin, ...] = ()
    """Other sites whose pages may use the service, such as `https://example.com`. Its own page always may."""
    frame_ancestors: tuple[FrameAncestor, ...] = ()
    """Other sites that may show the page in a frame. `talk.js` needs `origins` alone."""
    csp: dict[CspDirective, CspSources] = field(default_factory=dict)
    """Directives of the Content-Security-Policy in place of the strict ones, for a page of the operator's own."""
    trusted_proxies: tuple[Name, ...] = ()
    """Addresses or networks of the proxies whose forwarding headers are trusted; `*` trusts any."""
    queue: Annotated[int, Meta(ge=0, le=1000)] = 32
    """How many callers may wait for a slot."""
    queue_wait_s: Seconds = 120
    calls_per_identity: NotNegative = 0
    """How many calls one identity may have at once, running or waiting; 0 is any number."""
    calls_per_address: NotNegative = 0
    """How many calls may come from one address at once; 0 is any number. An IPv6 /64 network counts as one address."""
    max_connections: Positive = 2000
    """How many connections of any kind may be open at once. Fewer where the system allows fewer open descriptors."""
    connections_per_address: NotNegative = 250
    """How many of them may come from one address, trusted proxies excepted; 0 is any number."""
    requests_per_s: NotNegative = 50
    """How many requests a second one address may make. Beyond that and a burst they wait; 0 is any number."""
    max_message_bytes: Annotated[int, Meta(ge=8192)] = 65536
    """A larger WebSocket message closes the call. For comparison: a frame of PCM has 3840 bytes."""
    max_request_bytes: Annotated[int, Meta(ge=8192)] = 2**20
    """A larger request is refused with 413."""
    request_s: Seconds = 10
    """How long a client may take to send its request, and how long it may keep an idle connection open."""
    login_days: Annotated[float, Meta(gt=0, le=366)] = 7
    """How long a browser stays logged in."""
    ticket_s: Annotated[float, Meta(gt=0, le=3600)] = 30
    """How soon a ticket must be used."""
    drain_s: Annotated[float, Meta(ge=0)] = 8
    """How long running calls may continue after the service is told to stop."""
    workers: NotNegative | Literal["auto"] = "auto"
    """Processes that serve the sockets, beside one for each engine; 0 is one process for everything. `auto` is 0
    without an NVIDIA GPU or with few `engine.slots`, and otherwise as many as the slots and the machine's cores call
    for."""
    web: str = ""
    """The folder of the web page; "" is the one that comes with the package."""
    role: Literal["all", "page", "gpu"] = "all"
    """What this process serves: `gpu` only the calls, `page` everything else, without an engine, and `all` both."""
    socket: SocketOrigin = ""
    """For the role `page`: the address of the process that serves the calls, such as `wss://calls.example.com`.

    `wss://*.example.com`: the address changes, and a plugin's `POST /calls` says which it is now."""
    wake: Literal["call", "page"] = "call"
    """For the role `page`: whether a call wakes that process, or already a visit to the page."""
    wake_s: Seconds = 30
    """For the role `page`: how long waking usually takes. Callers are told while they wait."""

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
    """Which model runs, where it comes from, and on which device."""

    name: Literal["auto", "personaplex", "nano"] = "auto"
    checkpoint: Name = "nvidia/personaplex-7b-v1"
    """A repository on the Hugging Face hub, or a local folder with the same layout."""
    revision: Name = "main"
    cache: str = ""
    """The folder for downloads; "" is the cache folder of the Hugging Face hub."""
    offline: bool = False
    token: Annotated[OptionalToken, FromEnvironment("HF_TOKEN")] = None
    """For the hub; not given, it is the variable HF_TOKEN."""
    device: Device = "auto"
    """The environment variable CUDA_VISIBLE_DEVICES selects a GPU."""
    devices: Annotated[tuple[NotNegative, ...], Meta(min_length=1)] | Literal["one", "all"] = "one"
    """The GPUs to use, each with an engine of its own: their numbers among those that are visible, or `all`."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    weights: Literal["auto", "int8"] = "auto"
    """`int8` halves the memory of the weights and the memory traffic of a step, at a small loss of precision; `auto`
    keeps them in `dtype`."""
    kv_cache: Literal["auto", "bfloat16", "int8"] = "auto"
    """What the keys and values that calls attend to are stored in. `int8` takes about half the memory of `bfloat16`, at
    a small loss of precision; `auto` is `dtype`."""
    slots: Positive | Literal["auto"] = "auto"
    """How many calls run at once on each device; `auto` is the least of what its memory, the time of a step and the
    machine's cores allow."""
    threads: NotNegative = 0
    """CPU threads for the model. 0 means one, which is fastest for nano."""
    pin_prompt: bool = True
    """Whether a call's prompt stays in the model's window for as long as the call lasts; personas may differ. One that
    does not leaves it with the oldest frames, and the persona is forgotten."""
    prompt_cache_mb: NotNegative = 2048
    """Memory for the prefix cache: later calls of a persona start without a prefill of its prompt."""
    max_lag_ms: Annotated[int, Meta(ge=80)] = 400
    """A burst of frames is caught up; of what still waits after this time, the oldest are dropped."""

    def __post_init__(self) -> None:
        if self.devices != "one" and self.device == "cpu":
            raise ValueError("devices: it numbers GPUs, but device is cpu. Leave out one of the two.")
        if isinstance(self.devices, tuple) and len(set(self.devices)) < len(self.devices):
            raise ValueError("devices: a GPU is named twice.")
        # A header cannot carry anything else, and the libraries that refuse to send it print it.
        if self.token and not re.fullmatch(r"[!-~]+", self.token.reveal()):
            raise ValueError("token: it has a space, a line end or another character that no token has. Copy it again.")


class VoicesConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Which voices are offered."""

    allow: Annotated[tuple[Name, ...], Meta(min_length=1)] = ("*",)
    """Names or globs such as `NAT*`, in the order in which the voices are shown."""
    labels: dict[str, Annotated[str, Meta(min_length=1, max_length=60)]] = field(default_factory=dict)
    """What callers read in place of a voice's name. NATF2 and its kin have labels without it."""
    folder: str = ""
    """The folder of the operator's own `.safetensors` and `.wav` voices; "" is `voices` beside config.yaml. It need not
    exist."""


class PersonasConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Which personas are offered."""

    folder: str = ""
    """The folder of persona files; "" is `personas` beside config.yaml or, where that does not exist, the folder that
    comes with the package."""
    default: str = ""
    """The id of the persona for callers who name none; "" is the first one in the list."""
    custom: bool | Literal["auto"] = "auto"
    """Whether callers may choose a voice and write a prompt of their own; `auto`: where they log in, or only this
    machine can call."""
    max_prompt_chars: Positive = 4000


class SessionConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one call."""

    max_s: Seconds = 900
    """The longest duration of a call."""
    idle_s: Seconds = 120
    """How long the caller may be silent."""
    warn_s: Annotated[float, Meta(ge=0)] = 30
    """How long before `max_s` or `idle_s` ends the call the caller is warned."""
    auth_s: Seconds = 10
    """How long the plugins may take to authenticate the caller and look up persona and voice."""
    prompt_s: Seconds = 30
    """How long the prefill of the prompt may take."""
    first_audio_s: Seconds = 60
    """How long after the handshake the agent's first frame, which answers the caller's first, may come."""
    send_s: Seconds = 5
    """How long a client may leave what it is sent unread."""
    resume_s: Annotated[float, Meta(ge=0, le=3600)] = 20
    """How long a call of `/ws/chat` is kept when its connection breaks, so that its client can pick it up again; 0 ends
    it at once. It keeps its slot meanwhile."""
    max_messages_per_s: Positive = 400
    """The default is twice the rate of a client that sends each 128 samples of a browser's audio worklet."""
    max_ahead_s: Seconds = 15
    """How far the caller's audio may run ahead of the clock. What is further ahead is dropped, oldest first, and a
    client that goes on with it for as long is hung up on."""
    transform_budget_ms: Seconds = 8
    """How much of a frame's 80 ms the plugins' audio transforms may take in each direction."""

    @property
    def longest_s(self) -> float:
        """The most audio that a caller can send in one call, in seconds."""
        return self.max_s + self.max_ahead_s


class PluginsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where plugins come from, and their options."""

    folders: tuple[Name, ...] = ()
    """Folders of plugin files; without any, the folder `plugins` beside config.yaml where it exists."""
    disabled: tuple[Name, ...] = ()
    strict: bool = False
    """Whether a plugin that fails to load stops the boot. One that authenticates callers always does."""
    options: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """The options of each plugin, by the plugin's name."""


class LogConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The format and level of the log."""

    format: Literal["auto", "console", "json"] = "auto"
    """`auto` is `console` on a terminal and `json` elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"


class Sections(Struct, frozen=True, forbid_unknown_fields=True):
    """The sections of config.yaml."""

    server: ServerConfig = ServerConfig()
    engine: EngineConfig = EngineConfig()
    voices: VoicesConfig = VoicesConfig()
    personas: PersonasConfig = PersonasConfig()
    session: SessionConfig = SessionConfig()
    plugins: PluginsConfig = PluginsConfig()
    log: LogConfig = LogConfig()
