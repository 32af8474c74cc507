"""What the processes of a service have in common: their orders, and their end when the supervisor is gone."""

import os
import pickle
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from core.settings.config import Config
from core.settings.log import configure_logging


@dataclass(frozen=True)
class Orders:
    """What the supervisor writes to a process' standard input, which then stays open for as long as it lives."""

    config: Config
    """The settings as they are in force."""
    number: int
    folder: Path
    """The service's private folder."""
    supervisor: int
    """Its process id."""
    engine_factory: str = ""
    """For an engine: `module:function`, called like `core.boot.local_engine.open_engine`."""
    carried: int = 0
    """For an engine: how many of its callers the machine's cores carry."""
    listener: int = -1
    """For a worker: the descriptor of the socket that all of them listen on."""


def receive_orders(role: str, grace_s: float) -> Orders:
    """The orders of this process, which from now on ends `grace_s` seconds after the supervisor at the latest.

    Ctrl-C, which a terminal sends to everybody, is for the supervisor to hear. The log names this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders: Orders = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own parent, by a pipe
    configure_logging(orders.config.log, process=f"{role} {orders.number}")
    threading.Thread(target=_outlive, args=(orders, grace_s), name="lifeline", daemon=True).start()
    return orders


def tidy_up(orders: Orders) -> None:
    """Called at the end: where the supervisor is gone, remove its folder for it."""
    if os.getppid() != orders.supervisor:
        shutil.rmtree(orders.folder, ignore_errors=True)


def _outlive(orders: Orders, grace_s: float) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    time.sleep(grace_s)  # for the goodbye, which the end of the connection to the supervisor sets off
    tidy_up(orders)
    os._exit(1)
