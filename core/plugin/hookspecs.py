# mypy: disable-error-code=empty-body
# The bodies are docstrings: implementations are in plugins.
"""Every hook a plugin may implement: a signature and what it is for. What happens when one raises: `core/plugins.py`.

An implementation names only the arguments it needs. Where the result may be awaitable, it may be an `async def`.
"""

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Protocol

import pluggy
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from core.engine.call import Engine, Frame
from core.engine.prompt import Voice
from core.events import Identity, ServiceEvent, SessionEvent, SessionInfo

if TYPE_CHECKING:
    from core.plugin.personas import Persona
    from core.settings.config import Config

PROJECT = "personaplex"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Transform(Protocol):
    """What `transform_input` and `transform_output` return: one session's own state and its `process`.

    One that only listens says so with an attribute `observes = True`: what its `process` returns is ignored, and it is
    no part of the time that transforms may take.
    """

    def process(self, frame: Frame) -> Frame:
        """Take and return float32[1920], mono, 24 kHz. Called once a frame, in order, never in two threads at once."""


@hookspec
def startup(config: "Config", engine: Engine | None) -> Awaitable[None] | None:
    """Prepare: called once, before the first caller. `engine` is None where only settings are checked."""


@hookspec
def shutdown() -> Awaitable[None] | None:
    """Let go of what `startup` took: called once, after the last caller."""


@hookspec
def register_routes() -> Sequence[BaseRoute]:
    """Starlette routes to serve beside the core's own. Called once, when the app is made.

    Only callers who are let in reach them, found in `request.state.identity`; `@public` endpoints are open to all.
    """


@hookspec
def notices() -> Sequence[str]:
    """Sentences that callers must read before they call, such as that calls are recorded. Asked for every page."""


@hookspec
def problems() -> Sequence[str]:
    """Sentences for the operator about what is wrong now, for `/health`. Asked often: be quick."""


@hookspec
def authenticate(connection: HTTPConnection) -> Awaitable[Identity | None] | Identity | None:
    """Who is calling, or None to leave it to the next plugin. Where any implements this, nobody named is denied."""


@hookspec
def login_path() -> str | None:
    """The path at which this plugin takes a password (a POST with the form field `password`), or None when it has none.

    `GET /session` tells it to the page, which then shows its login form. The first path found is taken.
    """


@hookspec
def authorize(identity: Identity, persona: "Persona") -> Awaitable[bool | None] | bool | None:
    """False refuses this persona to this caller; anything else leaves it to the next plugin."""


@hookspec
def list_personas(identity: Identity, voices: Sequence[str]) -> "Sequence[Persona] | Awaitable[Sequence[Persona]]":
    """The personas this plugin offers to this caller. One whose voice is not among `voices` is left out."""


@hookspec
def resolve_persona(
    name: str, identity: Identity, voices: Sequence[str]
) -> "Awaitable[Persona | None] | Persona | None":
    """The persona of that name, or None when this plugin has none. The first found is taken."""


@hookspec
def list_voices() -> Sequence[str] | Awaitable[Sequence[str]]:
    """Names of the voices this plugin can load; `voices.allow` decides which of them are offered."""


@hookspec
def load_voice(name: str) -> Awaitable[Voice | None] | Voice | None:
    """The voice of that name, or None when this plugin has none. Blocking work belongs in a thread."""


@hookspec
def transform_input(session: SessionInfo) -> Transform | None:
    """A transform of the caller's frames for this session, or None. Transforms run in the plugins' order."""


@hookspec
def transform_output(session: SessionInfo) -> Transform | None:
    """The same for the agent's frames."""


@hookspec
def session_event(session: SessionInfo, event: SessionEvent) -> None:
    """Something happened in a session. Called on the event loop: be quick; hand slow work to a thread."""


@hookspec
def service_event(event: ServiceEvent) -> None:
    """Something happened outside of any session. Called on the event loop, like `session_event`."""
