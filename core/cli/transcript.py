"""A transcript as `talk` and `call` print it."""

from collections.abc import Iterable

from core.plugin.acting import Line


def print_out(lines: Iterable[Line]) -> str:
    """What both sides said, a line each, with the second at which it began."""
    return "\n".join(f"{line.start_ms / 1000:7.1f} s  {line.side:6}  {line.text.strip()}" for line in lines)
