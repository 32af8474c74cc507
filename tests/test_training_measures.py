"""The measures of evaluation, on made sound and text."""

import random
from dataclasses import replace

import numpy as np
import pytest

from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE
from core.evaluation.callers import Line
from core.evaluation.evaluate import spoken
from core.evaluation.figures import Figure, share
from core.evaluation.script import BEGINS_S
from core.evaluation.speech import Samples, activity, answer_delay, is_talked_over, stretches
from core.evaluation.voices import mean_spectrum, median_pitch, told_apart
from core.evaluation.words import mentions, word_errors, words_of
from training.calls import SILENCE_S, CallerTurn, CallRecord, ScriptedCaller
from training.figures import conduct
from training.scripts import episode

pytestmark = pytest.mark.training


def voice(pitch: float, seconds: float = 1.0, brightness: float = 1.0) -> Samples:
    """A buzz of many harmonics, each weaker by a power of its number."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    harmonics = range(1, int(8000 / pitch))
    sound = sum(np.sin(2 * np.pi * pitch * k * time) / k**brightness for k in harmonics)
    return np.asarray(0.2 * sound / np.abs(sound).max(), dtype=np.float32)


def frames(pattern: str) -> Samples:
    """Sound that is loud in the frames with a #."""
    loud = np.array([mark == "#" for mark in pattern])
    tone = np.sin(np.arange(len(loud) * FRAME_SAMPLES) / 10)
    return np.asarray(0.1 * np.repeat(loud, FRAME_SAMPLES) * tone, dtype=np.float32)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's $4.50, from 9 a.m.", "it's four dollars and fifty cents from nine in the morning"),
        ("Twenty-one cakes; OK?", "twenty one cakes okay"),
        ("Call 555-0142.", "call five five five zero one four two"),
        ("", ""),
    ],
)
def test_texts_are_compared_as_they_sound(text: str, words: str) -> None:
    assert words_of(text) == words.split()


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [("a b c", "a b c", 0), ("a b c", "a x c", 1), ("a b c", "b c", 1), ("a b", "a b c d", 2), ("a b", "", 2)],
)
def test_word_errors_are_the_fewest_edits(said: str, heard: str, errors: int) -> None:
    assert word_errors(said.split(), heard.split()) == errors


def test_a_name_is_mentioned_only_word_for_word() -> None:
    assert mentions("Hello, this is Ann-Marie from Harlow's Bakery.", "Harlow's Bakery")
    assert not mentions("Hello, this is Anna.", "Ann")


def test_speech_is_where_it_is_loud_for_more_than_a_click() -> None:
    active = activity(frames("..###.#..##"))
    assert "".join("#" if frame else "." for frame in active) == "..###....##"
    assert stretches(active, gap_s=0.1) == [(2, 5), (9, 11)]
    assert stretches(active, gap_s=1.0) == [(2, 11)]
    assert stretches(active[:2], gap_s=1.0) == []


def test_an_answer_begins_after_the_caller() -> None:
    active = activity(frames("###............####"))
    assert answer_delay(active, 10, 19) == pytest.approx(0.4)
    assert answer_delay(active, 10, 14) is None
    assert answer_delay(active, 16, 19) == pytest.approx(-0.08)
    assert answer_delay(activity(frames("#" * 20)), 10, 20) is None, "who never stops has not answered"


def test_talking_over_is_more_than_a_touch() -> None:
    active = activity(frames("####......"))
    assert not is_talked_over(active, 1, 10)
    assert is_talked_over(active, 0, 10)
    assert not is_talked_over(active, 4, 10)


@pytest.mark.parametrize("pitch", [90, 150, 210, 300])
def test_pitch_is_the_voices_own(pitch: float) -> None:
    assert median_pitch(voice(pitch)) == pytest.approx(pitch, rel=0.02)


def test_what_has_no_pitch_has_none() -> None:
    rng = np.random.default_rng(0)
    assert np.isnan(median_pitch((0.1 * rng.standard_normal(24_000)).astype(np.float32)))
    assert np.isnan(median_pitch(np.zeros(24_000, dtype=np.float32)))


def test_spectra_do_not_depend_on_level_or_silence() -> None:
    sound = voice(120)
    quieter = np.concatenate([0.5 * sound, np.zeros(24_000, dtype=np.float32)])
    assert np.abs(mean_spectrum(sound) - mean_spectrum(quieter)).mean() < 0.3
    assert np.abs(mean_spectrum(sound) - mean_spectrum(voice(120, brightness=2.0))).mean() > 1.0
    assert not mean_spectrum(np.zeros(24_000, dtype=np.float32)).any()


def test_voices_are_told_apart_by_pitch_or_by_spectrum() -> None:
    voices = [name for name in "abc" for _ in range(4)]
    shapes = {"a": (120, 1.0), "b": (220, 1.0), "c": (220, 1.6)}
    apart = [voice(shapes[name][0] * (1 + n % 4 / 100), 1.0, shapes[name][1]) for n, name in enumerate(voices)]
    assert told_apart(voices, apart) == 1.0
    alike = [voice(150 * (1 + n * 7 % 12 / 100)) for n in range(12)]
    result = told_apart(voices, alike)
    assert result is not None
    assert result < 0.7
    assert told_apart(voices[:5], apart[:5]) is None
    assert told_apart(["a", "a"], apart[:2]) is None


def test_a_figure_is_met_within_its_bounds_only() -> None:
    assert share("", [True] * 9 + [False], least=0.9).met
    assert not share("", [True] * 8 + [False] * 2, least=0.9).met
    assert not share("", [], least=0.9).met
    assert not Figure("", 0.3, 10, most=0.25).met
    assert "missed" in Figure("Errors", 0.3, 10, most=0.25).row()


def test_a_caller_waits_for_the_agent_and_is_silent_at_the_end() -> None:
    line = Line("hello", "Hello.", voice(200))
    caller = ScriptedCaller([line, line], random.Random(1))
    sound, heard = caller.frames(), 0
    next(sound)
    speaks = [True] * 20 + [False] * 200
    try:
        for active in speaks:
            sound.send(active)
            heard += 1
    except StopIteration:
        pass
    first, second = caller.turns
    assert 20 < first.begin <= 20 + 11
    assert first.end - first.begin == 13
    assert second.begin - first.end == pytest.approx(BEGINS_S * 12.5, abs=2), "nobody answers"
    assert heard - caller.silent_from == pytest.approx(SILENCE_S * 12.5, abs=1)


def test_conduct_is_read_off_the_sound() -> None:
    line = Line("hello", "Hello.", frames("####"))
    turns = (CallerTurn(line, 10, 14), CallerTurn(replace(line, kind="recording"), 40, 44))
    agent = frames("..######........" + ".." + "########....." + "........######################" + "." * 39)
    record = CallRecord(episode(random.Random(0)), "a", agent, np.zeros_like(agent), ("",) * 100, turns, silent_from=80)
    prompt, quiet, real, silence = conduct([record])
    assert (prompt.value, prompt.cases) == (0.5, 2)
    assert (quiet.value, quiet.cases) == (0.5, 2)
    assert (real.value, real.cases) == (0.0, 1)
    assert (silence.value, silence.cases) == (1.0, 2)
    assert record.parts() == [(0, 10), (10, 40), (40, 100)]
    assert len(spoken(record.agent, *(0, 10))) == 10 * FRAME_SAMPLES
    assert len(spoken(record.agent, *(70, 100))) == 0
