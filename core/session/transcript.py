"""What both sides of a session have said so far."""

from collections import deque
from dataclasses import replace

from core.events import CallerText
from core.plugin.acting import AgentText, Line

PAUSE_MS = 1000
"""After so long a pause the agent's next words are a line of their own."""
SHORT_PAUSE_MS = 240
"""The same where the caller has said something since."""
MOST_LINES = 5000
"""Of a transcript that is longer, the oldest lines are dropped."""


class Transcript:
    """Joins the agent's pieces to lines. The caller's come as plugins understand them, often later than they were
    said."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque(maxlen=MOST_LINES)
        self._agents: Line | None = None
        """The agent's last line, which may go on."""
        self._pause_ms = PAUSE_MS

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines so far, by when they were begun."""
        lines = [*self._lines, self._agents] if self._agents else [*self._lines]
        return tuple(sorted(lines, key=lambda line: line.start_ms))

    def add_agent(self, piece: AgentText) -> None:
        """Add a piece of the agent's words."""
        line = self._agents
        if line is not None and piece.start_ms - line.end_ms <= self._pause_ms:
            self._agents = replace(line, text=line.text + piece.text, end_ms=piece.end_ms)
            return
        if line is not None:
            self._lines.append(line)
        self._pause_ms = PAUSE_MS
        self._agents = Line("agent", piece.text.lstrip(), piece.start_ms, piece.end_ms)

    def add_caller(self, said: CallerText) -> None:
        """Add words of the caller."""
        self._pause_ms = SHORT_PAUSE_MS
        self._lines.append(Line("caller", said.text, said.start_ms, said.end_ms))
