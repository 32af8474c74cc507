"""The response to a refused request, over HTTP or instead of a WebSocket's upgrade."""

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from core.errors import RefusedError


async def refuse(scope: Scope, receive: Receive, send: Send, error: RefusedError) -> None:
    """Respond to a request, or to a WebSocket that is not accepted yet, with an error as JSON."""
    response = JSONResponse({"error": str(error)}, status_code=error.status, headers=error.headers)
    if scope["type"] == "websocket":
        websocket = WebSocket(scope, receive, send)
        if "websocket.http.response" in scope.get("extensions", {}):
            await websocket.send_denial_response(response)
        else:  # a server without this extension answers with a bare 403
            await websocket.close()
    else:
        await response(scope, receive, send)
