"""The project's pages as tests read them: tables, sections, anchors and links."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = (
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "core" / "nano" / "README.md",
    ROOT / "training" / "README.md",
    ROOT / "benchmarks" / "NOTES.md",
)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    """What a test calls a page."""
    return page.relative_to(ROOT).as_posix()


def doc(name: str) -> str:
    """The text of `docs/NAME.md`."""
    return (ROOT / "docs" / f"{name}.md").read_text()


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no heading {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The rows of all tables in a section, without their headers, cell by cell."""
    cells = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    rules = [index for index, row in enumerate(cells) if all(set(cell) <= {"-", ":"} for cell in row)]
    assert rules, "there is no table"
    return [row for index, row in enumerate(cells) if index not in rules and index + 1 not in rules]


def codes(cell: str) -> list[str]:
    """Everything in a cell that is set as code."""
    return re.findall(r"`([^`]+)`", cell)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """The targets of a page's links and pictures that lead to other files, or to other places of the same page."""
    return re.findall(r"\]\((?!https?:)([^)\s]+)\)", FENCE.sub("", page.read_text()))
