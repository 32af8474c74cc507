"""A transcript as `talk` and `call` print it."""

from collections.abc import Sequence

from core.plugin.acting import Line


def print_out(lines: Sequence[Line]) -> str:
    """The agent's words; where the caller's are known, a line for each side's, with the second at which it begins."""
    if all(line.side == "agent" for line in lines):
        return " ".join(line.text.strip() for line in lines)
    return "\n".join(f"{line.start_ms / 1000:6.1f}  {line.side}: {line.text.strip()}" for line in lines)
