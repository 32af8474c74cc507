"""Signed tokens: cookies for those who gave their password, and tickets that open one WebSocket.

A token is signed with a key that is derived from its holder's name and password. So every process that knows the
password can check it, whichever issued it; and changing or removing a password ends every token that came of it.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from itsdangerous import BadData, URLSafeSerializer

from core.plugin.store import Store
from core.settings.yaml_structs import Secret

LONGEST_TOKEN = 512
"""Characters; ours have about 120."""
SKEW_S = 10.0
"""How far the clocks of two machines may be apart."""
MOST_USED = 100_000
"""Used tickets remembered for each holder: more than anybody uses within the life of a ticket."""
Clock = Callable[[], float]
"""Seconds since 1970."""


def signing_key(name: str, password: str) -> bytes:
    """The key that a holder's tokens are signed with: 32 bytes, by scrypt.

    Takes tens of milliseconds, since whoever has a token can try passwords against its signature. Releases the GIL.
    """
    return hashlib.scrypt(password.encode(), salt=f"personaplex {name}".encode(), n=2**14, r=8, p=1, dklen=32)


class SigningKeys:
    """The signing key of each holder, derived in a thread when it is first needed."""

    def __init__(self, passwords: Mapping[str, Secret], derived: dict[Any, bytes]) -> None:
        """`passwords` by holder. `derived` keeps the keys for whoever is given it next; those no longer in use go."""
        self._passwords = dict(passwords)
        self._derived = derived
        self._turn = asyncio.Lock()
        for stale in derived.keys() - self._passwords.items():
            del derived[stale]

    def __contains__(self, name: str) -> bool:
        return name in self._passwords

    async def of(self, name: str) -> bytes:
        """The key of this holder. Raises KeyError when there is no such holder."""
        password = self._passwords[name]
        if (name, password) not in self._derived:
            async with self._turn:  # many requests may want the same key
                if (name, password) not in self._derived:
                    self._derived[name, password] = await asyncio.to_thread(signing_key, name, password.reveal())
        return self._derived[name, password]


@dataclass(frozen=True)
class SignedToken:
    """A token whose signature is right."""

    holder: str
    id: str
    issued: float
    """Seconds since 1970."""


class SignedTokens:
    """Issues tokens, and checks those that come back."""

    def __init__(self, keys: SigningKeys, clock: Clock = time.time) -> None:
        self._keys = keys
        self._clock = clock

    async def issue(self, kind: str, holder: str) -> str:
        """A new token of this kind (`cookie`, `ticket`), fit for a cookie and a query. Raises KeyError."""
        serializer = await self._serializer(kind, holder)
        return f"{holder}.{serializer.dumps([secrets.token_urlsafe(12), round(self._clock(), 3)])}"

    async def check(self, kind: str, text: str, lifetime_s: float) -> SignedToken | None:
        """The token, when it is one of ours, of this kind, and not older than its lifetime."""
        holder, _, signed = text.partition(".")
        if len(text) > LONGEST_TOKEN or not signed or holder not in self._keys:
            return None
        serializer = await self._serializer(kind, holder)
        try:
            id_, issued = serializer.loads(signed)
        except BadData:
            return None
        if serializer.dumps([id_, issued]) != signed:  # base64 can be written in several ways; ours is one
            return None
        return SignedToken(holder, id_, issued) if -SKEW_S <= self._clock() - issued <= lifetime_s else None

    async def _serializer(self, kind: str, holder: str) -> URLSafeSerializer:
        signer = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
        return URLSafeSerializer(await self._keys.of(holder), salt=f"personaplex {kind}", signer_kwargs=signer)


class ReplayCache:
    """The tickets that were used and have not expired, so that none is used twice.

    Each holder has a table of their own: whoever uses tickets by the thousand ends nobody else's.
    """

    def __init__(self, store: Store, name: str, clock: Clock = time.time) -> None:
        """The tables of `store` that it uses have names that begin with `name`."""
        self._store = store
        self._name = name
        self._clock = clock

    def first_use(self, token: SignedToken, lifetime_s: float) -> bool:
        """Note the use of a token. False when it was used before, or when its holder has used too many to remember."""
        table = self._store.table(f"{self._name} used by {token.holder}", MOST_USED, evict=False)
        remaining_s = token.issued + lifetime_s - self._clock() + 1  # a token is good until the end of its last moment
        return table.update(token.id, lambda before: (before[0] + 1 if before else 1,), remaining_s) == (1,)
