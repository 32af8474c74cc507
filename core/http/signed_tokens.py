"""Signed passes: cookies for those who gave their password, and tickets that open one WebSocket.

A pass is signed with a key made of its holder's name and password. So every process that knows the password can check
it, whichever made it; and who changes or removes a password ends every pass that came of it.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from itsdangerous import BadData, URLSafeSerializer

from core.plugin.shared_state import SharedState

LONGEST_PASS = 512
"""Characters; ours have about 120."""
SKEW_S = 10.0
"""How far the clocks of two machines may be apart."""
MOST_USED = 10_000
KIND = "used passes"
Clock = Callable[[], float]
"""Seconds since 1970."""


def signing_key(name: str, password: str) -> bytes:
    """The key of a holder's passes. Slow (tens of milliseconds), so that a pass gives no quick way to guess."""
    return hashlib.scrypt(password.encode(), salt=f"personaplex {name}".encode(), n=2**14, r=8, p=1, dklen=32)


@dataclass(frozen=True)
class Pass:
    """A pass that was found genuine."""

    name: str
    id: str
    issued: float


class Passes:
    """Makes and checks passes. `keys` has the key of each holder, by name."""

    def __init__(self, keys: Mapping[str, bytes], clock: Clock = time.time) -> None:
        self._keys = dict(keys)
        self._clock = clock

    def issue(self, kind: str, name: str) -> str:
        """A new pass of this kind (`cookie`, `ticket`), fit for a cookie and a query. Raises KeyError."""
        return f"{name}.{self._serializer(kind, name).dumps([secrets.token_urlsafe(12), round(self._clock(), 3)])}"

    def check(self, kind: str, text: str, lifetime_s: float) -> Pass | None:
        """The pass, when it is one of ours, of this kind and not older than its lifetime."""
        name, _, signed = text.partition(".")
        if len(text) > LONGEST_PASS or name not in self._keys:
            return None
        serializer = self._serializer(kind, name)
        try:
            id_, issued = serializer.loads(signed)
        except BadData:
            return None
        if serializer.dumps([id_, issued]) != signed:  # base64 can be written in several ways; ours is one
            return None
        return Pass(name, id_, issued) if -SKEW_S <= self._clock() - issued <= lifetime_s else None

    def _serializer(self, kind: str, name: str) -> URLSafeSerializer:
        signer = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
        return URLSafeSerializer(self._keys[name], salt=f"personaplex {kind}", signer_kwargs=signer)


class Used:
    """The passes that were used and would still be good."""

    def __init__(self, clock: Clock = time.time, shared: SharedState | None = None) -> None:
        """`shared` is where other processes note their uses, too; without it, these are this object's own."""
        self._clock = clock
        self._shared = shared or SharedState()

    def first(self, id_: str, until: float) -> bool:
        """Note a use. False when it is not the first, or when there were too many to remember: then none is good."""
        if self._shared.count(KIND, self._clock()) >= MOST_USED:
            return False
        return self._shared.add(KIND, id_, until)
