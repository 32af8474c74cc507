"""Picking a dropped call up again: the tokens that name calls, and what a client says when it comes back."""

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from core.errors import RefusedError

if TYPE_CHECKING:  # a supervisor and an engine's process, which know of Pickup, load neither
    from starlette.websockets import WebSocket

    from core.session.resumable_transport import ResumableTransport

TOKEN_BYTES = 24
"""Nobody guesses a token, and nothing is signed: only the process that has the call knows which tokens there are."""
OVER = "This call is over, or has been picked up again already. Call anew."


@dataclass(frozen=True)
class Pickup:
    """A client that comes back to its call over a new connection."""

    token: str
    identity: str
    """The name of who comes, as it was authenticated for the new connection."""
    audio: Literal["opus", "pcm"]
    """How sound is coded from now on."""
    words: int | None
    """How many TEXT messages the client has received in this call; None where it does not say."""


class DroppedCall(Protocol):
    """A call that was found, and waits for its client."""

    async def carry(self, websocket: "WebSocket") -> None:
        """Accept the connection and carry the call over it, until either ends."""


class OtherProcesses(Protocol):
    """The other processes of a service, where a call may be that is to be picked up here."""

    @property
    def place(self) -> str:
        """The name of this process in tokens: letters and digits."""

    async def find(self, place: str, pickup: Pickup) -> DroppedCall:
        """The call, in the process of that name. Raises RefusedError."""


class ResumeTokens:
    """The tokens of this process's calls. Each is good for one use, and the next comes with it."""

    def __init__(self, place: str = "0") -> None:
        """`place` names this process among those of the service."""
        self.place = place
        self._calls: dict[str, ResumableTransport] = {}

    def issue(self, call: "ResumableTransport") -> str:
        """A new token for a call."""
        token = f"{self.place}.{secrets.token_urlsafe(TOKEN_BYTES)}"
        self._calls[token] = call
        return token

    def claim(self, token: str, identity: str) -> "ResumableTransport":
        """The call of this token, which cannot be used again. Raises RefusedError."""
        call = self._calls.get(token)
        if call is None:
            raise RefusedError(410, OVER)
        if call.identity != identity:
            raise RefusedError(403, "This call is somebody else's.")
        self.forget(call)
        return call

    def restore(self, token: str, call: "ResumableTransport") -> None:
        """A token is good again: the connection that it was used for has come to nothing."""
        self._calls[token] = call

    def forget(self, call: "ResumableTransport") -> None:
        """All tokens of a call are used, or the call is over."""
        for token in [token for token, other in self._calls.items() if other is call]:
            del self._calls[token]


def place_of(token: str) -> str:
    """The process that a token names."""
    return token.partition(".")[0]
