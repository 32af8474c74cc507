"""Authentication by JSON Web Token, sent as `Authorization: Bearer`. Also an example of a short auth plugin.

Off until it has a key, in config.yaml under `plugins: {options: {jwt_auth: ...}}`. Needs PyJWT: the extra `jwt`.
"""

import asyncio
from typing import Any, Literal

import msgspec
from starlette.requests import HTTPConnection

from core import Identity, PluginError, Secret, hookimpl

Algorithm = Literal["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "EdDSA"]
SECRET_BYTES = 32
"""The shortest shared secret that is as strong as HS256; RFC 7518, section 3.2."""
LONGEST_TOKEN = 8192
"""Characters. A longer token is refused without being decoded."""


class Plugin:
    """Authenticates a caller whose token has the right signature, time, issuer and audience.

    A call that has begun goes on when its token expires.
    """

    class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """The plugin's block in config.yaml. Without a key the plugin is off."""

        key: Secret | None = None
        """The shared secret of an HS algorithm, or the signer's public key as PEM."""
        algorithm: Algorithm = "HS256"
        """The one algorithm that is accepted, whatever the token's own header names."""
        issuer: str = ""
        """The required `iss` claim; "" accepts any issuer."""
        audience: str = ""
        """The required `aud` claim, or one of its values; "" accepts only tokens without an audience."""
        name: str = "sub"
        """The claim that becomes the caller's name in logs and metrics."""
        leeway_s: float = 10.0
        """How many seconds the signer's clock may differ from ours."""

        def __post_init__(self) -> None:
            if self.key and self.algorithm.startswith("HS") and len(self.key.reveal().encode()) < SECRET_BYTES:
                raise ValueError(f"key must have at least {SECRET_BYTES} bytes with {self.algorithm}.")

    def __init__(self, options: Options) -> None:
        self.enabled = options.key is not None
        self._options = options
        if options.key is None:
            return
        try:
            import jwt  # an extra: only who uses it needs it
        except ImportError as error:
            raise PluginError("needs PyJWT. Install it with: pip install 'personaplex-modal[jwt]'.") from error
        self._jwt = jwt
        self._key = self._read_key(options.key.reveal())

    @hookimpl
    async def authenticate(self, connection: HTTPConnection) -> Identity | None:
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not 0 < len(token) <= LONGEST_TOKEN:
            return None
        claims = await asyncio.to_thread(self._claims, token.strip())
        name = claims.get(self._options.name)
        return Identity(name, claims) if isinstance(name, str) and name else None

    def _claims(self, token: str) -> dict[str, Any]:
        """The claims of a valid token; an empty dictionary for any other. Slow with public keys."""
        options = self._options
        try:
            return self._jwt.decode(
                token,
                self._key,
                algorithms=[options.algorithm],  # never the one that the token names
                issuer=options.issuer or None,
                audience=options.audience or None,
                leeway=options.leeway_s,
                options={"require": ["exp", options.name]},
            )
        except self._jwt.InvalidTokenError:
            return {}

    def _read_key(self, text: str) -> Any:
        try:
            return self._jwt.get_algorithm_by_name(self._options.algorithm).prepare_key(text)
        except (self._jwt.InvalidKeyError, NotImplementedError, TypeError, ValueError):
            raise PluginError(
                f"the key does not fit {self._options.algorithm}, which takes a public key as PEM."
            ) from None
