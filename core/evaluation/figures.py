"""Figures: what was measured, over how many cases, and what it should be."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

Unit = Literal["%", "s", "ms", "MiB", "dB", "RMS", ""]


class Figure(msgspec.Struct, frozen=True):
    """A measured value, over so many cases, and the bounds it should lie in; `value` is None without any case.

    A share, of unit `%`, is a number from 0 to 1.
    """

    name: str
    value: float | None
    cases: int
    least: float | None = None
    most: float | None = None
    unit: Unit = "%"
    published: Mapping[str, float] = {}
    """What others have published of their models, by whom, measured as Full-Duplex-Bench does (arXiv 2503.04721)."""

    @property
    def judged(self) -> bool:
        """Whether there is a bound for it."""
        return self.least is not None or self.most is not None

    @property
    def met(self) -> bool:
        """Whether it lies within its bounds."""
        if self.value is None:
            return False
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    @property
    def verdict(self) -> str:
        """`met` or `missed`; "" where there is no bound, or nothing was measured."""
        return ("met" if self.met else "missed") if self.judged and self.value is not None else ""

    @property
    def bounds(self) -> str:
        """Its bounds, in words."""
        least = [f"at least {self.show(self.least)}"] if self.least is not None else []
        return " and ".join(least + ([f"at most {self.show(self.most)}"] if self.most is not None else []))

    def show(self, value: float | None) -> str:
        """A value of this figure, in its unit."""
        match self.unit:
            case _ if value is None:
                return "-"
            case "%":
                return f"{value:.1%}".replace(".0%", "%") if value in (self.least, self.most) else f"{value:.1%}"
            case "s":
                return f"{value:.2f} s"
            case "ms" | "dB":
                return f"{value:.1f} {self.unit}"
            case "MiB":
                return f"{value:,.0f} MiB"
            case "RMS":
                return f"{value:.5f}"
            case _:
                return f"{value:g}"

    def row(self) -> str:
        """A line of the table."""
        return (
            f"{self.name:<52} {self.show(self.value):>10} {self.cases:>7}   {self.bounds:<16} {self.verdict}".rstrip()
        )


def share(name: str, cases: Sequence[bool], least: float | None = None, most: float | None = None) -> Figure:
    """In how many of the cases something is so."""
    return Figure(name, sum(cases) / len(cases) if cases else None, len(cases), least, most)


def mean(name: str, values: Sequence[float], unit: Unit, most: float | None = None) -> Figure:
    """The mean of some values."""
    return Figure(name, sum(values) / len(values) if values else None, len(values), most=most, unit=unit)
