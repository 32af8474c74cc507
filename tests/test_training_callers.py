"""Callers' lines: what they say around what they want, in which voices, and how it is kept."""

import os
import random
import re
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest

from training.aligning import aligned
from training.callers import teacher
from training.calling import ANYTHING, calls
from training.catalogue import askable
from training.episodes import Episode, Exchange
from training.manners import manner, pause, said
from training.names import is_held_out as names_are_held_out
from training.phrases import is_held_out, phrases
from training.scripts import episode
from training.shards import Said, read_index, read_shard, write_shard
from training.teachers import Espeak, Spoken, paused
from training.texts import choices, table
from training.voices import (
    HELD_OUT_ACCENTS,
    HELD_OUT_KOKORO_VOICES,
    HELD_OUT_RECORDED_VOICES,
    HELD_OUT_VARIANTS,
    RECORDED_VOICES,
    Speaker,
    caller,
)

pytestmark = pytest.mark.training
RHVOICE = "PERSONAPLEX_TEST_RHVOICE"
GROUP = "the training group is not installed: uv sync --group training"
WISHES = ("What time do you open?", "Do you have croissants?", "My dog died yesterday.", "Tell me a joke.", "Hello.")


def held_out(speaker: Speaker) -> bool:
    """Whether a voice is one that training never hears."""
    return (
        speaker.accent in HELD_OUT_ACCENTS
        or speaker.variant in HELD_OUT_VARIANTS
        or speaker.voice in HELD_OUT_RECORDED_VOICES.get(speaker.teacher, ())
        or any(share > 0.5 for name, share in speaker.mix if name in HELD_OUT_KOKORO_VOICES)
    )


@pytest.mark.parametrize("kind", ["espeak", "kokoro", "flite", "rhvoice"])
def test_voices_of_the_evaluation_are_never_heard_in_training(kind: str) -> None:
    rng = random.Random(0)
    usual = [caller(rng, kind) for _ in range(500)]
    others = [caller(rng, kind, held_out=True) for _ in range(500)]
    assert not any(held_out(speaker) for speaker in usual)
    assert all(held_out(speaker) for speaker in others)
    assert min(speaker.shift for speaker in usual) < 0.85 < 1.33 < max(speaker.shift for speaker in usual)
    assert min(speaker.tempo for speaker in usual) < 0.82 < 1.38 < max(speaker.tempo for speaker in usual)


def test_callers_are_of_kinds_that_there_are() -> None:
    with pytest.raises(ValueError, match="choose one of espeak, kokoro, flite, rhvoice, pico"):
        caller(random.Random(0), "human")
    with pytest.raises(ValueError, match="No voice of pico is held out"):
        caller(random.Random(0), "pico", held_out=True)


def test_half_of_the_lines_are_said_as_they_stand() -> None:
    rng = random.Random(1)
    lines = [said(rng, WISHES[0]) for _ in range(1000)]
    assert 0.4 < sum(line == WISHES[0] for line in lines) / 1000 < 0.6
    assert len(set(lines)) > 300
    assert all(line[0].isupper() and line.endswith("?") and "{" not in line for line in lines)


def test_words_around_a_wish_are_either_trained_on_or_held_out() -> None:
    rng = random.Random(2)
    reasons = [front for front in choices(table("manners")["reasons"]) if front.endswith(".")]
    begins = {front: front[0].upper() + front[1:] for front in reasons}
    heard: dict[bool, set[str]] = {False: set(), True: set()}
    for held, fronts in heard.items():
        for _ in range(16_000):
            line = manner(rng, rng.choice(WISHES), held)
            fronts.update(front for front in reasons if line.startswith(begins[front]))
    assert not heard[False] & heard[True]
    assert len(heard[False] | heard[True]) > 0.9 * len(reasons)
    assert all(is_held_out(f"manner {front}") for front in heard[True])


