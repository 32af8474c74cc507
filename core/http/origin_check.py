"""Middleware that checks the `Host` and `Origin` headers of every request, so that pages of other sites are kept out.

It guards against cross-site request forgery, cross-site WebSocket hijacking and DNS rebinding.
"""

from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import RefusedError
from core.session.refusal import refuse
from core.settings.hosts import is_address, is_loopback

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing. A page of another site may send them, but may not read the answer."""
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class OriginCheck:
    """ASGI middleware: a WebSocket, or a request that changes something, comes from our own page or a site we know.

    A browser names the site whose page asks in the `Origin` header; other programs send no `Origin`, and are let
    through. While nobody has to log in, only hosts that no other site can claim as its own name are answered at all.
    """

    def __init__(
        self,
        app: ASGIApp,
        origins: tuple[str, ...],
        local_only: Callable[[], bool],
        refused: Callable[[HTTPConnection, RefusedError], None],
    ) -> None:
        """`origins` are the other sites that may use the service. `local_only` says whether only this machine's own
        names are answered. `refused` is called with every request that is refused.
        """
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
        """Refuse a `Host` that is not ours while `local_only` is true. Raises RefusedError.

        A page of another site may let its own host name resolve to this machine (DNS rebinding); its browser then takes
        our answers for those of that site.
        """
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
    """The host name or address in a `Host` header, without the port. Text that is neither is returned as it is."""
    try:
        return urlsplit(f"//{host}").hostname or host
    except ValueError:
        return host
