"""What nano, the checkpoint that comes with the package, has learnt: heard from its first words."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import yaml

from core.boot.checkpoint_source import NANO
from core.boot.local_engine import open_engine
from core.engine.call import FRAME_SAMPLES, Engine
from core.engine.prompt import Prompt
from core.engine.sampling import Sampling
from core.settings.sections import EngineConfig

ROOT = Path(__file__).parents[1]
NAMES = {"bank": "Sanni", "clinic": "Grace", "internet-support": "Devon", "restaurant": "Marco"}


async def greeting(engine: Engine, persona: str, voice: str) -> tuple[str, float]:
    """The words of an agent's first five seconds, to a silent caller, and how loud it was."""
    prompt = yaml.safe_load((ROOT / "personas" / f"{persona}.yaml").read_text())["prompt"]
    call = engine.open(Prompt(prompt, engine.voice(voice)), Sampling(temperature=0.0, text_temperature=0.0))
    await call.ready()
    answers, words, loudest = call.frames(), "", 0.0
    for _ in range(62):
        call.push(np.zeros(FRAME_SAMPLES, dtype=np.float32))
        answer = await anext(answers)
        words += answer.text
        loudest = max(loudest, float(np.abs(answer.pcm).max()))
    await call.close()
    return words, loudest


def test_its_card_is_the_one_that_is_exported() -> None:
    assert (NANO / "README.md").read_text() == (ROOT / "training" / "CARD.md").read_text()


@pytest.mark.slow
async def test_nano_greets_with_its_personas_names() -> None:
    engine = open_engine(EngineConfig(name="nano", device="cpu", slots=len(NAMES)), lambda _: None)
    try:
        told = await asyncio.gather(
            *(greeting(engine, persona, voice) for persona, voice in zip(NAMES, engine.voices(), strict=True))
        )
    finally:
        engine.close()
    right = [name in words for name, (words, _) in zip(NAMES.values(), told, strict=True)]
    assert sum(right) >= len(NAMES) - 1, [words for words, _ in told]  # Rounding differs between processors.
    assert all(0.05 < loudest <= 1.0 for _, loudest in told)
