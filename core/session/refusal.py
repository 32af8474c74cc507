"""The response to a refused request, over HTTP or instead of a WebSocket's upgrade."""

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from core.errors import RefusedError


def refusal_response(error: RefusedError) -> JSONResponse:
    """The answer that says why a request is refused: the error's status and headers, and its message as JSON."""
    response = JSONResponse({"error": str(error)}, status_code=error.status)
    for name, value in error.headers.items():
        for one in (value,) if isinstance(value, str) else value:
            response.headers.append(name, one)
    return response


async def refuse(scope: Scope, receive: Receive, send: Send, error: RefusedError) -> None:
    """Respond to a request, or to a WebSocket that is not accepted yet, with an error as JSON."""
    response = refusal_response(error)
    if scope["type"] == "websocket":
        websocket = WebSocket(scope, receive, send)
        if "websocket.http.response" in scope.get("extensions", {}):
            await websocket.send_denial_response(response)
        else:  # a server without this extension answers with a bare 403
            await websocket.close()
    else:
        await response(scope, receive, send)
