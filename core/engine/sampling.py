"""The sampling settings that a call may choose: temperatures, top-k and seed."""

from dataclasses import dataclass, fields, replace

from core.errors import SamplingError

MAX_TEMPERATURE = 2.0
MAX_TOP_K = 500
"""The end of the slider in NVIDIA's web client."""
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Sampling:
    """The sampling settings of a call; None is the checkpoint's own default, which for PersonaPlex is that of USUAL.

    A temperature of 0 is greedy. `seed` None means a fresh one for each call; the same seed and the same audio
    give the same conversation, whoever else is talking on the same GPU.

    Raises SamplingError, naming the value, when one is out of its limits.
    """

    temperature: float | None = None
    top_k: int | None = None
    text_temperature: float | None = None
    text_top_k: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        limits = {
            "temperature": (0.0, MAX_TEMPERATURE),
            "text_temperature": (0.0, MAX_TEMPERATURE),
            "top_k": (1, MAX_TOP_K),
            "text_top_k": (1, MAX_TOP_K),
            "seed": (0, MAX_SEED),
        }
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = limits[field.name]
            if value is not None and not low <= value <= high:  # NaN fails both comparisons
                raise SamplingError(f"{field.name} must lie between {low} and {high}, not {value}.")

    def over(self, usual: "Sampling") -> "Sampling":
        """These settings, with those of `usual` in place of what is None."""
        chosen = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(usual, **{name: value for name, value in chosen.items() if value is not None})


USUAL = Sampling(temperature=0.8, top_k=250, text_temperature=0.7, text_top_k=25)
"""PersonaPlex's own settings, and the defaults of a checkpoint whose config has none."""
