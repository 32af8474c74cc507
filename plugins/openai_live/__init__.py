"""OpenAI's Live API: a WebSocket `/v1/live/sessions` for the clients of OpenAI's voice models, with another base URL.

In config.yaml:

    plugins:
      options:
        openai_live:
          enabled: auto          # where callers log in, or only this machine can call; true or false: always or never
          delegate_turns: true   # with the plugin transcribe: what the caller said may be answered by the client

The client logs in with `Authorization: Bearer`, by any plugin that takes one. The first event is `session.start`; then
sound goes both ways all the time, without turns.
"""

from typing import Literal

from msgspec import Struct
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from core import (
    Calls,
    ClientSocket,
    Config,
    Engine,
    SessionControl,
    SessionEnded,
    SessionHandler,
    Store,
    get_logger,
    hookimpl,
)

from .live_session import LiveSession
from .opening import open_call
from .outbox import Outbox
from .transport import LiveTransport

ROUTE = "/v1/live/sessions"


class Plugin:
    """Serves the route, and knows the control of each session that comes by it."""

    class Options(Struct, frozen=True, forbid_unknown_fields=True):
        """The plugin's block in config.yaml."""

        enabled: bool | Literal["auto"] = "auto"
        """`auto` is true where callers log in, or only this machine can call."""
        delegate_turns: bool = True
        """Whether what the caller said becomes a `session.delegation.created`, where the client is to answer it and a
        plugin such as transcribe knows the words."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.enabled = options.enabled is not False
        self._calls: Calls | None = None
        self._log = get_logger("openai_live")

    @hookimpl
    async def startup(self, config: Config, engine: Engine | None, shared: Store, calls: Calls | None) -> None:
        self._calls = calls
        self._start_s = config.server.request_s
        self._engine = engine
        self._controls: dict[str, SessionControl] = shared.local("openai_live controls")

    @hookimpl
    def register_routes(self) -> list[BaseRoute]:
        return [WebSocketRoute(ROUTE, self.serve)]

    @hookimpl
    def open_session(self, control: SessionControl) -> "Handler | None":
        if control.info.route != ROUTE:
            return None
        self._controls[control.info.id] = control
        return Handler(control.info.id, self._controls)

    async def serve(self, websocket: WebSocket) -> None:
        """`WS /v1/live/sessions`: one session, from its start to its end."""
        if self._calls is None or not (self._options.enabled is True or self._calls.private):
            self._log.warning(
                "a client asked for the Live API, which is off where nobody logs in and others can call; "
                "plugins.options.openai_live.enabled: true switches it on"
            )
            refusal = {"error": "This service does not offer the Live API."}
            await websocket.send_denial_response(JSONResponse(refusal, status_code=404))
            return
        await websocket.accept()
        socket, outbox = ClientSocket(websocket), Outbox()
        opened = await open_call(websocket, socket, self._calls, outbox, self._start_s)
        if opened is None:
            return
        start, call = opened
        context_s = self._engine.info.context_s if self._engine else 0.0
        session = LiveSession(start, outbox, delegates=self._options.delegate_turns, context_s=context_s)
        await call.run(LiveTransport(socket, start, session, self._controls))


class Handler(SessionHandler):
    """Forgets the control of a session that ended before it began; its transport takes that of any other."""

    def __init__(self, session: str, controls: dict[str, SessionControl]) -> None:
        self._session = session
        self._controls = controls

    async def close(self, _ended: SessionEnded) -> None:
        """See SessionHandler."""
        self._controls.pop(self._session, None)
