"""The known-good versions: for every dependency, allowed by it, and without an address."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPROJECT: dict[str, Any] = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
KNOWN_GOOD: list[str] = PYPROJECT["tool"]["uv"]["constraint-dependencies"]


def direct() -> list[Requirement]:
    """All that pyproject.toml asks for: dependencies, extras and groups."""
    project = PYPROJECT["project"]
    lists = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *PYPROJECT["dependency-groups"].values(),
    ]
    return [Requirement(line) for lines in lists for line in lines]


def test_every_dependency_has_a_known_good_version_that_it_allows() -> None:
    known = [Requirement(line) for line in KNOWN_GOOD]
    for wanted in direct():
        versions = [str(pin.specifier)[2:] for pin in known if pin.name == canonicalize_name(wanted.name)]
        assert versions, f"{wanted.name} has no known-good version: uv run .ci/known_good.py"
        assert all(wanted.specifier.contains(found) for found in versions), wanted.name


def test_they_are_names_and_versions_alone() -> None:
    for line in KNOWN_GOOD:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+( ; python_full_version [<>=]+ '3\.\d+')?", line), line


@pytest.mark.parametrize("package", ["uvicorn", "websockets"])
def test_what_is_subclassed_is_capped(package: str) -> None:
    """The next release that may change an interface is not taken: for uvicorn any minor one, until 1.0."""
    [wanted] = [wanted for wanted in direct() if wanted.name == package]
    major, minor, *_ = (int(part) for part in version(package).split("."))
    assert not wanted.specifier.contains(f"{major + 1}.0")
    assert major > 0 or not wanted.specifier.contains(f"0.{minor + 1}.0")
