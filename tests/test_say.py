"""An agent says what it is given, and nothing else of its call changes, nor of anybody else's."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.boot.checkpoint_source import NANO
from core.boot.local_engine import open_engine
from core.engine.architecture import END_OF_PADDING, PADDING
from core.engine.call import FRAME_SAMPLES, MAX_SENTENCE, MAX_SENTENCES, Call, Engine, OutputFrame
from core.engine.prompt import Prompt
from core.engine.sampling import Sampling
from core.engine.scheduler import SlotEngine
from core.engine.speech_queue import LONGEST_WAIT_FRAMES, LONGEST_WORD_FRAMES, MAX_PADDINGS, PAUSE_FRAMES
from core.engine.tokenizer import SentencePieceTokenizer
from core.errors import PersonaplexError, SayError
from core.settings.sections import EngineConfig
from core.testing import EchoEngine
from tests.engines import frame_of, persona, speech, tiny_engine

SILENCE = np.zeros(FRAME_SAMPLES, np.float32)
TOKENIZER = SentencePieceTokenizer(NANO / "tokenizer_spm_32k_3.model")
SENTENCES = ("Your table is booked for seven on Friday.", "I am sorry, I can only talk about green umbrellas.")


@pytest.fixture(scope="module")
def nano() -> Iterator[Engine]:
    engine = open_engine(EngineConfig(name="nano", device="cpu", slots=4), lambda _: None)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture
def tiny(weights: Path) -> Iterator[SlotEngine]:
    """A model whose own text is random words, of which the first words of tests make no part."""
    engine = tiny_engine(weights)
    yield engine
    engine.close()


async def listen(call: Call, frames: int) -> list[OutputFrame]:
    """Be silent for some frames, one at a time, and return what the agent answers."""
    answers, heard = call.frames(), []
    for _ in range(frames):
        call.push(SILENCE)
        heard.append(await anext(answers))
    return heard


async def listen_to_end(call: Call, sentences: int = 1) -> list[OutputFrame]:
    """Be silent until so many sentences have been said."""
    heard: list[OutputFrame] = []
    while sum(frame.sentence_ended for frame in heard) < sentences:
        heard += await listen(call, 1)
        assert len(heard) < 2000, "the sentences never end"
    return heard


def said(frames: Sequence[OutputFrame]) -> str:
    """The text that was given, among these frames."""
    return "".join(frame.text for frame in frames if frame.said).strip()


def tokens(frames: Sequence[OutputFrame]) -> list[list[int]]:
    return [frame.tokens.tolist() for frame in frames]


@pytest.mark.parametrize("voice", [0, 3])
async def test_a_sentence_is_said_first_word_for_word_when_it_was_given_before_the_prompt_was_read(
    nano: Engine, voice: int
) -> None:
    call = nano.open(Prompt("You are a guide.", nano.voice(nano.voices()[voice])), Sampling(seed=voice))
    for sentence in SENTENCES:
        call.say(sentence)
    await call.ready()
    heard = await listen_to_end(call, len(SENTENCES))
    await call.close()
    assert "".join(frame.text for frame in heard).strip() == " ".join(SENTENCES)
    assert said(heard) == " ".join(SENTENCES), "a frame says that its text was not given"
    assert max(float(np.abs(frame.pcm).max()) for frame in heard) > 0.05, "nothing is heard"


@pytest.mark.slow
async def test_a_sentence_waits_until_the_agents_own_words_end(nano: Engine) -> None:
    call = nano.open(Prompt("You are a guide.", nano.voice(nano.voices()[0])), Sampling(seed=1))
    await call.ready()
    greeting = await listen(call, 20)
    assert any(frame.text for frame in greeting), "the agent does not greet, so it cannot be disturbed"
    call.say(SENTENCES[0])
    heard = await listen_to_end(call)
    await call.close()
    first = next(index for index, frame in enumerate(heard) if frame.said)
    before = [frame.tokens[0] for frame in greeting + heard[:first]]
    assert all(token in (PADDING, END_OF_PADDING) for token in before[-PAUSE_FRAMES:])
    assert said(heard) == "".join(frame.text for frame in heard[first:]).strip() == SENTENCES[0]


async def test_a_sentence_that_interrupts_takes_the_place_of_all_others_at_the_next_word(nano: Engine) -> None:
    call = nano.open(Prompt("You are a guide.", nano.voice(nano.voices()[0])), Sampling(seed=1))
    call.say("One two three four five six seven eight nine ten.")
    call.say("This is never said.")
    await call.ready()
    heard: list[OutputFrame] = []
    while "three" not in said(heard):
        heard += await listen(call, 1)
    call.say(SENTENCES[0], interrupt=True)
    heard += await listen_to_end(call)
    await call.close()
    begun, _, rest = said(heard).partition(" Your")
    assert "One two three four five six".startswith(begun), begun
    assert f"Your{rest}" == SENTENCES[0]
    assert sum(frame.sentence_ended for frame in heard) == 1, "a sentence that was dropped has no end"


async def test_a_sentence_that_interrupts_the_agents_own_words_begins_behind_one(nano: Engine) -> None:
    call = nano.open(Prompt("You are a guide.", nano.voice(nano.voices()[0])), Sampling(seed=1))
    await call.ready()
    heard: list[OutputFrame] = []
    while not any(frame.text for frame in heard):
        heard += await listen(call, 1)
    call.say(SENTENCES[0], interrupt=True)
    after = await listen_to_end(call)
    await call.close()
    first = next(index for index, frame in enumerate(after) if frame.said)
    assert first <= LONGEST_WORD_FRAMES + MAX_PADDINGS
    assert "".join(frame.text for frame in after[first:]).strip() == SENTENCES[0]


@pytest.mark.slow
async def test_the_agent_falls_silent_and_speaks_again(nano: Engine) -> None:
    call = nano.open(Prompt("You are a guide.", nano.voice(nano.voices()[0])), Sampling(seed=1))
    call.say("One two three four five six seven eight nine ten.")
    call.say("This is never said.")
    await call.ready()
    heard: list[OutputFrame] = []
    while "three" not in said(heard):
        heard += await listen(call, 1)
    call.hush()
    after = await listen(call, PAUSE_FRAMES + 8)
    rest = "".join(frame.text for frame in after)
    assert "".join(frame.text for frame in heard).strip() + rest in "One two three four five six", "words go on"
    assert not any(frame.text for frame in after[8:])
    assert float(np.abs(after[-1].pcm).max()) < 0.02, "it is still heard"
    call.say(SENTENCES[1])
    assert said(await listen_to_end(call)) == SENTENCES[1]
    await call.close()


@pytest.mark.slow
async def test_a_talkative_agent_is_not_silent_for_ever_and_lets_a_sentence_in(tiny: SlotEngine) -> None:
    """The model of these tests has words in almost every frame, and never pauses."""
    call = tiny.open(persona(1), Sampling(seed=1))
    await call.ready()
    await listen(call, 3)
    call.hush()
    heard = await listen(call, LONGEST_WAIT_FRAMES + 3)
    silent = [frame.tokens[0] == PADDING for frame in heard]
    assert all(silent[1 : LONGEST_WAIT_FRAMES + 1])
    assert not all(silent)
    await listen(call, 3)
    call.say("11-12 13")
    heard = await listen_to_end(call)
    assert len(heard) > PAUSE_FRAMES
    assert [frame.tokens[0] for frame in heard if frame.said] == [11, 12, 13]
    call.say("14 15-16", interrupt=True)
    heard = await listen_to_end(call)
    assert len(heard) <= LONGEST_WORD_FRAMES + 3 * (MAX_PADDINGS + 2)
    assert [frame.tokens[0] for frame in heard if frame.said] == [14, 15, 16]
    await call.close()


async def converse(engine: SlotEngine, number: int, sentences: dict[int, str]) -> tuple[list[list[int]], list[bool]]:
    """A caller's tokens, and which of them were given, where each of `sentences` is given before a frame."""
    call = engine.open(persona(number), Sampling(seed=number))
    await call.ready()
    answers, heard = call.frames(), []
    for index, codes in enumerate(speech(number, 40)):
        if index in sentences:
            call.say(sentences[index], interrupt=index % 2 == 0)
        call.push(frame_of(codes))
        heard.append(await anext(answers))
    await call.close()
    return tokens(heard), [frame.said for frame in heard]


