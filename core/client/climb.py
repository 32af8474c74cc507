"""The most callers that a server serves well, found by calling it with more and more of them."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from core.client.load_test import BenchReport

MOST_P99_MS = 80.0
"""A frame's own length: later answers pile up."""

_Run = TypeVar("_Run")


def served_well(report: BenchReport) -> bool:
    """Whether every call was held, no frame lost, no player ran dry, and 99 of 100 answers came within 80 ms."""
    whole = report.held == report.callers and report.dropped == 0 and report.gaps == 0
    return whole and report.delay_ms is not None and report.delay_ms.p99 < MOST_P99_MS


async def climb(
    run: Callable[[int, float], Awaitable[_Run]],
    well: Callable[[_Run], bool],
    most: int,
    seconds: float,
    hold_s: float,
) -> _Run | None:
    """The run with the most callers, at most `most`, that went well for `hold_s`; None when not even one did.

    `run` calls with so many callers for so many seconds. The number is found by doubling, then by halving the step, in
    runs of `seconds`; what was found must then hold for `hold_s`, or fewer are tried.
    """
    good, bad = 0, most + 1
    while bad - good > max(1, good // 8):
        callers = min(max(2 * good, 1), most) if bad > most else (good + bad) // 2
        if well(await run(callers, seconds)):
            good = callers
        else:
            bad = callers
    while good > 0:
        held = await run(good, hold_s)
        if well(held):
            return held
        good -= max(1, good // 8)
    return None
