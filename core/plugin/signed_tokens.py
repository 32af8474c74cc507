"""Signed tokens: cookies for those whom a plugin let in, and tickets that open one WebSocket.

A token is signed with a key that is derived from a secret on which the login hangs, such as the holder's password. So
every process that knows the secret can check it, whichever issued it; and changing or removing the secret ends every
token that came of it.
"""

import asyncio
import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from itsdangerous import BadData, URLSafeSerializer

from core.errors import PluginError
from core.events import Identity
from core.plugin.store import Store
from core.settings.yaml_structs import Secret

LONGEST_TOKEN = 3800
"""Characters: what a cookie has room for. One without claims has about 150."""
SKEW_S = 10.0
"""How far the clocks of two machines may be apart."""
MOST_USED = 100_000
"""Used tickets remembered for each holder: more than anybody uses within the life of a ticket."""
MOST_KEYS = 10_000
"""Derived keys that are kept."""
Clock = Callable[[], float]
"""Seconds since 1970."""


def signing_key(plugin: str, secret: str) -> bytes:
    """The key for the tokens that hang on a secret of a plugin: 32 bytes, by scrypt.

    Takes tens of milliseconds, since whoever has a token can try passwords against its signature. Releases the GIL.
    """
    return hashlib.scrypt(secret.encode(), salt=f"personaplex {plugin}".encode(), n=2**14, r=8, p=1, dklen=32)


class SigningKeys:
    """The signing key of each secret, derived in a thread when it is first needed; the oldest are forgotten."""

    def __init__(self) -> None:
        self._derived: dict[tuple[str, Secret], bytes] = {}
        self._turn = asyncio.Lock()

    async def of(self, plugin: str, secret: Secret) -> bytes:
        """The key of a plugin's secret."""
        if (plugin, secret) not in self._derived:
            async with self._turn:  # many requests may want the same key
                if (plugin, secret) not in self._derived:
                    key = await asyncio.to_thread(signing_key, plugin, secret.reveal())
                    self._derived[plugin, secret] = key
                    if len(self._derived) > MOST_KEYS:
                        del self._derived[next(iter(self._derived))]
                    return key
        return self._derived[plugin, secret]


@dataclass(frozen=True)
class Holder:
    """Whom a token is for."""

    plugin: str
    """The plugin that let them in."""
    name: str
    """As in their Identity."""


SecretOf = Callable[[Holder], Secret | None]
"""The secret that a holder's logins hang on; None for a holder who may not be let in any more."""


@dataclass(frozen=True)
class SignedToken:
    """A token whose signature is right."""

    holder: Holder
    identity: Identity
    id: str
    issued: float
    """Seconds since 1970."""


class SignedTokens:
    """Issues tokens, and checks those that come back."""

    def __init__(self, secret_of: SecretOf, keys: SigningKeys, clock: Clock = time.time) -> None:
        self._secret_of = secret_of
        self._keys = keys
        self._clock = clock

    async def issue(self, kind: str, plugin: str, identity: Identity) -> str | None:
        """A new token of this kind (`cookie`, `ticket`), fit for a cookie and a query; None where the plugin has no
        secret for this name. Raises PluginError for claims that are no JSON, or too long for a cookie."""
        holder = _encode(Holder(plugin, identity.name))
        if (serializer := await self._serializer(kind, holder)) is None:
            return None
        try:
            signed = serializer.dumps([secrets.token_urlsafe(12), round(self._clock(), 3), identity.claims])
        except (TypeError, ValueError) as error:
            raise PluginError(f"plugin {plugin}: the claims of a login must be JSON: {error}.") from None
        token = f"{holder}.{signed!s}"
        if len(token) > LONGEST_TOKEN:
            raise PluginError(f"plugin {plugin}: the name and claims of a login are too long for a cookie.")
        return token

    async def check(self, kind: str, text: str, lifetime_s: float) -> SignedToken | None:
        """The token, when it is one of ours, of this kind, and not older than its lifetime."""
        encoded, _, signed = text.partition(".")
        if len(text) > LONGEST_TOKEN or not signed or (holder := _decode(encoded)) is None:
            return None
        if (serializer := await self._serializer(kind, encoded)) is None:
            return None
        try:
            id_, issued, claims = serializer.loads(signed)
        except BadData:
            return None
        if serializer.dumps([id_, issued, claims]) != signed:  # base64 can be written in several ways; ours is one
            return None
        token = SignedToken(holder, Identity(holder.name, claims), id_, issued)
        return token if -SKEW_S <= self._clock() - issued <= lifetime_s else None

    async def _serializer(self, kind: str, encoded: str) -> URLSafeSerializer | None:
        """Signs for one holder and kind alone, since both are part of its salt."""
        holder = _decode(encoded)
        secret = self._secret_of(holder) if holder else None
        if holder is None or secret is None:
            return None
        signer = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
        key = await self._keys.of(holder.plugin, secret)
        return URLSafeSerializer(key, salt=f"personaplex {kind} {encoded}", signer_kwargs=signer)


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
        holder = token.holder
        table = self._store.table(f"{self._name} used by {holder.plugin} {holder.name}", MOST_USED, evict=False)
        remaining_s = token.issued + lifetime_s - self._clock() + 1  # a token is good until the end of its last moment
        return table.update(token.id, lambda before: (before[0] + 1 if before else 1,), remaining_s) == (1,)


def _encode(holder: Holder) -> str:
    """A holder without a character that a cookie or a query has a use for."""
    return base64.urlsafe_b64encode(json.dumps([holder.plugin, holder.name]).encode()).decode().rstrip("=")


def _decode(encoded: str) -> Holder | None:
    """The holder in a token, whose signature is still to be checked; None where there is none."""
    try:
        plugin, name = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, TypeError, RecursionError):
        return None
    if not (isinstance(plugin, str) and isinstance(name, str)):
        return None
    holder = Holder(plugin, name)
    return holder if _encode(holder) == encoded else None
