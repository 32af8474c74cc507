"""The events that wait to be sent to one client, encoded and numbered."""

from collections import deque
from itertools import count
from typing import Any

import msgspec

from .events import Error, ErrorDetail, Info, ServerEvent


class Outbox:
    """Events in the order in which they are to be sent."""

    def __init__(self) -> None:
        self.messages: deque[str] = deque()
        """JSON, oldest first."""
        self._numbers = count(1)
        self._encoder = msgspec.json.Encoder()

    def put(self, kind: type[ServerEvent], **fields: Any) -> None:
        """Add an event; it gets an id."""
        event = kind(event_id=f"event_{next(self._numbers)}", **fields)
        self.messages.append(self._encoder.encode(event).decode())

    def put_error(self, detail: ErrorDetail) -> None:
        """Add an `error`."""
        self.put(Error, error=detail, client_event_id=detail.client_event_id)

    def put_info(self, code: str, message: str) -> None:
        """Add an `info`."""
        self.put(Info, code=code, message=message)