def test_who_has_given_a_name_gives_no_other() -> None:
    rng = random.Random(4)
    for wish in ("I'm Tom, and you are?", "Susan Hill here. Who are you?", "My name is Priya. What is yours?"):
        lines = [manner(rng, wish) for _ in range(300)]
        assert len(set(lines)) > 100
        names = {word for line in lines for word in re.findall(r"(?<![.?] )(?<!^)\b[A-Z][a-z]+", line)}
        assert names <= {"Tom", "Susan", "Hill", "Priya"}


def test_names_in_wordings_are_trained_on() -> None:
    wordings = [*phrases("name"), *phrases("name", held_out=True)]
    names = {word for text in wordings for word in re.findall(r"(?<!^)\b[A-Z][a-z]+|^[A-Z][a-z]+(?= here)", text)}
    assert len(names) > 20
    assert not [name for name in names if names_are_held_out(name)]


def test_a_pause_is_where_one_thinks() -> None:
    rng = random.Random(3)
    text = "Hi, um do you have bread?"
    found = [pause(rng, text) for _ in range(500)]
    places = {place for place, _ in filter(None, found)}
    assert places == {1, 2}
    assert 60 < sum(one is not None for one in found) < 140
    assert all(0.1 <= seconds <= 0.45 for _, seconds in filter(None, found))
    assert {pause(rng, "Hello.") for _ in range(50)} == {None}


def test_callers_of_a_shard_are_the_same_everywhere() -> None:
    drawn = list(calls("espeak", 7, 200))
    assert drawn == list(calls("espeak", 7, 200)) != list(calls("espeak", 8, 200))
    assert len({call.speaker for call in drawn}) == 200
    assert 60 < sum(call.wish == call.text for call in drawn) < 160
    assert all(call.pause is None or 0 < call.pause[0] < len(call.text.split()) for call in drawn)


def test_some_lines_wish_for_nothing_and_are_any_words() -> None:
    lines = [call for shard in range(4) for call in calls("espeak", shard, 250)]
    rambling = [call.text for call in lines if call.wish == ANYTHING]
    assert 0.2 < len(rambling) / len(lines) < 0.4
    assert len(set(rambling)) > 0.8 * len(rambling), "hardly one comes twice"
    assert all(word[0].isalpha() for text in rambling for word in text.split()), "each word has a sound"
    assert all(call.wish != ANYTHING for call in lines if call.text not in rambling)


def test_what_new_personas_sell_is_asked_for_by_lines_of_any_shards() -> None:
    lines = {call.wish for shard in range(30) for call in calls("espeak", shard, 1500)}
    rng = random.Random(6)
    goods = [exchange for _ in range(300) for exchange in episode(rng).exchanges if exchange.kind in ("price", "fact")]
    prices = [exchange for exchange in goods if exchange.kind == "price"]
    assert sum(not lines.isdisjoint(exchange.asks) for exchange in prices) > 0.5 * len(prices)
    facts = [exchange for exchange in goods if exchange.kind == "fact"]
    assert sum(not lines.isdisjoint(exchange.asks) for exchange in facts) > 0.6 * len(facts)
    spoken = [call.wish for shard in range(2) for call in calls("flite", shard, 800)]
    asked = {good.word for good in askable() if any(f" {good.word}" in wish for wish in spoken)}
    assert len(asked) > 200, "goods in turn, and not those of a few personas"


def test_a_pause_is_silence_before_a_word() -> None:
    pcm = np.full(24_000, 0.5, dtype=np.float32)
    spoken = Spoken(pcm, (0.1, 0.5, 0.7), ((0.1, "a"), (0.5, "b")))
    longer = paused(spoken, 1, 0.3)
    assert longer.words == pytest.approx((0.1, 0.8, 1.0))
    assert longer.phones == ((0.1, "a"), (0.8, "b"))
    assert len(longer.pcm) == 24_000 + 7_200
    quiet = np.flatnonzero(longer.pcm == 0) / 24_000
    assert 0.46 < quiet[0] < quiet[-1] < 0.8


