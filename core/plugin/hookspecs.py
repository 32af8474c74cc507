# mypy: disable-error-code=empty-body
# The bodies are docstrings: implementations are in plugins.
"""Every hook that a plugin may implement. `core.plugin.host` says what happens when an implementation raises.

An implementation names only the arguments that it needs. Where the result may be awaitable, it may be an `async def`,
which runs on the event loop; a plain function runs in a thread there, so that it may block. All others run on the event
loop and must be quick.

Deprecation policy:

A hook may gain arguments in any release, since an implementation names only those that it needs. An event may gain
fields and new events may appear in any release, so a plugin ignores events that it does not know. Everything else that
a plugin relies on, which is the hooks, their arguments and the names of `core` and `core.testing`, is removed or
changed in meaning only after a deprecation: the changelog names it together with its replacement, it goes on working
for at least two minor releases (from 0.4 to 0.6, say), and where it is a hook or an argument, the log of every service
start warns of each plugin that still uses it.
"""

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Protocol

import pluggy
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from core.engine.call import Engine, Frame
from core.engine.prompt import Voice
from core.events import Identity, ServiceEvent, SessionEvent, SessionInfo
from core.plugin.acting import SessionControl, SessionHandler
from core.plugin.doors import Calls
from core.plugin.logins import Login, Logins
from core.plugin.store import Store
from core.settings.yaml_structs import Secret

if TYPE_CHECKING:
    from core.plugin.personas import Persona
    from core.settings.config import Config

PROJECT = "personaplex"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function, or a method of a class `Plugin`, as the implementation of the hook of its name."""


SYNC_HOOKS = (
    "register_routes",
    "notices",
    "problems",
    "login",
    "login_secret",
    "transform_input",
    "transform_output",
    "open_session",
    "session_event",
    "service_event",
)
"""Hooks that are called where nothing can be awaited, so that a plugin with an `async def` for one is not loaded."""


class Transform(Protocol):
    """What `transform_input` and `transform_output` return: an object with one session's state and a `process`.

    One that only listens says so with an attribute `observes = True`: what its `process` returns is ignored, and it is
    no part of the time that transforms may take.
    """

    def process(self, frame: Frame) -> Frame:
        """Transform one frame: float32[1920], 80 ms, mono, 24 kHz, in and out.

        Called for each frame in order, and never in two threads at once.
        """


@hookspec
def startup(
    config: "Config", engine: Engine | None, shared: Store, calls: Calls | None, logins: Logins
) -> Awaitable[None] | None:
    """Prepare the plugin. Called once, before the first caller. `engine` is None where only settings are checked.

    `shared` keeps what must outlive an edit of the plugin's options, or be the same in all processes of a service.
    `calls` opens sessions for a door of the plugin's own; None where nobody can call, such as in a process whose
    `server.role` is `page`, or where `engine` is None.
    `logins` lets people in from the page.
    """


@hookspec
def shutdown() -> Awaitable[None] | None:
    """Release what `startup` acquired. Called once, after the last caller."""


@hookspec
def register_routes() -> Sequence[BaseRoute]:
    """Starlette routes to serve beside the service's own. Called once, when the app is created.

    Only authenticated callers reach them, with their Identity in `request.state.identity`. An endpoint marked with
    `@public` is open to everybody.
    """


@hookspec
def notices(identity: Identity | None) -> Sequence[str]:
    """Sentences that callers must read before they call, such as that calls are recorded. Called for each page load.

    `identity` is None for a visitor who has not logged in.
    """


@hookspec
def problems() -> Sequence[str]:
    """Sentences for the operator about what is wrong now, shown in `/health`. Called often, so it must be quick."""


@hookspec
def authenticate(connection: HTTPConnection) -> Awaitable[Identity | None] | Identity | None:
    """Who is calling, or None to leave it to the next plugin. A caller whom no plugin identifies is denied.

    May raise RefusedError to refuse with a status and message of its own; no other plugin is called then.
    """


@hookspec
def login() -> Login | None:
    """How people log in with this plugin on the page, or None when they cannot. The page offers every way there is.

    Whoever has proved who they are is let in by `logins.admit`, which `startup` is given. A plugin that has this hook
    has `login_secret` too, or an `authenticate` of its own.
    """


@hookspec
def login_secret(name: str) -> Secret | None:
    """The secret that signs the cookies and tickets of this name, such as that caller's password; None lets nobody of
    that name in.

    Each process that knows the secret accepts what it has signed, and a changed secret ends it. Called for every
    request that brings a cookie or ticket, before its signature is verified, so anybody may have made up the name:
    return a stored secret or None, quickly, and never a secret that is made of the name.
    """


@hookspec
def authorize(identity: Identity, persona: "Persona") -> Awaitable[bool | None] | bool | None:
    """False refuses this persona to this caller. True and None leave the decision to the next plugin."""


@hookspec
def list_personas(identity: Identity, voices: Sequence[str]) -> "Sequence[Persona] | Awaitable[Sequence[Persona]]":
    """The personas that this plugin offers to this caller. One whose voice is not among `voices` is left out."""


@hookspec
def resolve_persona(
    name: str, identity: Identity, voices: Sequence[str]
) -> "Awaitable[Persona | None] | Persona | None":
    """The persona with the id `name`, or None when this plugin has none. The first plugin that has it counts."""


@hookspec
def list_voices() -> Sequence[str] | Awaitable[Sequence[str]]:
    """Names of the voices that this plugin can load. The setting `voices.allow` decides which of them are offered."""


@hookspec
def load_voice(name: str) -> Awaitable[Voice | None] | Voice | None:
    """The voice of that name, or None when this plugin has none."""


@hookspec
def transform_input(session: SessionInfo) -> Transform | None:
    """A transform of the caller's frames for this session, or None. Transforms run in the order of their plugins."""


@hookspec
def transform_output(session: SessionInfo) -> Transform | None:
    """A transform of the agent's frames for this session, or None. Transforms run in the order of their plugins."""


@hookspec
def open_session(control: SessionControl) -> SessionHandler | None:
    """Act in a session: keep its control, and return an object that hears what happens in it, or None.

    Called once for each session, when its request has been accepted and before it waits for a slot.
    """


@hookspec
def session_event(session: SessionInfo, event: SessionEvent) -> None:
    """Something happened in a session. Called on the event loop, so slow work belongs in a thread."""


@hookspec
def service_event(event: ServiceEvent) -> None:
    """Something happened outside of any session. Called on the event loop, so slow work belongs in a thread."""
