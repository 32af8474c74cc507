"""The routes that plugins register. They require a logged-in caller, unless their endpoint is marked `public`."""

from collections.abc import Callable
from typing import Any, TypeVar

from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from core.errors import RefusedError
from core.plugin.host import PluginHost
from core.session.chat_request import authenticate
from core.session.refusal import refuse

PUBLIC = "personaplex_public"
"""The attribute that marks an endpoint as public. Its value is the endpoint itself: so a subclass, which inherits the
attribute, and a wrapper made with `functools.wraps`, which copies it, are not public."""

_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


def public(endpoint: _Endpoint) -> _Endpoint:
    """Marks the endpoint of a plugin's route as open to everybody, logged in or not.

    It counts for this function or class alone, so where there are several decorators it stands above the others.
    """
    setattr(endpoint, PUBLIC, endpoint)
    return endpoint


def is_public(endpoint: object) -> bool:
    """Whether this very endpoint is marked `public`; a method counts as the function that it was made of."""
    function = getattr(endpoint, "__func__", endpoint)
    return function is not None and getattr(function, PUBLIC, None) is function


class PluginRoutes(BaseRoute):
    """One route that stands for all routes of the plugins, as they are at the time of the request.

    A request for an endpoint that is not `public` is authenticated first, and refused with 401 when nobody answers for
    its caller.
    """

    def __init__(self, host: Callable[[], PluginHost]) -> None:
        self._host = host
        host().routes()  # those that are wrong stop the boot

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """The best match among the plugins' routes, and its scope, as Starlette's `BaseRoute` defines it.

        A full match goes before a partial one (the path, but another method), as in Starlette's Router.
        """
        best: tuple[Match, Scope] = (Match.NONE, {})
        for route in self._host().routes():
            match, found = route.matches(scope)
            if match.value > best[0].value:
                best = match, {**found, "plugin_route": route}
        return best

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Authenticate the caller if the endpoint is not public, then let the matched route handle the request."""
        route: BaseRoute = scope["plugin_route"]
        if not is_public(getattr(route, "endpoint", None)):
            connection = HTTPConnection(scope)
            try:
                connection.state.identity = await authenticate(connection, self._host())
            except RefusedError as error:
                await refuse(scope, receive, send, error)
                return
        await route.handle(scope, receive, send)
