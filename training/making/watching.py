"""Watches a run from another process: shows what it tells, and brings back what it has packed."""

import time
from collections.abc import Callable
from pathlib import Path

from training.making.folder import LOG, is_running, read_request, result
from training.making.packed import copy_all
from training.making.processes import last_lines

GOES_ON = 3
"""The exit code that says that the run goes on: the time to watch is over."""
SHOWN = 24
"""Lines of what was told before that are shown at first."""


def watch(folder: Path, seconds: float, into: Path | None, report: Callable[[str], None]) -> int:
    """Report what the run tells until it ends or `seconds` are over, and copy what is packed to `into`.

    Returns the run's exit code, 1 if it was killed, or GOES_ON.
    """
    request = read_request(folder)
    log, end = folder / LOG, time.monotonic() + seconds
    place = log.stat().st_size if log.exists() else 0
    for line in last_lines(log, SHOWN):
        report(line)
    while True:
        # Looked at first: what is told before the end is then shown.
        running = is_running(folder)
        place = _show(log, place, report)
        if not running or time.monotonic() >= end:
            break
        time.sleep(0.5)
    if into is not None:
        copies = copy_all(folder, Path(request.into), into)
        report(f"{len(copies)} files are in {into}")
    if running:
        return GOES_ON
    code = result(folder)
    if code is None:
        report("The run was killed: what it had packed is all there is.")
        return 1
    return code


def _show(log: Path, place: int, report: Callable[[str], None]) -> int:
    """Report the whole lines of the log from a place on; returns the place after them."""
    if not log.exists():
        return place
    with log.open("rb") as file:
        file.seek(place)
        new = file.read()
    whole = new[: new.rfind(b"\n") + 1]
    for line in whole.decode(errors="replace").splitlines():
        report(line)
    return place + len(whole)
