"""Authentication by password: one that all callers share, or one for each caller, whose name then appears in log and
metrics. The plugin is off while no password is set.

In config.yaml:

    plugins:
      options:
        password:
          password: {env: PERSONAPLEX_PASSWORD, default: null}
          named: {ann: {env: ANNS_PASSWORD}, phone-bridge: {env: BRIDGE_TOKEN}}

A caller sends it as `Authorization: Bearer`, as HTTP Basic (with any user name), or in the page, which gets a signed
cookie. Changing or removing a password ends the cookies and tickets that came of it. Wrong passwords are answered ever
more slowly.
"""

import base64
import binascii
import hashlib
import hmac
import math
import re
from typing import Annotated
from urllib.parse import parse_qs

from msgspec import Struct, field
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from core import (
    FromEnvironment,
    Identity,
    Login,
    Logins,
    LoginThrottle,
    MemoryStore,
    RefusedError,
    Secret,
    Store,
    client_address,
    get_logger,
    hookimpl,
    public,
)

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
ANYBODY = "caller"
"""The name, in log and metrics, of everybody who uses the shared password."""
LONGEST_FORM = 4096


class Plugin:
    """Authenticates callers by password, and lets them in from the page.

    Counts of wrong passwords are in the `Store`, so they outlive an edit of the options.
    """

    class Options(Struct, frozen=True, forbid_unknown_fields=True):
        """The plugin's block in config.yaml. Without any password the plugin is off, and everybody may call."""

        password: Annotated[Secret | None, FromEnvironment("PERSONAPLEX_PASSWORD")] = None
        """The password that all callers share. Its default is the environment variable PERSONAPLEX_PASSWORD."""
        named: dict[str, Secret | None] = field(default_factory=dict)
        """Passwords of single callers, by name. A name without a password is ignored."""

        def __post_init__(self) -> None:
            for name in self.named:
                if not NAME.fullmatch(name) or name == ANYBODY:
                    raise ValueError(f"named: {name!r} is no good name: letters, digits, '-' and '_', not '{ANYBODY}'.")
            owners: dict[Secret, str] = {}
            for name, password in self.passwords().items():
                if password in owners:
                    raise ValueError(f"{owners[password]} and {name} have the same password. Give each its own.")
                owners[password] = name

        def passwords(self) -> dict[str, Secret]:
            """All passwords that are set, by their holder's name."""
            given = {ANYBODY: self.password, **self.named}
            return {name: password for name, password in given.items() if password is not None}

    def __init__(self, options: Options) -> None:
        self._passwords = options.passwords()
        self.enabled = bool(self._passwords)
        self._hashes = {name: _hash(password.reveal().encode()) for name, password in self._passwords.items()}
        self._log = get_logger("password")
        self._throttle = LoginThrottle(MemoryStore(), "password")

    @hookimpl
    def startup(self, shared: Store, logins: Logins) -> None:
        self._throttle, self._logins = LoginThrottle(shared, "password"), logins

    @hookimpl
    async def authenticate(self, connection: HTTPConnection) -> Identity | None:
        """Who is calling, by the password in the `Authorization` header. Raises RefusedError while the address must
        wait."""
        given = credentials(connection.headers.get("authorization", ""))
        if given is None:
            return None
        address, name = client_address(connection), self._holder(given)
        if self._throttle.wait_s(address) and not self._throttle.lets_through(address, name):
            self._refuse_while_waiting(address)
        if name is None:
            self._count_failure(address)
            return None
        self._throttle.succeeded(address, name)
        return Identity(name)

    @hookimpl
    def login(self) -> Login:
        """The page's form."""
        return Login("password", "/login")

    @hookimpl
    def login_secret(self, name: str) -> Secret | None:
        """The caller's own password."""
        return self._passwords.get(name)

    @hookimpl
    def register_routes(self) -> list[BaseRoute]:
        return [Route("/login", self.log_in, methods=["POST"])]

    @public
    async def log_in(self, request: Request) -> Response:
        """`POST /login` with a form field `password`: 204 and a cookie, 401, or 429 with `Retry-After`."""
        address = client_address(request)
        given = await _password_in(request)
        self._refuse_while_waiting(address)
        name = self._holder(given)
        if name is None:
            self._count_failure(address)
            raise RefusedError(401, "That is not the password.", headers={"www-authenticate": "Bearer"})
        self._log.info("logged in", identity=name, address=address)
        response = Response(status_code=204)
        await self._logins.admit(request, response, Identity(name))
        return response

    def _holder(self, given: bytes) -> str | None:
        """The holder of this password, or None when it is nobody's."""
        found, digest = None, _hash(given)
        for name, right in self._hashes.items():  # all of them, whichever is right: the time taken says nothing
            if hmac.compare_digest(digest, right):
                found = name
        return found

    def _refuse_while_waiting(self, address: str) -> None:
        """Raises RefusedError while the address must wait, also for a password that would be right."""
        wait = math.ceil(self._throttle.wait_s(address))
        if wait:
            raise RefusedError(
                429,
                f"Too many wrong passwords came from your address. Try again in {wait} s.",
                headers={"retry-after": str(wait)},
            )

    def _count_failure(self, address: str) -> None:
        tries = self._throttle.failed(address)
        self._log.warning("wrong password", address=address, tries=tries)


def credentials(header: str) -> bytes | None:
    """The password or token in a Basic or Bearer `Authorization` header; None for any other header."""
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
    """The field `password` of the request's form. Raises RefusedError when it is missing or the form is too large."""
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
