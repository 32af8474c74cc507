"""Calls that a page's process does not serve itself: where they are, and waiting for a process that sleeps."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from time import monotonic
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from core.client.connection import CallOptions, websocket_address
from core.errors import CallError

ANSWER_S = 20.0
"""How long an answer may take: the page's process may sleep itself."""
PAUSE_S = 2.0
UNREACHABLE_S = 30.0
"""How long an address that was told may not answer."""


async def find_calls(url: str, options: CallOptions, progress: Callable[[str], None]) -> str:
    """The address to call for `url`: itself, or where the server says that its calls are, once they are taken there.

    `progress` is told what is waited for. Raises CallError when a call is refused, or cannot be placed at all.
    """
    parts = urlsplit(websocket_address(url, options))
    page = urlunsplit((parts.scheme.replace("ws", "http", 1), parts.netloc, "", "", ""))
    try:
        session = await _ask(f"{page}/session", options)
    except CallError:
        return url  # another server than ours, or one that a proxy shows in part: the call itself says what is wrong
    elsewhere = session.get("calls") if isinstance(session, dict) else None
    if not isinstance(elsewhere, dict):
        return url
    begun, unreachable_since = monotonic(), None
    while True:
        if elsewhere.get("url"):
            place = {"url": elsewhere["url"], "usual_s": elsewhere.get("wake_s")}
        else:
            place = await _ask(f"{page}/calls", options, post=True)
        if found := place.get("url"):
            if await _healthy(str(found), options):
                there = urlsplit(str(found))
                return urlunsplit((there.scheme, there.netloc, parts.path, urlsplit(url).query, ""))
            unreachable_since = unreachable_since or monotonic()
            if not elsewhere.get("url") and monotonic() - unreachable_since > UNREACHABLE_S:
                raise CallError(f"Calls are at {found}, which does not answer.")
        usual = f" of about {place['usual_s']:.0f}" if isinstance(place.get("usual_s"), int | float) else ""
        progress(f"waking the model, {monotonic() - begun:.0f}{usual} s")
        await asyncio.sleep(PAUSE_S)


async def _healthy(url: str, options: CallOptions) -> bool:
    try:
        await _ask(f"{url.replace('ws', 'http', 1)}/health", options)
    except CallError:
        return False
    return True


async def _ask(url: str, options: CallOptions, post: bool = False) -> Any:
    """The JSON of an answer. Raises CallError with the server's reason where it is no success."""
    headers = {"Authorization": f"Bearer {options.password}"} if options.password else {}
    request = urllib.request.Request(url, data=b"" if post else None, headers=headers)  # noqa: S310 - http or https

    def fetch() -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=ANSWER_S) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise CallError(_reason(error)) from None
        except (OSError, ValueError, HTTPException) as error:
            raise CallError(f"Cannot reach {url}: {error}.") from None

    return await asyncio.to_thread(fetch)


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        why = str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        why = error.reason
    return f"The server refused the call (HTTP {error.code}): {why}"
