"""What stands before every route: pages of other sites, and callers whom nobody knows, are kept out."""

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from core.errors import RefusedError
from core.plugin.host import PluginHost
from core.session.addresses import is_address, is_loopback
from core.session.chat_request import authenticate

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
"""A page of another site may ask for these, but a browser does not let it read the answer."""
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
PUBLIC = "personaplex_public"

_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


def public(endpoint: _Endpoint) -> _Endpoint:
    """Marks the endpoint of a plugin's route as open to everybody, logged in or not."""
    setattr(endpoint, PUBLIC, True)
    return endpoint


async def refuse(scope: Scope, receive: Receive, send: Send, error: RefusedError) -> None:
    """Answer a request, or a WebSocket that is not accepted yet, with an error."""
    response = JSONResponse({"error": str(error)}, status_code=error.status, headers=error.headers)
    if scope["type"] == "websocket":
        websocket = WebSocket(scope, receive, send)
        if "websocket.http.response" in scope.get("extensions", {}):
            await websocket.send_denial_response(response)
        else:  # not every server can say more than a bare 403
            await websocket.close()
    else:
        await response(scope, receive, send)


class PluginRoutes(BaseRoute):
    """The routes of the plugins in force. Those that are not `public` are for callers whom a plugin lets in."""

    def __init__(self, host: Callable[[], PluginHost]) -> None:
        self._host = host
        host().routes()  # those that are wrong stop the boot

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See BaseRoute. A full match of any route goes before a partial one (another method), as in a Router."""
        best: tuple[Match, Scope] = (Match.NONE, {})
        for route in self._host().routes():
            match, found = route.matches(scope)
            if match.value > best[0].value:
                best = match, {**found, "plugin_route": route}
        return best

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See BaseRoute."""
        route: BaseRoute = scope["plugin_route"]
        if not getattr(getattr(route, "endpoint", None), PUBLIC, False):
            connection = HTTPConnection(scope)
            try:
                connection.state.identity = await authenticate(connection, self._host())
            except RefusedError as error:
                await refuse(scope, receive, send, error)
                return
        await route.handle(scope, receive, send)


class SameSite:
    """Middleware: a WebSocket, or a request that changes something, comes from our own page or a site we know.

    A browser says in `Origin` whose page asks; what is no browser says nothing, and is let through. While nobody has to
    log in, even our own address is taken from the browser's word only where no other site can have that name.
    """

    def __init__(
        self,
        app: ASGIApp,
        origins: tuple[str, ...],
        local_only: Callable[[], bool],
        refused: Callable[[HTTPConnection, RefusedError], None],
    ) -> None:
        """`local_only` says whether to answer only to this machine's names; `refused` hears of every refusal."""
        self._app = app
        self._origins = frozenset(origins)
        self._hosts = frozenset(urlsplit(origin).hostname for origin in origins)
        self._local_only = local_only
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            connection = HTTPConnection(scope)
            try:
                self._check_host(connection)
                if scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS:
                    self._check_origin(connection)
            except RefusedError as error:
                self._refused(connection, error)
                await refuse(scope, receive, send, error)
                return
        await self._app(scope, receive, send)

    def _check_host(self, connection: HTTPConnection) -> None:
        """A page of another site may make its own name stand for this machine (DNS rebinding), and be one with us."""
        host = _host_name(connection.headers.get("host", ""))
        if host and self._local_only() and not (is_address(host) or is_loopback(host) or host in self._hosts):
            raise RefusedError(
                403,
                "Nobody has to log in here, so only this machine's own names are answered. "
                "The operator can set a password, name this site in server.origins, or set server.insecure.",
                reason="unknown_host",
            )

    def _check_origin(self, connection: HTTPConnection) -> None:
        given = connection.headers.getlist("origin")
        if not given or (len(given) == 1 and self._is_ours(given[0].lower(), connection.headers.get("host", ""))):
            return
        raise RefusedError(
            403,
            f"Pages of {given[0][:100]} may not use this service. The operator can name that site in server.origins.",
            reason="cross_site",
        )

    def _is_ours(self, origin: str, host: str) -> bool:
        if origin in self._origins:
            return True
        scheme, _, place = origin.partition("://")
        return scheme in DEFAULT_PORTS and place == host.lower().removesuffix(DEFAULT_PORTS[scheme])


def _host_name(host: str) -> str:
    """The name or address in a `Host` header; what cannot be read as one is no name of ours, and stays as it is."""
    try:
        return urlsplit(f"//{host}").hostname or host
    except ValueError:
        return host