@pytest.mark.slow
async def test_who_talks_beside_it_hears_the_same_bit_for_bit_and_so_does_who_asks_for_the_same_again(
    tiny: SlotEngine,
) -> None:
    sentences = {0: "21 22-23-24 25", 13: "26-27 28", 20: "29 30"}
    (beside, _), (silent, none), (spoken, given) = await asyncio.gather(
        converse(tiny, 1, {}), converse(tiny, 2, {}), converse(tiny, 3, sentences)
    )
    assert not any(none)
    assert sum(given) >= 5
    again, beside_again = await asyncio.gather(converse(tiny, 3, sentences), converse(tiny, 1, sentences))
    assert again == (spoken, given)
    assert beside_again[0] != beside
    assert (await converse(tiny, 1, {}))[0] == beside, "what was said once is left in the slot"
    assert (await converse(tiny, 2, {}))[0] == silent


@pytest.mark.slow
async def test_what_is_given_shifts_no_random_numbers(tiny: SlotEngine) -> None:
    """A word of the very tokens that the agent chooses itself changes nothing."""
    plain, _ = await converse(tiny, 5, {})
    _, given = await converse(tiny, 5, {2: "7"})
    begin = given.index(True)
    own = [row[0] for row in plain[begin : begin + 4]]
    assert not {PADDING, END_OF_PADDING} & set(own), "these tokens cannot be given"
    spoken, given = await converse(tiny, 5, {2: "-".join(map(str, own))})
    assert sum(given) == len(own)
    assert spoken == plain


