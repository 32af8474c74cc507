"""Write the known-good versions into pyproject.toml: `uv run .ci/known_good.py`, then run the tests and commit.

Resolves every dependency, extra and group to the newest version that pyproject.toml allows, as if its list of
known-good versions were empty, and writes names and versions, without an address or a hash, to
`constraint-dependencies`.
"""

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
LIST = re.compile(r"(?<=^constraint-dependencies = \[\n).*?(?=^\]$)", re.MULTILINE | re.DOTALL)
EXPORT = (
    "uv",
    "export",
    "--quiet",
    "--all-extras",
    "--all-groups",
    "--no-emit-project",
    "--no-annotate",
    "--no-header",
)


def resolve(pyproject: str) -> list[str]:
    """The newest versions that a pyproject.toml allows, each as `name==version`, with its marker where one has two."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pyproject.toml").write_text(pyproject)
        command = [*EXPORT, "--no-hashes", "--project", folder]
        exported = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - fixed words
    lines = [line for line in exported.stdout.splitlines() if line]
    twice = Counter(line.partition("==")[0] for line in lines)
    return [line if twice[line.partition("==")[0]] > 1 else line.partition(" ;")[0] for line in lines]


def main() -> None:
    """Replace the list."""
    written = PYPROJECT.read_text()
    assert LIST.search(written), f"{PYPROJECT} has no constraint-dependencies"  # noqa: S101
    versions = "".join(f'    "{line}",\n' for line in resolve(LIST.sub("", written, count=1)))
    PYPROJECT.write_text(LIST.sub(lambda _: versions, written, count=1))


if __name__ == "__main__":
    main()
