"""What a deployment on Modal costs: `python -m deploy.prices`. Needs no account, and no package but this one."""

import argparse
from dataclasses import dataclass
from math import ceil

PRICED = "modal.com/pricing as of 2026-09; look there for today's"
GPU_SECOND = {
    "T4": 0.000164,
    "L4": 0.000222,
    "A10": 0.000306,
    "L40S": 0.000542,
    "A100-40GB": 0.000583,
    "A100-80GB": 0.000694,
    "RTX-PRO-6000": 0.000842,
    "H100": 0.001097,
    "H200": 0.001261,
    "B200": 0.001736,
}
"""Dollars a second of each card that Modal lists, outside of a chosen region."""
SAME = {"A10G": "A10", "A100": "A100-40GB", "H100!": "H100", "B200+": "B200"}
"""Other names that Modal takes for them. `A100` may be given 80 GB for the price of 40, `H100` an H200."""
CORE_SECOND = 0.0000131
GIB_SECOND = 0.00000222
BROAD_REGION, NARROW_REGION = 1.5, 1.75
"""What everything costs times as much in a region such as `eu`, and in one such as `eu-west`."""

GPU_CORES, GPU_GIB = 2.0, 26.0
"""What the GPU's container asks for beside the card. A start was seen to take 25 GB of memory."""
PAGE_CORES, PAGE_GIB = 0.25, 0.5
DAYS = 30


def card(name: str) -> str:
    """The card that Modal gives for a name, in whichever case it is written. Raises ValueError for any other name."""
    known = SAME.get(name.upper(), name.upper())
    if known not in GPU_SECOND:
        names = ", ".join(sorted({*GPU_SECOND, *SAME}))
        hint = " One container runs one engine on one card." if ":" in name else ""
        raise ValueError(f"{name!r} is no GPU of Modal's.{hint} It takes {names}.")
    return known


def region_factor(region: str) -> float:
    """How many times as much everything costs there; 1 where no region is chosen."""
    if not region:
        return 1.0
    return NARROW_REGION if "-" in region else BROAD_REGION


def hourly(gpu: str, cores: float, gib: float, region: str = "") -> float:
    """Dollars an hour of a container; `gpu` is "" for one without. Raises ValueError for a card that is unknown."""
    second = cores * CORE_SECOND + gib * GIB_SECOND + (GPU_SECOND[card(gpu)] if gpu else 0.0)
    return 3600 * second * region_factor(region)


def gpu_hour(gpu: str, region: str = "") -> float:
    """Dollars an hour of the container with the card. Raises ValueError for a card that is unknown."""
    return hourly(gpu, GPU_CORES, GPU_GIB, region)


def page_hour() -> float:
    """Dollars an hour of the page's container, which has no region."""
    return hourly("", PAGE_CORES, PAGE_GIB)


@dataclass(frozen=True)
class Usage:
    """How a deployment is used, for `month`."""

    calls_a_day: int
    minutes: float = 5.0
    """How long a call lasts."""
    at_once: float = 1.0
    """How many talk at once, on average, while anybody does."""
    wake_s: float = 60.0
    """How long a start takes before its first call."""
    scaledown_s: float = 300.0
    gathered: float = 1.0
    """How many calls, on average, share one start and one wait at its end."""


def month(gpu: str, usage: Usage, region: str = "", gpu_minutes: float = 0.0) -> tuple[float, float]:
    """Hours of the GPU's container in a month, and dollars in all; `gpu_minutes` a day are the bound, 0 is none."""
    starts = ceil(usage.calls_a_day / usage.gathered)
    day_s = usage.calls_a_day * usage.minutes * 60 / usage.at_once + starts * (usage.wake_s + usage.scaledown_s)
    bound_s = 60 * gpu_minutes if gpu_minutes else 86_400.0
    gpu_hours = DAYS * min(day_s, bound_s, 86_400.0) / 3600
    return gpu_hours, gpu_hours * (gpu_hour(gpu, region) + page_hour())


def table(gpu: str, slots: int, scaledown_s: int, region: str = "", gpu_minutes: int = 0) -> str:
    """What an hour costs, what it costs each of those who talk in it, and what months cost."""
    hour = gpu_hour(gpu, region)
    where = f" in {region}" if region else ""
    lines = [
        f"{card(gpu)}{where}, {slots} slots, at the prices of {PRICED}:",
        f"  an hour of the GPU's container     ${hour:8.2f}",
        f"  an hour of the page's              ${page_hour():8.2f}",
        *(
            f"  a caller-hour, {count:3} talking         ${hour / count:8.2f}"
            for count in sorted({1, max(1, slots // 2), slots})
        ),
        f"  waiting {scaledown_s} s after the last call   ${hour * scaledown_s / 3600:8.2f}",
    ]
    if gpu_minutes:
        lines.append(f"  a day of {gpu_minutes} GPU minutes, the most   ${hour * gpu_minutes / 60:8.2f}")
    for calls, gathered in ((0, 1.0), (10, 1.0), (200, 5.0)):
        usage = Usage(calls, at_once=1.0 if calls <= 10 else 2.0, scaledown_s=scaledown_s, gathered=gathered)
        hours, dollars = month(gpu, usage, region, gpu_minutes)
        lines.append(f"  a month of {calls:3} calls a day: {hours:4.0f} h   ${dollars:8.2f}")
    return "\n".join(lines)


def main() -> None:
    """Print the table for the deployment that the environment chooses, or for another."""
    import os

    from deploy.choices import Deployment

    chosen = Deployment.read(os.environ)
    parser = argparse.ArgumentParser(description="What the service costs on Modal.")
    parser.add_argument("--gpu", default=chosen.gpu)
    parser.add_argument("--slots", type=int, default=chosen.slots)
    parser.add_argument("--region", default=chosen.region)
    given = parser.parse_args()
    try:
        print(table(given.gpu, max(given.slots, 1), chosen.scaledown_s, given.region, chosen.gpu_minutes))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
