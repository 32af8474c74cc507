"""`create_app`: the routes and the lifespan of the service."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from core.engine.call import Engine
from core.errors import PersonaplexError, RefusedError
from core.events import Identity
from core.http.headers import HEADERS, SecurityHeaders
from core.http.offers import Offers
from core.http.origin_check import OriginCheck
from core.http.plugin_routes import PluginRoutes
from core.http.rate_limits import PacedRequests
from core.http.request_bodies import RequestBodies
from core.http.static_files import StaticFiles
from core.plugin.host import PluginHost
from core.plugin.logins import forget
from core.plugin.reload import ReloadMiddleware
from core.session.addresses import client_address
from core.session.admission import Admission
from core.session.call_service import ROUTES, CallService
from core.session.chat_request import authenticate, identify
from core.session.refusal import refusal_response
from core.settings.config import Config, shipped
from core.settings.log import get_logger

_log = get_logger("app")


def create_app(config: Config, engine: Engine, host: PluginHost, admission: Admission | None = None) -> Starlette:
    """The service as an ASGI app; `app.state.service` is its CallService.

    `admission` None is a queue of this process before `engine`.

    Raises ConfigError when the page's folder cannot be used, and PluginError when a plugin's routes cannot.
    """
    service = CallService(config, engine, host, admission)
    api = _Api(service)
    role = config.server.role

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    routes: list[BaseRoute] = [Route("/health", api.health)]
    if role != "page":
        routes += [WebSocketRoute(route, service.chat) for route in ROUTES]
        routes += [Route(route, service.upgrade_required) for route in ROUTES]
    if role != "gpu":
        offers = Offers(service)
        routes += [
            Route("/personas", offers.personas),
            Route("/personas/{id}/image", offers.image),
            Route("/voices", offers.voices),
            Route("/voices/{name}/sample", offers.sample),
            Route("/session", api.session),
            Route("/ticket", api.ticket, methods=["POST"]),
            Route("/logout", api.logout, methods=["POST"]),
        ]
        routes.append(PluginRoutes(lambda: service.host))
        static = StaticFiles(Path(config.server.web) if config.server.web else shipped("web"))
        routes.append(Route("/{name:path}", static.serve))
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[
            Middleware(ProxyHeadersMiddleware, trusted_hosts=list(config.server.trusted_proxies)),
            Middleware(SecurityHeaders, server=config.server),
            Middleware(PacedRequests, per_s=config.server.requests_per_s),
            Middleware(RequestBodies, most_bytes=config.server.max_request_bytes, within_s=config.server.request_s),
            Middleware(ReloadMiddleware, reloader=service.reloader),
            Middleware(
                OriginCheck,
                origins=config.server.origins,
                local_only=lambda: not (service.host.protected or config.server.insecure),
                refused=service.refused,
            ),
        ],
        exception_handlers={
            HTTPException: _error,
            PersonaplexError: _error,
            ClientDisconnect: _left,
            Exception: _fault,
        },
    )
    app.state.service = service
    return app


class _Api:
    """The endpoints that tell how the service is."""

    def __init__(self, service: CallService) -> None:
        self._service = service

    async def health(self, request: Request) -> Response:
        """`GET /health`: 200 while calls are taken and the engine serves, else 503. Open to everybody.

        `status` is `full` while another caller would be refused, since every slot and every place in the queue is
        taken. To who watches the process this is health, so 200; a balancer asks for `?full=503`.

        `problems` is the number of other things that are wrong, such as an edit of the settings that was rejected;
        authenticated callers get a sentence for each in `details`.
        """
        engine, host = self._service.engine, self._service.host
        origin = request.headers.get("origin")
        known = origin in host.config.server.origins  # a page served elsewhere polls this while the service starts
        headers = {"access-control-allow-origin": origin, "vary": "origin"} if origin and known else None
        health = engine.health()
        problems = [*self._service.reloader.problems, *host.problems()]
        waiting = self._service.admission.waiting
        full = 0 < health.slots <= health.busy and waiting >= host.config.server.queue
        status = "failed" if health.problem else "stopping" if self._service.stopping else "full" if full else "ok"
        well = status == "ok" or (status == "full" and request.query_params.get("full") != "503")
        body: dict[str, Any] = {
            "status": status,
            "engine": {
                "name": engine.info.name,
                "notice": engine.info.notice,
                "device": engine.info.device,
                "slots": health.slots,
                "busy": health.busy,
            },
            "waiting": waiting,
            "version": _version(),
        }
        if problems:
            body["problems"] = len(problems)
            with contextlib.suppress(RefusedError):
                await authenticate(request, host)
                body["details"] = problems
        if health.problem:
            body["problem"] = health.problem
        return JSONResponse(body, status_code=200 if well else 503, headers=headers)

    async def session(self, request: Request) -> Response:
        """`GET /session`: what the page needs before it can request anything else. Open to everybody."""
        host = self._service.host
        identity: Identity | None = None
        try:
            identity = await authenticate(request, host)
        except RefusedError as error:
            if error.status != 401:
                raise
        info, server = self._service.engine.info, host.config.server
        url = None if "*" in server.socket else server.socket
        remote = {"url": url, "ticket": host.protected, "wake": server.wake, "wake_s": server.wake_s}
        return JSONResponse(
            {
                "authenticated": identity is not None,
                "identity": identity.name if identity else None,
                "protected": host.protected,
                "logins": [asdict(way) for way in host.authentication.ways()],
                "engine": {"name": info.name, "notice": info.notice},
                "notices": host.notices(identity),
            }
            | ({"calls": remote} if server.role == "page" else {})
        )

    async def ticket(self, request: Request) -> Response:
        """`POST /ticket`: a ticket for one WebSocket, for clients that can send it neither cookie nor header."""
        tokens = self._service.host.authentication.tokens
        ticket = await tokens.ticket(*await identify(request, self._service.host))
        if ticket is None:
            raise RefusedError(403, "Tickets are only for those who have a password here, or have logged in.")
        return JSONResponse({"ticket": ticket, "seconds": tokens.ticket_s})

    async def logout(self, request: Request) -> Response:
        """`POST /logout`: delete the browser's cookie. Open to everybody."""
        response = Response(status_code=204)
        forget(request, response)
        return response


async def _error(_request: Request, error: Exception) -> Response:
    """The JSON response for a PersonaplexError, or for one of Starlette's own errors such as 405."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)
    if isinstance(error, RefusedError):
        return refusal_response(error)
    return JSONResponse({"error": str(error)}, status_code=500)


async def _left(request: Request, _error: Exception) -> Response:
    """The client went while its request was read. Nobody gets this answer; it spares the log a traceback."""
    route = getattr(request.scope.get("plugin_route"), "path", "")
    _log.info("a client left before its request was read", route=route, address=client_address(request))
    return Response(status_code=400)


async def _fault(_request: Request, _error: Exception) -> Response:
    """The response for any other error. It bypasses all middleware, so it adds the headers; uvicorn logs the error."""
    return JSONResponse({"error": "Something failed in the server."}, status_code=500, headers=HEADERS)


def _version() -> str:
    try:
        return version("personaplex-modal")
    except PackageNotFoundError:
        return "unknown"
