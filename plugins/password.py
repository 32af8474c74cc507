"""Passwords: one for all callers, or one for each, whose name then stands in log and metrics. Off while none is set.

In config.yaml:

    plugins:
      options:
        password:
          password: {env: PERSONAPLEX_PASSWORD, default: null}
          named: {ann: {env: ANNS_PASSWORD}, phone-bridge: {env: BRIDGE_TOKEN}}

A caller gives it as `Authorization: Bearer`, as HTTP Basic (with any user name), or in the page, which gets a signed
cookie; `POST /ticket` gives somebody who has been let in a ticket for one WebSocket (`?ticket=`). Changing or removing
a password ends the cookies and tickets that came of it. Wrong passwords are answered ever more slowly.
"""

import base64
import binascii
import hashlib
import hmac
import math
import re
from typing import Annotated
from urllib.parse import parse_qs

from msgspec import Meta, Struct, field
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from core import (
    Attempts,
    Identity,
    Passes,
    RefusedError,
    Secret,
    SharedState,
    Used,
    client_address,
    get_logger,
    hookimpl,
    public,
    signing_key,
)

COOKIE = "personaplex"
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
ANYBODY = "caller"
"""The name of those who share the one password."""
LONGEST_FORM = 4096
DAY_S = 86_400


class Plugin:
    """Keeps no password, only hashes and keys made of them, so nothing that prints this object can show one."""

    class Options(Struct, frozen=True, forbid_unknown_fields=True):
        """Without any password the plugin is off, and everybody may call."""

        password: Secret | None = None
        named: dict[str, Secret | None] = field(default_factory=dict)
        """A name without a value is nobody's."""
        cookie_days: Annotated[float, Meta(gt=0, le=366)] = 7
        ticket_s: Annotated[float, Meta(gt=0, le=3600)] = 30

        def __post_init__(self) -> None:
            for name in self.named:
                if not NAME.fullmatch(name) or name == ANYBODY:
                    raise ValueError(f"named: {name!r} is no good name: letters, digits, '-' and '_', not '{ANYBODY}'.")
            owners: dict[str, str] = {}
            for name, password in self.passwords().items():
                if password in owners:
                    raise ValueError(f"{owners[password]} and {name} have the same password. Give each its own.")
                owners[password] = name

        def passwords(self) -> dict[str, str]:
            """Every password there is, by its holder's name."""
            given = {ANYBODY: self.password, **self.named}
            return {name: password.reveal() for name, password in given.items() if password is not None}

    def __init__(self, options: Options) -> None:
        passwords = options.passwords()
        self.enabled = bool(passwords)
        self._cookie_s = options.cookie_days * DAY_S
        self._ticket_s = options.ticket_s
        self._hashes = {name: _hash(password.encode()) for name, password in passwords.items()}
        self._passes = Passes({name: signing_key(name, password) for name, password in passwords.items()})
        self._used_tickets = Used()
        self._attempts = Attempts()
        self._log = get_logger("password")

    @hookimpl
    def startup(self, shared: SharedState) -> None:
        """Tickets and wrong passwords count in all workers together, and an edit of the options forgets none."""
        self._used_tickets = Used(shared=shared)
        self._attempts = Attempts(shared=shared)

    @hookimpl
    def authenticate(self, connection: HTTPConnection) -> Identity | None:
        name = self._by_header(connection) or self._by_cookie(connection) or self._by_ticket(connection)
        return Identity(name) if name else None

    @hookimpl
    def login_path(self) -> str:
        """Where the page's login form is sent."""
        return "/login"

    @hookimpl
    def register_routes(self) -> list[BaseRoute]:
        return [
            Route("/login", self.login, methods=["POST"]),
            Route("/logout", self.logout, methods=["POST"]),
            Route("/ticket", self.ticket, methods=["POST"]),
        ]

    @public
    async def login(self, request: Request) -> Response:
        """`POST /login` with a form field `password`: 204 and a cookie, 401, or 429 with `Retry-After`."""
        name = self._try(await _password_in(request), client_address(request))
        if name is None:
            raise RefusedError(401, "That is not the password.", headers={"www-authenticate": "Bearer"})
        self._log.info("logged in", identity=name, address=client_address(request))
        response = Response(status_code=204)
        self._set_cookie(request, response, self._passes.issue("cookie", name), self._cookie_s)
        return response

    @public
    async def logout(self, request: Request) -> Response:
        """`POST /logout`: the browser forgets its cookie."""
        response = Response(status_code=204)
        self._set_cookie(request, response, "", 0)
        return response

    async def ticket(self, request: Request) -> Response:
        """`POST /ticket`: a ticket for one WebSocket, for clients that can send neither cookie nor header with it."""
        name = request.state.identity.name
        if name not in self._hashes:  # somebody whom another plugin knows
            raise RefusedError(403, "Tickets are only for those who have a password here.")
        return JSONResponse({"ticket": self._passes.issue("ticket", name), "seconds": self._ticket_s})

    def _by_header(self, connection: HTTPConnection) -> str | None:
        given = credentials(connection.headers.get("authorization", ""))
        return None if given is None else self._try(given, client_address(connection))

    def _by_cookie(self, connection: HTTPConnection) -> str | None:
        found = self._passes.check("cookie", connection.cookies.get(COOKIE, ""), self._cookie_s)
        return found.name if found else None

    def _by_ticket(self, connection: HTTPConnection) -> str | None:
        """Only a WebSocket uses a ticket up: other addresses are logged and remembered in more places."""
        if connection.scope["type"] != "websocket":
            return None
        found = self._passes.check("ticket", connection.query_params.get("ticket", ""), self._ticket_s)
        if found is None or not self._used_tickets.first(found.id, found.issued + self._ticket_s):
            return None
        return found.name

    def _try(self, given: bytes, address: str) -> str | None:
        """Whose password this is. Raises RefusedError while the address must wait, also when it would be right."""
        wait = math.ceil(self._attempts.wait_s(address))
        if wait:
            raise RefusedError(
                429,
                f"Too many wrong passwords came from your address. Try again in {wait} s.",
                headers={"retry-after": str(wait)},
            )
        found, digest = None, _hash(given)
        for name, right in self._hashes.items():  # all of them, whichever is right: the time taken says nothing
            if hmac.compare_digest(digest, right):
                found = name
        if found is None:
            tries = self._attempts.failed(address)
            self._log.warning("wrong password", address=address, tries=tries)
        return found

    def _set_cookie(self, request: Request, response: Response, value: str, life_s: float) -> None:
        response.set_cookie(
            COOKIE,
            value,
            max_age=math.ceil(life_s),
            path=request.scope.get("root_path") or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )


def credentials(header: str) -> bytes | None:
    """The password or token in an `Authorization` header, or None when it has neither."""
    scheme, _, value = header.strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and value:
        return value.encode("latin-1", "replace")  # Starlette reads headers as Latin-1; these are the bytes as sent
    if scheme.lower() == "basic":
        try:
            _, colon, password = base64.b64decode(value, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return None
        return password if colon else None
    return None


async def _password_in(request: Request) -> bytes:
    """The form's password. Raises RefusedError when there is none, or when the form is larger than any could be."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LONGEST_FORM:
            raise RefusedError(413, "That is too long for a password.")
    try:
        form = parse_qs(body.decode("latin-1"), max_num_fields=10, encoding="latin-1")  # so the bytes stay as they are
        [password] = form["password"]
    except (KeyError, ValueError):
        raise RefusedError(400, "Send a form with one field, password.") from None
    return password.encode("latin-1")


def _hash(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
