"""Conversations: who speaks when, what is written down of it, and what callers do besides asking."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE
from core.engine.prompt import SpecialCodes
from tests.agents_lines import add_agents_lines
from training.callers import Callers, utterance
from training.calling import ANYTHING
from training.composer import Composer
from training.conversations import ANSWER, PAUSE, TALK, YIELD
from training.dialogues import PADDING, Dialogue
from training.encoded import CallerLine, Lines
from training.episodes import Episode, Exchange
from training.shape import ARCHITECTURE
from training.teachers import MARGIN
from training.tokenizer import make_tokenizer, read_tokenizer

pytestmark = pytest.mark.training
VOICES = ("ann", "bob")
LOOSE = {
    "backchannel": ("mhm",),
    "interruption": ("wait",),
    "statement": tuple(f"I was at place {place}." for place in ("one", "two", "three", "four", "five", "six")),
}
FACTS = ("name", "hours", "price", "where")
EPISODE = Episode(
    "service",
    "Your name is Ada. You work at Nowhere Bakes.",
    "Ada",
    "Ada",
    "Nowhere Bakes",
    "Hello, this is Ada, how can I help you?",
    tuple(
        Exchange(kind, (f"Tell me the {kind}, please.", f"And the {kind}?"), f"This is what I say about {kind} today.")
        for kind in (*FACTS, "joke", "robot", "garbled")
    ),
    ("Sorry, once more?",),
)
RAMBLED = "Never heard such words before and not in any order."


def caller_line(text: str, voice: str) -> CallerLine:
    """Words of 0.3 s each, as loud noise between margins of silence; its middle tells whose it is."""
    count = len(text.split())
    quiet = np.zeros(int(MARGIN * SAMPLE_RATE), dtype=np.int16)
    loud = np.full(int(0.3 * count * SAMPLE_RATE), 5000 + VOICES.index(voice), dtype=np.int16)
    words = tuple(MARGIN + 0.3 * place for place in range(count))
    return CallerLine(np.concatenate([quiet, loud, quiet]), text, words, voice)


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory: pytest.TempPathFactory) -> list[Dialogue]:
    return composed(tmp_path_factory.mktemp("conversations"), 600, 120)


@pytest.fixture(scope="module")
def long_ones(tmp_path_factory: pytest.TempPathFactory) -> list[Dialogue]:
    return composed(tmp_path_factory.mktemp("long"), 1500, 60)


def composed(folder: Path, positions: int, count: int) -> list[Dialogue]:
    make_tokenizer(folder / "tokenizer.model", 400, count=150)
    lines = Lines()
    add_agents_lines(lines, "kokoro-0", EPISODE.lines(), frames=5, seconds=0.4)
    for text in (*EPISODE.asks(), *(text for kind in LOOSE.values() for text in kind)):
        lines.callers[text] = [caller_line(text, voice) for voice in VOICES]
    lines.callers[ANYTHING] = [caller_line(RAMBLED, voice) for voice in VOICES]
    special = SpecialCodes(silence=tuple(range(8)), sine=tuple(range(8, 16)))
    tokenizer = read_tokenizer(folder / "tokenizer.model")
    composer = Composer(lines, {"kokoro-0": EPISODE}, tokenizer, special, ARCHITECTURE, LOOSE, spliced=0.0)
    rng = random.Random(1)
    return [composer.compose(rng, positions) for _ in range(count)]


def stretches(dialogue: Dialogue) -> list[tuple[int, int]]:
    """The frames (begin, end) in which the agent speaks."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], dialogue.speaking.astype(int), [0]])))
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]


def said(dialogue: Dialogue) -> list[tuple[float, float]]:
    """When the caller speaks, in frames."""
    return [(start / FRAME_SAMPLES, (start + len(sound)) / FRAME_SAMPLES) for start, sound in dialogue.caller]


def test_an_utterance_has_its_words_with_their_ends() -> None:
    made = utterance(caller_line("Tell me more.", "ann"))
    assert len(made.sound) / SAMPLE_RATE == pytest.approx(0.9 + 2 * MARGIN, abs=0.001)
    assert made.words == ("Tell", "me", "more.")
    assert [end / SAMPLE_RATE for end in made.ends] == pytest.approx(
        [MARGIN + end for end in (0.3, 0.6, 0.9)], abs=0.001
    )


