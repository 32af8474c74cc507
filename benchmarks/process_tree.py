"""What a process and all its descendants take, read from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    """One process, as it is now."""

    pid: int
    parent: int
    command: str
    cpu_s: float
    """Of all its threads, since it began."""
    memory: int
    """Bytes, of shared pages its part."""
    threads: int


def processes(root: int) -> list[Process]:
    """The process and its descendants, parents first."""
    found = [process for path in Path("/proc").iterdir() if path.name.isdigit() and (process := _read(path))]
    tree = [process for process in found if process.pid == root]
    for process in tree:
        tree += [child for child in found if child.parent == process.pid]
    return tree


def lines(tree: list[Process]) -> list[str]:
    """A line a process, children indented."""
    depth: dict[int, int] = {}
    shown = []
    for process in tree:
        depth[process.pid] = depth.get(process.parent, -1) + 1
        name = f"{'  ' * depth[process.pid]}{process.command[:90]}"
        shown.append(
            f"{process.pid:>8} {process.cpu_s:>8.1f} s {process.memory / 2**20:>8.0f} MiB "
            f"{process.threads:>4} threads  {name}"
        )
    return shown


def _read(path: Path) -> Process | None:
    """None when the process is gone meanwhile, or another user's."""
    try:
        after_name = (path / "stat").read_text().rpartition(")")[2].split()
        command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        rollup = (path / "smaps_rollup").read_text()
    except (OSError, ValueError):
        return None
    kib = next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return Process(
        pid=int(path.name),
        parent=int(after_name[1]),
        command=command,
        cpu_s=(int(after_name[11]) + int(after_name[12])) / TICKS,
        memory=kib * 1024,
        threads=int(after_name[17]),
    )