def test_espeak_says_when_words_begin_that_it_must_read_otherwise() -> None:
    pytest.importorskip("espeakng_loader", reason=GROUP)
    espeak = Espeak()
    text = "Mhm, what time, hm, do you open?"
    for speaker in (Speaker("", accent="en", variant="f2"), caller(random.Random(5), "espeak", held_out=True)):
        spoken = espeak.say(text, replace(speaker, tempo=1.0))
        assert len(spoken.words) == len(text.split())
        assert list(spoken.words) == sorted(set(spoken.words))
        assert spoken.words[-1] < len(spoken.pcm) / 24_000 - 0.1
    assert len(espeak.read(text).words) == len(text.split())


def test_a_mark_by_itself_has_a_place_among_the_words_that_are_read() -> None:
    pytest.importorskip("espeakng_loader", reason=GROUP)
    espeak = Espeak()
    for text, words in (
        ("We have bread - and tea.", (0, 4, 9, 15, 15, 19)),
        ("- We have bread and tea.", (0, 0, 4, 9, 15, 19)),
        ("We have bread and tea. -", (0, 4, 9, 15, 19, 25)),
    ):
        reading = espeak.read(text)
        assert len(reading.phonemes) == 24
        assert len(reading.phonemes.split()) == 5, "a dash is no word"
        assert reading.words == words


def test_flite_says_when_words_begin() -> None:
    from training.flite import Flite

    try:
        flite = Flite()
    except click.ClickException as error:
        pytest.skip(error.message)
    text = "Hi, this is Dave Miller, um, what's the price of 2 croissants?"
    lengths = {}
    for voice in ("kal16", "awb", "slt"):
        for tempo in (0.8, 1.4):
            spoken = flite.say(text, Speaker(voice, teacher="flite", voice=voice, tempo=tempo, shift=1.1))
            assert len(spoken.words) == len(text.split())
            assert list(spoken.words) == sorted(set(spoken.words))
            assert spoken.words[0] < 0.3
            lengths[voice, tempo] = len(spoken.pcm) / 24_000
            assert spoken.words[-1] < lengths[voice, tempo] - 0.2
        assert lengths[voice, 0.8] > 1.4 * lengths[voice, 1.4]


def test_flite_tells_where_it_may_be_had(tmp_path: Path) -> None:
    from training.flite import Flite

    with pytest.raises(click.ClickException, match="Install Debian's package libflite1, or name the folder"):
        Flite(tmp_path)


def test_a_voice_tells_who_speaks_in_it() -> None:
    rng = random.Random(3)
    for kind in ("espeak", "kokoro", "flite", "rhvoice", "pico"):
        assert {teacher(caller(rng, kind).name) for _ in range(50)} == {kind}


@pytest.mark.unpackaged
def test_rhvoice_says_when_words_begin() -> None:
    from training.rhvoice import RHVoice

    if RHVOICE not in os.environ:
        pytest.skip(f"RHVoice is not here: {RHVOICE} names no folder with its libraries and data")
    rhvoice = RHVoice(Path(os.environ[RHVOICE]))
    text = "Hi, this is Dave Miller, um, what's the price of two croissants?"
    lengths = {}
    for voice in RECORDED_VOICES["rhvoice"]:
        for tempo in (0.8, 1.4):
            spoken = rhvoice.say(text, Speaker(voice, teacher="rhvoice", voice=voice, tempo=tempo, shift=1.1))
            assert len(spoken.words) == len(text.split())
            assert list(spoken.words) == sorted(spoken.words)
            lengths[voice, tempo] = len(spoken.pcm) / 24_000
            assert 0.6 * lengths[voice, tempo] < spoken.words[-1] < lengths[voice, tempo] - 0.2
        assert lengths[voice, 0.8] > 1.4 * lengths[voice, 1.4]
    with pytest.raises(click.ClickException, match="no voice 'nobody'"):
        rhvoice.say(text, Speaker("", teacher="rhvoice", voice="nobody"))
    with pytest.raises(click.ClickException, match="does not say"):
        rhvoice.say("", Speaker("", teacher="rhvoice", voice="bdl"))