def test_callers_speak_one_at_a_time_and_mostly_in_one_voice(dialogues: list[Dialogue]) -> None:
    faithful = 0
    for dialogue in dialogues:
        times = said(dialogue)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(times))
        faithful += len({int(sound[len(sound) // 2]) for _, sound in dialogue.caller} & {5000, 5001}) <= 1
    assert 0.75 * len(dialogues) < faithful < len(dialogues)


def test_the_agent_answers_when_the_caller_has_finished(dialogues: list[Dialogue]) -> None:
    """Each time longer after the last words than any pause lasts."""
    for dialogue in dialogues:
        times = said(dialogue)
        for begin, _ in stretches(dialogue)[1:]:
            if dialogue.given[begin]:
                continue
            assert begin - max(end for _, end in times if end <= begin) >= ANSWER[0] - 0.01
    assert PAUSE[1] * SAMPLE_RATE < ANSWER[0] * FRAME_SAMPLES


def test_what_the_agent_is_given_to_say_is_marked(dialogues: list[Dialogue]) -> None:
    """Its words are all within, so that none is taken for what the agent would say by itself."""
    marked = 0
    for dialogue in dialogues:
        for begin, end in stretches(dialogue):
            given = dialogue.given[begin:end]
            assert given.all() or not given.any()
            marked += bool(given.any())
        words = dialogue.text != PADDING
        soon = np.concatenate([dialogue.speaking[3:], np.ones(3, dtype=np.bool_)])  # The end may cut it off.
        assert (dialogue.speaking | soon)[words & dialogue.given].all()
    assert marked > 0


def test_the_agent_misses_turns_and_comes_back(long_ones: list[Dialogue]) -> None:
    """Its silence is not learned from the caller's last word on, but while the caller speaks; then it answers again."""
    missed, returned, most = 0, 0, 0
    for dialogue in long_ones:
        spans, in_a_row = said(dialogue), 0
        for (_, end), (begin, following) in pairwise([*spans, (float(len(dialogue.text)), 0.0)]):
            first, last = int(end) + 1, int(begin)
            if dialogue.speaking[first:last].any():
                returned, in_a_row = returned + bool(in_a_row), 0
            if dialogue.speaking[first:last].any() or not dialogue.given[first:last].any():
                continue
            in_a_row += 1
            missed, most = missed + 1, max(most, in_a_row)
            assert dialogue.given[first + 1 : last].all()
            assert not dialogue.given[last + 1 : int(following)].any()
    assert missed > 30
    assert returned > 10
    assert most >= 4


def test_a_word_is_written_down_when_its_end_has_been_heard() -> None:
    dialogue = Dialogue.silent(np.zeros((5, 17), dtype=np.int64), 60, SpecialCodes(), sounds=True)
    ada = utterance(caller_line("Hello Ada.", "ann"))
    pieces = {"Hello": [10, 11], "Ada.": [12, 13, 14, 15]}
    margin = len(ada.sound) - int(0.6 * SAMPLE_RATE)
    end = dialogue.say(ada, 20 * FRAME_SAMPLES - margin // 2, pieces.__getitem__)
    assert dialogue.heard[:26].tolist() == [PADDING] * 26
    assert dialogue.heard[26:30].tolist() == [10, 11, PADDING, PADDING]
    dialogue.say(utterance(caller_line("Ada.", "ann")), end - margin, pieces.__getitem__)
    assert dialogue.heard[30:39].tolist() == [12, 13, 14, 15, 12, 13, 14, 15, PADDING]


def test_what_callers_say_is_written_down(dialogues: list[Dialogue]) -> None:
    unheard, count = 0, 0
    for dialogue in dialogues:
        spans = said(dialogue)
        for place in np.flatnonzero(dialogue.heard != PADDING):
            assert any(begin < place for begin, _ in spans)
        for (begin, end), (following, _) in pairwise([*spans, (float(len(dialogue.heard)), 0.0)]):
            if end + 20 < following:
                count += 1
                unheard += not (dialogue.heard[int(begin) : int(end) + 4] != PADDING).any()
    assert 0 < unheard < 0.25 * count, "only what is garbled is not"


def test_callers_do_more_than_ask(dialogues: list[Dialogue]) -> None:
    silent = sum(not dialogue.caller for dialogue in dialogues)
    early = sum(bool(dialogue.caller) and said(dialogue)[0][0] < stretches(dialogue)[0][0] for dialogue in dialogues)
    over, stopped, two = 0, 0, 0
    whole = 5 * 8
    for dialogue in dialogues:
        for begin, end in stretches(dialogue):
            during = [start for start, _ in said(dialogue) if begin < start < end]
            if during and end - begin < whole and end < len(dialogue.text):
                stopped += 1
                assert YIELD[0] <= end - int(during[0]) <= YIELD[1]
            over += bool(during) and end - begin >= whole
        talk = stretches(dialogue)
        two += sum(1 <= begin - end <= 5 for (_, end), (begin, _) in pairwise(talk))
    assert 0 < silent < 20
    assert 0 < early < 25
    assert stopped > 10
    assert over > 10, "the agent goes on over a backchannel"
    assert two > 10, "two questions are answered one after the other"


def test_long_calls_have_long_monologues(long_ones: list[Dialogue]) -> None:
    longest = []
    for dialogue in long_ones:
        marks = [0, *(edge for span in stretches(dialogue) for edge in span), len(dialogue.text)]
        quiet = zip(marks[::2], marks[1::2], strict=True)
        spoken = [sum(e - b for b, e in said(dialogue) if first <= b and e <= last) for first, last in quiet]
        longest.append(max(spoken) / 12.5)
    assert max(longest) > 20


def test_callers_also_say_what_wishes_for_nothing(dialogues: list[Dialogue]) -> None:
    length = len(utterance(caller_line(RAMBLED, "ann")).sound)
    assert sum(len(sound) == length for dialogue in dialogues for _, sound in dialogue.caller) > 10


def test_garbled_speech_is_different_and_not_louder() -> None:
    rng = random.Random(0)
    line = caller_line("Tell me the name, please.", "ann")
    noise = (6000 * np.random.default_rng(0).standard_normal(len(line.pcm))).clip(-20_000, 20_000).astype(np.int16)
    callers = Callers({"name": [CallerLine(noise, line.text, line.words, "ann")]})
    plain = callers.say(rng, ["name"], "ann")
    assert plain is not None
    for _ in range(20):
        garbled = callers.garble(rng, plain)
        assert garbled is not None
        assert not garbled.words
        assert len(garbled.sound) == len(plain.sound)
        assert not np.array_equal(garbled.sound, plain.sound)
        assert np.abs(garbled.sound).max() <= 1.21 * np.abs(plain.sound).max()


def test_a_conversation_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    one, other = composed(tmp_path, 600, 3), composed(tmp_path, 600, 3)
    for first, second in zip(one, other, strict=True):
        assert np.array_equal(first.text, second.text)
        assert np.array_equal(first.heard, second.heard)
        assert [start for start, _ in first.caller] == [start for start, _ in second.caller]
    assert TALK.isdisjoint(FACTS)
