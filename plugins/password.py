"""One password for all callers, as HTTP Basic (any user name) or Bearer. Off while no password is set.

In config.yaml: `plugins: {options: {password: {password: {env: PERSONAPLEX_PASSWORD, default: null}}}}`.
"""

import base64
import binascii
import hashlib
import hmac

import msgspec
from starlette.requests import HTTPConnection

from core.decoding import Secret
from core.events import Identity
from core.hookspecs import hookimpl


class Plugin:
    """Knows only the password's hash, so nothing that prints this object can show the password."""

    class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """`password`: what callers must give; without one the plugin is off and everybody may call."""

        password: Secret | None = None

    def __init__(self, options: Options) -> None:
        self.enabled = options.password is not None
        self._hash = _hash(options.password.reveal().encode()) if options.password else b""

    @hookimpl
    def authenticate(self, connection: HTTPConnection) -> Identity | None:
        given = credentials(connection.headers.get("authorization", ""))
        if given is None or not hmac.compare_digest(_hash(given), self._hash):
            return None
        return Identity("caller")


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


def _hash(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
