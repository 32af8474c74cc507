"""The beginning of a session: the client's `session.start` is awaited, read, and put to the service."""

import asyncio
from dataclasses import replace

from starlette.requests import HTTPConnection

from core import AcceptedCall, CallEnded, Calls, ClientSocket, RefusedError

from .endings import POLICY, explain_refusal
from .events import ErrorDetail, SessionClose, SessionStart
from .outbox import Outbox
from .reading import EventError, invalid, read_event
from .start import Notice, Start, read_start
from .transport import send_all

START = "session.start"
NOT_STARTED = "session_not_started"
MOST_ERRORS = 20
"""A client that sends so much that is no `session.start` will not send one."""


async def open_call(
    connection: HTTPConnection, socket: ClientSocket, calls: Calls, outbox: Outbox, start_s: float
) -> tuple[Start, AcceptedCall] | None:
    """Wait for a start that the service accepts, for `start_s` seconds at most. None when no session begins: then the
    client has been told why, and the socket is closed."""
    try:
        start = await _await_start(socket, outbox, start_s)
        try:
            return await _accept(connection, calls, start)
        except RefusedError as refusal:
            await _refuse(socket, outbox, *explain_refusal(refusal, start.event_id))
    except EventError as error:
        await _refuse(socket, outbox, error.detail, POLICY)
    except CallEnded as ended:
        await socket.close(ended.code)
    return None


async def _await_start(socket: ClientSocket, outbox: Outbox, start_s: float) -> Start:
    """The session that the client asks for. What comes before is answered by an error. Raises EventError for a start
    that cannot be had, and CallEnded when the client leaves."""
    try:
        async with asyncio.timeout(start_s):
            for _ in range(MOST_ERRORS):
                try:
                    event = read_event(await socket.receive())
                except EventError as error:
                    if error.kind == START:
                        raise
                    outbox.put_error(error.detail)
                else:
                    if isinstance(event, SessionStart):
                        return read_start(event.session, event.event_id)
                    if isinstance(event, SessionClose):
                        raise CallEnded
                    too_early = invalid(NOT_STARTED, "The first event is session.start.", "type", event.event_id)
                    outbox.put_error(too_early.detail)
                await send_all(socket, outbox)
    except TimeoutError:
        raise invalid(NOT_STARTED, f"No session.start came in {start_s:g} s.") from None
    raise invalid(NOT_STARTED, "Too much came before a session.start.")


async def _accept(connection: HTTPConnection, calls: Calls, start: Start) -> tuple[Start, AcceptedCall]:
    """Put the request to the service. A voice that is not on offer gives way to the persona's. Raises RefusedError."""
    request = replace(start.request, identity=connection.state.identity)
    if request.voice is not None and request.voice not in await calls.voices():
        notice = Notice("voice_substituted", f"There is no voice {request.voice[:80]!r} here: the persona has its own.")
        start = replace(start, notices=(*start.notices, notice))
        request = replace(request, voice=None)
    return start, await calls.accept(connection, request)


async def _refuse(socket: ClientSocket, outbox: Outbox, detail: ErrorDetail, code: int) -> None:
    outbox.put_error(detail)
    try:
        await send_all(socket, outbox)
    except CallEnded:
        return
    await socket.close(code, detail.message)
