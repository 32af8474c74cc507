"""What is chosen at `modal deploy`, each by its variable: `PERSONAPLEX_MODAL_GPU=L40S` and so on."""

import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from deploy.prices import card

NAME = "personaplex"
"""What its Volumes and secrets are called, and the app where no other name is chosen."""
PREFIX = "PERSONAPLEX_MODAL_"
ROOT = Path(__file__).parent.parent
"""The checkout; in a container /root, where the image has the same folders."""
DATA = Path("/data")
"""The Volume: the hub's cache, unpacked voices; the operator's `config.yaml`, `personas/`, `voices/`, `plugins/`."""
COMPILED = Path("/compiled")
"""A Volume of its own: libraries stay open from here, and a Volume with open files shows no news."""
RECORDINGS = Path("/recordings")
"""A Volume of its own, which only the GPU's containers write."""
SETTINGS = Path("/settings")
"""In a container, a folder of links to the settings in force, those of the Volume or of the checkout."""
CONTAINER_S = 86_400
"""The longest that Modal lets a function call last, and so a container serve calls."""
START_S = 900
"""The longest that a start may take, the first one with its snapshot."""


@dataclass(frozen=True)
class Deployment:
    """The choices. The default slots are what was measured to fit 22 GiB: see docs/performance.md, Smaller GPUs."""

    name: str = NAME
    """The app's, and of its records: another one for trying beside the first, with the same Volumes and secrets."""
    gpu: str = "A10G"
    slots: int = 6
    """Calls at once in a container."""
    kv_cache: str = "int8"
    """As `engine.kv_cache`: with `auto` an A10G holds 3 calls, and with int8 weights 7."""
    weights: str = "auto"
    """As `engine.weights`: with `int8` an A10G holds 15 calls."""
    max_containers: int = 1
    """So many GPUs at once."""
    min_containers: int = 0
    """So many are loaded always, and paid for."""
    gpu_minutes: int = 480
    """The bound of what can be spent: so many minutes of all GPUs a day, by UTC; 0 is no bound."""
    scaledown_s: int = 300
    """How long a GPU waits for the next call before it is given back."""
    gpu_snapshot: bool = True
    """Whether containers start from a picture of a loaded engine, which is an alpha feature of Modal."""
    region: str = ""
    """Where the GPUs are, such as `eu`; "" is anywhere, which costs least."""
    folders: str = ""
    """Further folders of the checkout that `config.yaml` names, with a space between."""
    deployed: int = 0
    """Seconds since 1970 at the deployment, which tells one from the next; set by `stamped`, not chosen."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Deployment":
        """The variables that are set, and the defaults. Raises ValueError naming the variable that is wrong."""
        known = {PREFIX + field.name.upper(): field for field in fields(cls)}
        values: dict[str, Any] = {}
        for name in sorted(environ):
            if not name.startswith(PREFIX):
                continue
            if name not in known:
                near = get_close_matches(name, known, n=1, cutoff=0.88)  # all begin alike
                hint = (
                    f" Is it {near[0]}?"
                    if near
                    else f" There are {', '.join(one for one in known if not one.endswith('DEPLOYED'))}."
                )
                raise ValueError(f"{name} is no choice of this deployment.{hint}")
            if text := environ[name]:
                values[known[name].name] = _parsed(name, text, known[name].default)
        chosen = cls(**values)
        chosen._check()
        return chosen

    def stamped(self) -> "Deployment":
        """The same, with the time of now as its mark."""
        return replace(self, deployed=int(time.time()))

    def environment(self) -> dict[str, str | None]:
        """The same for a container, and what follows of it for the service's own settings."""
        chosen: dict[str, str | None] = {PREFIX + name.upper(): str(value) for name, value in asdict(self).items()}
        return chosen | {
            "PERSONAPLEX_ENGINE__NAME": "personaplex",
            "PERSONAPLEX_ENGINE__CACHE": str(DATA / "cache"),
            "PERSONAPLEX_ENGINE__OFFLINE": "true",
            "PERSONAPLEX_ENGINE__SLOTS": str(self.slots),
            "PERSONAPLEX_ENGINE__KV_CACHE": self.kv_cache,
            "PERSONAPLEX_ENGINE__WEIGHTS": self.weights,
            "PERSONAPLEX_LOG__FORMAT": "json",
            "PERSONAPLEX_PLUGINS__OPTIONS__RECORDING__FOLDER": str(RECORDINGS),
            "TRITON_CACHE_DIR": str(COMPILED / "triton"),
            "TORCHINDUCTOR_CACHE_DIR": str(COMPILED / "inductor"),
        }

    def _check(self) -> None:
        def refuse(name: str, what: str) -> None:
            raise ValueError(f"{PREFIX}{name.upper()} {what}.")

        try:
            card(self.gpu)
        except ValueError as error:
            raise ValueError(f"{PREFIX}GPU: {error}") from None
        for name, least in (("slots", 1), ("max_containers", 1), ("scaledown_s", 10)):
            if getattr(self, name) < least:
                refuse(name, f"must be at least {least}, not {getattr(self, name)}")
        if self.min_containers > self.max_containers:
            refuse("min_containers", f"is {self.min_containers}, more than MAX_CONTAINERS, {self.max_containers}")
        for name, options in (("kv_cache", ("auto", "bfloat16", "int8")), ("weights", ("auto", "int8"))):
            if getattr(self, name) not in options:
                refuse(name, f"must be one of {', '.join(options)}, not {getattr(self, name)!r}")
        if not re.fullmatch(r"[a-z0-9-]{1,50}", self.name):
            refuse("name", f"must be small letters, digits and '-', not {self.name!r}")
        if self.region and not re.fullmatch(r"[a-z]{2}(-[a-z]+(-[0-9]+)?)?", self.region):
            refuse("region", f"must be a region such as eu or us-west, not {self.region!r}")


def _parsed(name: str, text: str, default: Any) -> Any:
    """The text of a variable as the type of its default. Raises ValueError naming the variable."""
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{name} must be true or false, not {text!r}.")
        return text.lower() == "true"
    if isinstance(default, int):
        if not text.isdecimal():
            raise ValueError(f"{name} must be a whole number, not {text!r}.")
        return int(text)
    return text
