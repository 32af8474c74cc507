"""Logins: how people log in on the page, and the cookies and tickets of those whom a plugin has let in."""

import math
from dataclasses import dataclass
from typing import Literal

from starlette.requests import HTTPConnection
from starlette.responses import Response

from core.errors import PluginError
from core.events import Identity
from core.plugin.signed_tokens import ReplayCache, SecretOf, SignedTokens, SigningKeys
from core.plugin.store import Store
from core.settings.sections import ServerConfig

COOKIE = "personaplex"
DAY_S = 86_400


@dataclass(frozen=True)
class Login:
    """One way to log in on the page."""

    kind: Literal["password", "redirect"]
    """`password`: the page has a form. `redirect`: the page has a button, which leads to another page."""
    path: str
    """Where the form is sent, with the field `password`; or where the button leads, such as to the plugin's own route,
    which sends the browser on to a provider. In the end the browser comes back to `/`."""
    label: str = ""
    """What the button says, such as `Continue with Example`; "" leaves it to the page."""


class LoginTokens:
    """The cookies and tickets of one app."""

    def __init__(self, secret_of: SecretOf, keys: SigningKeys, shared: Store, config: ServerConfig) -> None:
        self._tokens = SignedTokens(secret_of, keys)
        self._used_tickets = ReplayCache(shared, "tickets")
        self._cookie_s = config.login_days * DAY_S
        self.ticket_s = config.ticket_s

    async def identify(self, connection: HTTPConnection) -> tuple[str, Identity] | None:
        """Who is calling, by cookie or ticket, and the plugin that let them in.

        Only WebSockets take tickets, each once: other requests' URLs end up in histories and logs.
        """
        found = await self._tokens.check("cookie", connection.cookies.get(COOKIE, ""), self._cookie_s)
        if found is None and connection.scope["type"] == "websocket":
            found = await self._tokens.check("ticket", connection.query_params.get("ticket", ""), self.ticket_s)
            if found and not self._used_tickets.first_use(found, self.ticket_s):
                return None
        return (found.holder.plugin, found.identity) if found else None

    async def ticket(self, plugin: str, identity: Identity) -> str | None:
        """A ticket for one WebSocket; None where the plugin that knows this caller has no secret for tickets."""
        return await self._tokens.issue("ticket", plugin, identity)

    async def admit(self, plugin: str, request: HTTPConnection, response: Response, identity: Identity) -> None:
        """Have the browser keep a cookie with this identity. Raises PluginError where the plugin has no secret."""
        token = await self._tokens.issue("cookie", plugin, identity)
        if token is None:
            raise PluginError(f"plugin {plugin}: its hook login_secret has no secret for whom it lets in.")
        _set_cookie(request, response, token, self._cookie_s)


class Logins:
    """What a plugin lets people in with: given to its `startup`."""

    def __init__(self, plugin: str, tokens: LoginTokens) -> None:
        self._plugin = plugin
        self._tokens = tokens

    async def admit(self, request: HTTPConnection, response: Response, identity: Identity) -> None:
        """Log a browser in: `response` brings it a signed cookie, with which it is `identity` from now on.

        The cookie counts for `server.login_days`, and only as long as the plugin's `login_secret` has the same secret
        for this name. `identity.claims` must be JSON, and short enough for a cookie: name and claims of 2,000
        characters are. Raises PluginError otherwise, and where there is no secret.
        """
        await self._tokens.admit(self._plugin, request, response, identity)


def forget(request: HTTPConnection, response: Response) -> None:
    """Log a browser out: delete its cookie."""
    _set_cookie(request, response, "", 0)


def _set_cookie(request: HTTPConnection, response: Response, value: str, life_s: float) -> None:
    response.set_cookie(
        COOKIE,
        value,
        max_age=math.ceil(life_s),
        path=request.scope.get("root_path") or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
