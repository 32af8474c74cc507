"""Who is calling, as the plugins say, and what they may."""

from starlette.requests import HTTPConnection

from core.errors import RefusedError
from core.events import Identity
from core.plugin.hook_calls import HookCaller
from core.plugin.logins import Login, Logins, LoginTokens
from core.plugin.personas import Persona
from core.plugin.signed_tokens import Holder, SigningKeys
from core.plugin.store import Store
from core.settings.sections import ServerConfig
from core.settings.yaml_structs import Secret

ANONYMOUS = Identity("anonymous")
"""Everybody, where nobody has to say who they are."""


class Authentication:
    """Asks the plugins who is calling, and whether they may talk with a persona.

    A plugin that fails denies the caller; what it raised is logged without its text, which may hold a secret.
    """

    def __init__(self, hooks: HookCaller, config: ServerConfig, shared: Store, keys: SigningKeys) -> None:
        self._hooks = hooks
        self.tokens = LoginTokens(self._secret_of, keys, shared, config)
        """The cookies and tickets of those whom plugins have let in."""

    @property
    def required(self) -> bool:
        """Whether any plugin authenticates callers or has them log in. Without one, every caller is `anonymous`."""
        return bool(self._hooks.implementations("authenticate") or self._hooks.implementations("login_secret"))

    def logins_of(self, plugin: str) -> Logins:
        """What this plugin lets people in with."""
        return Logins(plugin, self.tokens)

    async def identify(self, connection: HTTPConnection) -> tuple[str, Identity] | None:
        """Who is calling, and the plugin that says so, as for `authenticate`.

        A cookie and a ticket count before what plugins read, since a proxy may send an `Authorization` of its own,
        which must not count as a wrong password.
        """
        if not self.required:
            return "", ANONYMOUS
        if (known := await self.tokens.identify(connection)) is not None:
            return known
        for hook in self._hooks.implementations("authenticate"):
            try:
                identity = await self._hooks.call(hook, connection=connection)
            except RefusedError:
                raise
            except Exception as error:
                self._hooks.report_failure(hook, error, hide_text=True)
                return None
            if isinstance(identity, Identity):
                return hook.plugin_name, identity
            if identity is not None:
                self._hooks.report_invalid_result(hook, f"returned {type(identity).__name__}, not an Identity")
                return None
        return None

    def ways(self) -> list[Login]:
        """The ways to log in on the page."""
        logins = []
        for hook in self._hooks.implementations("login"):
            try:
                login = self._hooks.call_on_loop(hook)
            except Exception as error:
                self._hooks.report_first_failure(hook, error)
                continue
            if isinstance(login, Login):
                logins.append(login)
            elif login is not None:
                self._hooks.report_invalid_result(hook, f"returned {type(login).__name__}, not a Login")
        return logins

    def _secret_of(self, holder: Holder) -> Secret | None:
        """The secret of somebody whom a plugin has let in, or may have."""
        for hook in self._hooks.implementations("login_secret"):
            if hook.plugin_name != holder.plugin:
                continue
            try:
                secret = self._hooks.call_on_loop(hook, name=holder.name)
            except Exception as error:
                self._hooks.report_first_failure(hook, error)
                return None
            if isinstance(secret, Secret):
                return secret
            if secret is not None:
                self._hooks.report_invalid_result(hook, f"returned {type(secret).__name__}, not a Secret")
        return None

    async def authorize(self, identity: Identity, persona: Persona) -> bool:
        """Whether this caller may use this persona, which is so unless a plugin refuses it."""
        for hook in self._hooks.implementations("authorize"):
            try:
                answer = await self._hooks.call(hook, identity=identity, persona=persona)
                if answer is not None and not answer:
                    return False
            except RefusedError:
                raise
            except Exception as error:
                self._hooks.report_failure(hook, error, hide_text=True)
                return False
        return True