def test_rhvoice_tells_what_it_wants(tmp_path: Path) -> None:
    from training.rhvoice import RHVoice
    from training.speech import Libraries, make_shard

    with pytest.raises(click.ClickException, match="name the folder that it makes"):
        RHVoice(tmp_path)
    with pytest.raises(click.ClickException, match="by --rhvoice"):
        make_shard("callers-rhvoice", tmp_path, 0, 1, Libraries())


def test_words_of_one_reading_are_found_in_another() -> None:
    pytest.importorskip("espeakng_loader", reason=GROUP)
    espeak = Espeak()
    text = "Hello there, I was wondering what you charge for a large pizza with mushrooms."
    one = espeak.say(text, Speaker(""))
    other = espeak.say(text, Speaker("", accent="en-gb-x-rp", variant="f2", tempo=0.8, shift=1.15))
    assert len(other.pcm) > 1.15 * len(one.pcm)
    found = aligned(one.pcm, one.words, other.pcm)
    assert np.abs(np.subtract(found, other.words)).mean() < 0.05
    assert np.abs(np.subtract(one.words, other.words)).mean() > 0.2, "not where they were"


def test_pico_says_when_words_begin(tmp_path: Path) -> None:
    pytest.importorskip("py_nanotts", reason=GROUP)
    from training.pico import Pico
    from training.speech import make_shard

    pico = Pico(Espeak())
    text = "Hi, this is Dave Miller, um, what is the price of two croissants?"
    lengths = {}
    for voice in ("en-US", "en-GB"):
        for tempo in (0.8, 1.4):
            spoken = pico.say(text, Speaker(voice, teacher="pico", voice=voice, tempo=tempo, shift=1.1))
            assert len(spoken.words) == len(text.split())
            assert list(spoken.words) == sorted(spoken.words)
            lengths[voice, tempo] = len(spoken.pcm) / 24_000
            assert len(set(spoken.words)) == len(spoken.words)
            assert spoken.words[0] < 0.3
            assert 0.6 * lengths[voice, tempo] < spoken.words[-1] < lengths[voice, tempo] - 0.2
        assert lengths[voice, 0.8] > 1.4 * lengths[voice, 1.4]
    assert make_shard("callers-pico", tmp_path, 3, 4) > 2
    lines = list(read_shard(tmp_path / "callers-pico-00003.json"))
    assert {teacher(line.record.speaker) for line in lines} == {"pico"}
    assert len(lines) == 4


def test_a_shard_has_wordings_once_and_episodes_have_them_all(tmp_path: Path) -> None:
    asks = tuple(f"What is number {n}?" for n in range(200))
    episodes = {
        f"kokoro-0.{n}": Episode(
            "service", "", "", "", "", "Hi.", (Exchange("a", asks, str(n)), Exchange("b", asks[:3], "b")), ("What?",)
        )
        for n in range(16)
    }
    spoken = Spoken(np.array([0.5, -0.5], dtype=np.float32), (0.0,), ())
    line = Said("callers-espeak-0.0/caller", "en+f1", "Um, what is number 3?", spoken, asks[3])
    assert write_shard(tmp_path / "shard", episodes, [line]) == pytest.approx(2 / 24_000)
    path = tmp_path / "shard.json"
    assert len(re.findall(r"What is number 7\?", path.read_text())) == 1
    index = read_index(path)
    assert index.episodes == episodes
    (read,) = read_shard(path)
    assert (read.record.wish, read.record.text, read.record.speaker) == (asks[3], line.text, "en+f1")
    assert read.pcm == pytest.approx([0.5, -0.5], abs=1e-4)
    assert not read.recorded.flags.owndata, "sound stays in the file"
