"""Security headers: what a browser lets this service's pages do. They are on every response."""

from collections.abc import Mapping, Sequence

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.settings.sections import ServerConfig

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "media-src": "'self' blob: mediastream:",
    "worker-src": "'self'",
    "manifest-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
}
"""The Content-Security-Policy, by directive: no inline script, and nothing from other sites."""

HEADERS = {
    "content-security-policy": "; ".join(f"{name} {sources}" for name, sources in POLICY.items())
    + "; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "permissions-policy": "microphone=(self), screen-wake-lock=(self), camera=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""The headers where nothing is configured."""

EMBEDDED = "/embed.html"
"""The page of a call on another site, which `talk.js` puts there in a frame."""


class SecurityHeaders:
    """ASGI middleware that adds the security headers to every response, except those it has already."""

    def __init__(self, app: ASGIApp, server: ServerConfig) -> None:
        self._app = app
        calls = (server.socket, server.socket.replace("ws", "http", 1)) if server.socket else ()
        policy = {**POLICY, "connect-src": " ".join((POLICY["connect-src"], *calls)), **server.csp}
        self._headers = _framed_by(policy, server.frame_ancestors)
        self._embedded = _framed_by(policy, (*server.frame_ancestors, *server.origins))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                added = self._embedded if scope["path"].endswith(EMBEDDED) else self._headers
                headers = MutableHeaders(scope=message)
                for name, value in added.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _framed_by(policy: Mapping[str, str], sites: Sequence[str]) -> dict[str, str]:
    """All headers, where these sites may show the page in a frame; it may then frame itself, too."""
    ancestors = " ".join(("'self'", *dict.fromkeys(sites))) if sites else "'none'"
    text = "; ".join(f"{name} {sources}" for name, sources in {**policy, "frame-ancestors": ancestors}.items())
    headers = {**HEADERS, "content-security-policy": text}
    if sites:
        del headers["x-frame-options"]  # which knows no lists
    return headers
