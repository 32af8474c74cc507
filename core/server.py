"""`create_app`: the routes and the lifespan of the service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from core.config import Config, shipped
from core.engine.call import Engine
from core.errors import PersonaplexError
from core.events import Identity
from core.headers import SecurityHeaders
from core.plugins import PluginHost
from core.request import RefusedError, authenticate
from core.service import RICH_ROUTE, Service
from core.static import StaticFiles

LOGIN = "/login"
"""Where an auth plugin that has a login page serves it."""


def create_app(config: Config, engine: Engine, host: PluginHost) -> Starlette:
    """The service as an ASGI app; `app.state.service` is its `Service`.

    Raises ConfigError when the page's folder cannot be used, and PluginError when a plugin's routes cannot.
    """
    service = Service(config, engine, host)
    api = _Api(service)
    static = StaticFiles(Path(config.server.web) if config.server.web else shipped("web"))
    extra = host.routes()
    api.login = LOGIN if any(getattr(route, "path", None) == LOGIN for route in extra) else None

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    routes: list[BaseRoute] = [
        WebSocketRoute(RICH_ROUTE, service.chat),
        WebSocketRoute("/api/chat", service.chat),
        Route("/personas", api.personas),
        Route("/voices", api.voices),
        Route("/health", api.health),
        Route("/session", api.session),
        *extra,
        Route("/{name:path}", static.serve),
    ]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(SecurityHeaders)],
        exception_handlers={HTTPException: _error, PersonaplexError: _error},
    )
    app.state.service = service
    return app


class _Api:
    """The JSON endpoints."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.login: str | None = None

    async def personas(self, request: Request) -> Response:
        """`GET /personas`: whom this caller may talk with, the default first."""
        identity = await authenticate(request, self._service.host)
        personas = await self._service.host.list_personas(identity)
        settings = self._service.config.personas
        return JSONResponse(
            {
                "personas": [
                    {
                        "id": persona.id,
                        "name": persona.name,
                        "description": persona.description,
                        "voice": persona.voice,
                    }
                    for persona in personas
                ],
                "default": personas[0].id if personas else None,
                "custom": settings.custom,
                "max_prompt_chars": settings.max_prompt_chars,
            }
        )

    async def voices(self, request: Request) -> Response:
        """`GET /voices`: the voices on offer."""
        await authenticate(request, self._service.host)
        return JSONResponse({"voices": await self._service.host.list_voices()})

    async def health(self, _request: Request) -> Response:
        """`GET /health`: 200 while the engine serves, else 503 with the problem. Open to everybody."""
        engine = self._service.engine
        health = engine.health()
        body = {
            "status": "failed" if health.problem else "ok",
            "engine": {
                "name": engine.info.name,
                "notice": engine.info.notice,
                "device": engine.info.device,
                "slots": health.slots,
                "busy": health.busy,
            },
            "waiting": self._service.admission.waiting,
            "version": _version(),
        }
        if health.problem:
            body["problem"] = health.problem
        return JSONResponse(body, status_code=503 if health.problem else 200)

    async def session(self, request: Request) -> Response:
        """`GET /session`: what the page must know before it asks for more. Open to everybody."""
        host = self._service.host
        identity: Identity | None = await host.authenticate(request)
        info = self._service.engine.info
        return JSONResponse(
            {
                "authenticated": identity is not None,
                "identity": identity.name if identity else None,
                "protected": host.protected,
                "login": self.login,
                "engine": {"name": info.name, "notice": info.notice},
            }
        )


async def _error(_request: Request, error: Exception) -> Response:
    """Every error as JSON: one of ours, or Starlette's own such as 405."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)
    return JSONResponse({"error": str(error)}, status_code=error.status if isinstance(error, RefusedError) else 500)


def _version() -> str:
    try:
        return version("personaplex-modal")
    except PackageNotFoundError:
        return "unknown"
