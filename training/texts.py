"""The lists and tables under `texts/` from which scripts are made."""

import itertools
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "texts"


@cache
def words(name: str) -> tuple[str, ...]:
    """The words of `texts/NAME.txt`, in the file's order, each once."""
    return tuple(dict.fromkeys((FOLDER / f"{name}.txt").read_text().split()))


@cache
def table(name: str) -> Any:
    """What `texts/NAME.yaml` holds. It is shared: read it only."""
    # libyaml's loader, which every wheel of PyYAML has: over two megabytes of tables the other one takes seconds.
    return yaml.load((FOLDER / f"{name}.yaml").read_text(), Loader=yaml.CSafeLoader)


def choices(value: str | list[str]) -> tuple[str, ...]:
    """The wordings in a table's value: a list, or one text with ` / ` between them."""
    return tuple(value.split(" / ")) if isinstance(value, str) else tuple(value)


def expanded(line: str) -> tuple[str, ...]:
    """The sentences of a line in which `[my|her]` stands for one of several words."""
    parts = re.split(r"\[([^\]]*)\]", line)
    alternatives = [part.split("|") if place % 2 else [part] for place, part in enumerate(parts)]
    return tuple("".join(chosen) for chosen in itertools.product(*alternatives))
