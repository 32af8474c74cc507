"""How many processes a service is made of, and how many callers the machine's cores carry. Needs no torch."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigError
from core.settings.config import Config

CALLERS_PER_CORE = 12
"""Half of what `benchmarks.many_callers` measured beside an H100: 94 callers with 20 ms messages both ways, in Opus,
took 3.6 of 16 cores, the engine's process and the workers together."""
CALLERS_PER_PROCESS = 48
"""What one Python process carries, however many cores there are: measured there, 48 callers have a p99 delay of 30 ms
and hear no gap, 64 one of 71 ms and 35 gaps in 20 s."""
CALLERS_PER_WORKER = 12
"""A quarter of that, so that a worker has time to spare."""
FEW_SLOTS = 12
"""With fewer, one process does everything: a second costs memory and a hop, and gains nothing."""
NVIDIA_DRIVER = Path("/dev/nvidiactl")
"""Is there where a GPU may be used. Looking needs no library."""


@dataclass(frozen=True)
class Processes:
    """What a service is made of, beside the supervisor."""

    engines: tuple[str, ...]
    """For each engine the value of CUDA_VISIBLE_DEVICES that it starts with; "" leaves it as it is."""
    workers: int | None
    """None is as many as the engines' slots call for, when they are known."""


def plan_processes(config: Config) -> Processes | None:
    """The processes that the settings ask for; None is all in this one. Raises ConfigError."""
    workers, engine = config.server.workers, config.engine
    if config.server.role == "page":
        return None
    several = engine.devices != "one"
    if workers == 0:
        if several:
            raise ConfigError(["engine.devices: several engines need processes of their own: set server.workers."])
        return None
    if workers == "auto" and not several:
        few = isinstance(engine.slots, int) and engine.slots < FEW_SLOTS
        if few or engine.device == "cpu" or not NVIDIA_DRIVER.exists():
            return None
    return Processes(_devices(config), None if workers == "auto" else workers)


def count_workers(slots: int, cores: int) -> int:
    """How many workers `auto` takes for so many slots: no more than there are cores."""
    return max(1, min(-(-slots // CALLERS_PER_WORKER), cores))


def carried_callers(cores: int, *, one_process: bool) -> int:
    """How many callers the cores carry, in coding their audio and serving their sockets; at least 1."""
    callers = CALLERS_PER_CORE * cores
    return min(callers, CALLERS_PER_PROCESS) if one_process else callers


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices(config: Config) -> tuple[str, ...]:
    """CUDA_VISIBLE_DEVICES for each engine."""
    if config.engine.devices == "one":
        return ("",)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = [path.name for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    shown = None if visible is None else [name.strip() for name in visible.split(",") if name.strip()]
    names = [str(number) for number in range(len(found))] if shown is None else shown
    if config.engine.devices == "all":
        if not names:
            raise ConfigError(["engine.devices: all: there is no GPU on this machine. Leave it out to run on the CPU."])
        return tuple(names)
    if visible is None:
        return tuple(str(number) for number in config.engine.devices)
    missing = [number for number in config.engine.devices if number >= len(names)]
    if missing:
        raise ConfigError(
            [f"engine.devices: there is no GPU {missing[0]}: CUDA_VISIBLE_DEVICES lets {len(names)} be seen."]
        )
    return tuple(names[number] for number in config.engine.devices)
