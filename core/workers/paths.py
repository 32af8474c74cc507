"""Where things are in the private folder of a service."""

from pathlib import Path


def desk_socket(folder: Path) -> str:
    """Where the front desk listens."""
    return str(folder / "desk")


def engine_socket(folder: Path, engine: int) -> str:
    """Where an engine listens to workers."""
    return str(folder / f"engine-{engine}")


def voices_folder(folder: Path) -> Path:
    """Where voices cross."""
    return folder / "voices"


def metrics_folder(folder: Path) -> Path:
    """Where workers keep what they count."""
    return folder / "metrics"


def loads_file(folder: Path) -> Path:
    """How many connections each worker has."""
    return folder / "loads"


def store_file(folder: Path) -> Path:
    """What plugins of all workers remember together."""
    return folder / "store"