def test_characters_outside_the_vocabulary_are_spelled_in_bytes() -> None:
    detokenizer = TOKENIZER.detokenizer()
    pieces = [token for word in TOKENIZER.words("Żółć, 日本 and 😀" + "é" * 50) for token in word]
    assert "".join(detokenizer.decode(token) for token in pieces).split() == ["Żółć,", "日本", "and", "😀" + "é" * 50]


@pytest.fixture(params=["tiny", "echo"])
async def open_call(request: pytest.FixtureRequest, weights: Path) -> AsyncIterator[Call]:
    engine: Engine = tiny_engine(weights) if request.param == "tiny" else EchoEngine()
    call = engine.open(Prompt("5 6 7"), Sampling(seed=1))
    yield call
    await call.close()
    engine.close()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("1 " * (MAX_SENTENCE // 2) + "2", "at most 1000 characters"),
        ("\ud800", "surrogate"),
        ("1 \x00", "control character"),
        ("<system> 5", "only prompts"),
        (None, "NoneType"),
        (b"5", "bytes"),
    ],
)
async def test_what_cannot_be_said_is_refused_with_a_sentence(open_call: Call, text: str, problem: str) -> None:
    with pytest.raises(SayError, match=problem):
        open_call.say(text)
    await open_call.ready()
    assert not any(frame.said for frame in await listen(open_call, 5))


async def test_sixteen_sentences_may_wait(open_call: Call) -> None:
    for number in range(MAX_SENTENCES):
        open_call.say(str(5 + number))
    with pytest.raises(SayError, match="16 sentences are waiting"):
        open_call.say("9")
    await open_call.ready()
    heard = await listen_to_end(open_call, MAX_SENTENCES)
    assert said(heard).split() == [str(5 + number) for number in range(MAX_SENTENCES)]
    open_call.say("9")
    open_call.say("8", interrupt=True)
    assert said(await listen_to_end(open_call)) == "8"


async def test_nothing_is_said_after_the_end(open_call: Call) -> None:
    open_call.say("5 6")
    await open_call.ready()
    open_call.say("5 6")
    await open_call.close()
    for interrupt in (False, True):
        with pytest.raises(SayError, match="has ended"):
            open_call.say("5", interrupt)
    open_call.hush()


async def test_nothing_is_said_in_a_call_that_failed(tiny: SlotEngine) -> None:
    call = tiny.open(persona(1), Sampling(seed=1))
    await call.ready()
    tiny.close()
    with pytest.raises(PersonaplexError):
        await listen(call, 1)
    with pytest.raises(SayError, match="has ended"):
        call.say("5")
    await call.close()


async def test_orders_in_the_midst_of_a_step_are_kept(tiny: SlotEngine) -> None:
    """Frames are answered while the event loop gives orders, at whatever moment of a step."""
    call = tiny.open(persona(1), Sampling(seed=1))
    await call.ready()
    answers = call.frames()
    for number in range(60):
        call.push(SILENCE)
        call.say(f"{100 + number}-7 8", interrupt=True)
        if number % 7 == 0:
            call.hush()
        await anext(answers)
    call.say("20-21 22", interrupt=True)
    heard = await listen_to_end(call)
    await call.close()
    given = [int(frame.tokens[0]) for frame in heard if frame.said]
    assert given[-3:] == [20, 21, 22]
    assert len(given) <= 5, "more is left of the sentences before than a word"


@given(st.text(max_size=60))
@settings(deadline=None, max_examples=300)
def test_any_text_is_spelled_or_refused(text: str) -> None:
    try:
        words = TOKENIZER.words(text)
    except SayError:
        return
    detokenizer = TOKENIZER.detokenizer()
    pieces = [token for word in words for token in word]
    assert not {PADDING, END_OF_PADDING} & set(pieces)
    spelled = "".join(detokenizer.decode(token) for token in pieces)
    again = [token for word in TOKENIZER.words(spelled) for token in word]
    assert again == pieces, "what the frames' text says is not what was asked for"


@given(text=st.text(alphabet=st.characters(codec=None), max_size=1200), interrupt=st.booleans())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_taken_or_refused_at_once(nano: Engine, text: str, interrupt: bool) -> None:
    async def say() -> None:
        call = nano.open(Prompt("You are a guide."), Sampling(seed=1))
        try:
            with contextlib.suppress(SayError):
                call.say(text, interrupt)
        finally:
            await call.close()

    asyncio.run(say())
