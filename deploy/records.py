"""What the two functions tell each other, in a `modal.Dict`: which containers take calls, which starts are under way or
have failed, and what was used today. Every key has one writer, since a Dict has no transactions."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol, TypeVar

REPORT_S = 5.0
"""How often a container writes its report."""
STALE_S = 3 * REPORT_S
"""A container whose report is older has gone without a word: killed, or cut off."""
CONTAINER, SPENT, PAGE = "container ", "spent ", "page"
"""What keys begin with, before the id of a function call and of a container; the last is the page's own, whole."""


class Records(Protocol):
    """The Dict, as far as it is used."""

    async def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Set a key."""

    async def pop(self, key: str) -> None:
        """Remove a key, if it is there."""

    def items(self) -> AsyncIterator[tuple[str, Any]]:
        """All keys and values."""


@dataclass(frozen=True)
class Report:
    """What a container with a GPU says of itself. Times in seconds since 1970."""

    call: str
    """The id of its function call, by which the page knows it."""
    url: str
    """Where its calls are: `https://...modal.host`."""
    at: float
    slots: int
    busy: int
    waiting: int
    ended: int
    """How many calls it has served to their end."""
    deployed: int
    """The deployment that it is of."""
    metrics: str = ""
    """Its metrics, as a scraper reads them."""

    @property
    def room(self) -> int:
        """How many more callers it can take at once."""
        return self.slots - self.busy - self.waiting


@dataclass(frozen=True)
class Start:
    """A function call that was made, and when that was or it last reported."""

    call: str
    at: float


@dataclass(frozen=True)
class PageNotes:
    """What the page remembers over its own containers."""

    deployed: int = 0
    """The deployment in force: containers of an earlier one end when their calls have."""
    starts: tuple[Start, ...] = ()
    failures: tuple[tuple[float, str], ...] = ()
    """When each container failed, and why, since one last served a call to its end."""


@dataclass(frozen=True)
class Known:
    """Everything that the records say."""

    reports: tuple[Report, ...] = ()
    spent: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Seconds by what they were spent on (a day, a space, and for whom), for each container."""
    page: PageNotes = PageNotes()


async def read(records: Records) -> Known:
    """What the records say; what an earlier deployment wrote in another form is left out."""
    reports, spent, page = [], {}, PageNotes()
    async for key, value in records.items():
        if key == PAGE and (notes := _decoded(PageNotes, value)):
            starts = tuple(start for given in notes.starts if (start := _decoded(Start, given)))
            failures = tuple((float(at), str(why)) for at, why in notes.failures)
            page = PageNotes(notes.deployed, starts, failures)
        elif key.startswith(CONTAINER) and (report := _decoded(Report, value)):
            reports.append(report)
        elif key.startswith(SPENT) and isinstance(value, dict):
            spent[key.removeprefix(SPENT)] = value
    return Known(tuple(reports), spent, page)


async def write_report(records: Records, report: Report) -> None:
    """Set the report of a container."""
    await records.put(CONTAINER + report.call, asdict(report))


async def write_notes(records: Records, notes: PageNotes) -> None:
    """Set the page's notes."""
    await records.put(PAGE, asdict(notes))


_Record = TypeVar("_Record")


def _decoded(kind: type[_Record], value: Any) -> _Record | None:
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type] # all are dataclasses
    if not isinstance(value, dict):
        return None
    try:
        return kind(**{name: given for name, given in value.items() if name in names})
    except TypeError:
        return None
