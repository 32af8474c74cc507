"""Files that are there whole or not at all, though a process may end amid writing and others may write the same."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path of this process's own to write to, which becomes `path` at the end of the block.

    Where the block raises, `path` stays as it was.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}")
    yield part
    part.replace(path)
