"""Standard streams that a service can rely on, where whoever started it closed them, or gave it a full disk."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any


def open_standard_streams() -> None:
    """Open those of descriptors 0, 1 and 2 that are closed, on nothing.

    Else the next file or socket that is opened would have such a number, and be written to by all that print.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - it stays open


class LossyStream(io.TextIOBase):
    """Text that is written to `stream` as far as it takes it: a full disk or a terminal that is gone lose the rest."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Nothing waits here."""

    def isatty(self) -> bool:
        """Whether a person may read it."""
        return bool(self._stream.isatty())

    def fileno(self) -> int:
        """The descriptor of the stream behind it."""
        return int(self._stream.fileno())

    def writable(self) -> bool:
        """Always."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override] # which TextIOBase has as an attribute
        """Of the stream behind it."""
        return str(self._stream.encoding)


@contextlib.contextmanager
def lossy_standard_error() -> Iterator[None]:
    """Within it, nothing fails because standard error cannot be written to."""
    with contextlib.redirect_stderr(LossyStream(sys.stderr)):
        yield
