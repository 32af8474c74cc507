"""Greetings and guardrails: the agent says what is written for it, and not what it must not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.plugin.acting import SessionControl
from core.plugin.hookspecs import hookimpl
from core.session.protocol import CloseCode, Kind
from core.testing import EchoEngine
from plugins.guardrail import FADE_FRAMES, CompiledRule, Rule
from tests.caller import Caller, dial
from tests.conftest import Running, Serve
from tests.plugin_folder import Folder
from tests.test_builtin_plugins import Logged, logged  # noqa: F401 - a fixture

SORRY = "I am sorry, no refund."
LOUD = np.full(1920, 0.25, np.float32)


def rules(*some: dict[str, Any]) -> dict[str, Any]:
    return {"plugins": {"disabled": ["loudness"], "options": {"guardrail": {"rules": list(some)}}}}


async def hear(caller: Caller, frames: int) -> list[bool]:
    """Talk for some frames; whether each was answered by sound."""
    answer = await caller.talk(np.tile(LOUD, frames))
    return [bool(np.abs(frame).max() > 0.1) for frame in answer.reshape(-1, 1920)]


async def call(running: Running, frames: int) -> tuple[str, list[bool]]:
    """What the agent says in a call, and in which frames it is heard."""
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        sound = await hear(caller, frames)
        return "".join(caller.words), sound


# greeting


async def test_the_agent_says_the_greeting_of_its_persona_first(serve: Serve, tmp_path: Path) -> None:
    on = {"plugins": {"options": {"greeting": {"enabled": True}}}, "personas": {"default": "teacher"}}
    running = await serve(**on)
    persona = tmp_path / "personas" / "teacher.yaml"
    persona.write_text(persona.read_text() + "greeting: Good morning, class!\n")
    assert (await call(running, 4))[0].startswith(" Good morning, class!")
    async with dial(running.url("/ws/chat?audio=pcm&persona=assistant"), "pcm") as caller:
        await caller.shake_hands()
        await hear(caller, 2)
        assert caller.words == [" word0"]  # who has no greeting begins as before


async def test_a_greeting_is_not_said_where_the_plugin_is_off(serve: Serve, tmp_path: Path) -> None:
    running = await serve()
    persona = tmp_path / "personas" / "assistant.yaml"
    persona.write_text(persona.read_text() + "greeting: Good morning, class!\n")
    assert (await call(running, 2))[0] == " word0"


# guardrail


async def test_what_must_not_be_said_is_muted_at_once_and_a_sentence_takes_its_place(
    serve: Serve,
    logged: Logged,  # noqa: F811
) -> None:
    text = [" You", " get", " a", " re", "fund", " in", " cash", " at", " once", " from", " me"] + [" bla"] * 50
    running = await serve(EchoEngine(text=text), **rules({"words": ["Refund"], "say": SORRY}))
    words, sound = await call(running, 40)
    # "re" + "fund" is the word if it ends there, which the next piece says; the sentence comes when that has faded.
    assert sound[:5] == [True] * 5
    assert not any(sound[5 : 5 + FADE_FRAMES])
    assert words.startswith(f" You get a refund {SORRY}")
    heard_again = sound.index(True, 5)
    assert all(sound[heard_again:])
    assert heard_again <= 5 + FADE_FRAMES + 3
    (line,) = [line for line in logged() if line["event"] == "a rule was broken"]
    assert (line["rule"], line["side"]) == ("rule 1", "agent")
    assert "refund" not in json.dumps(logged()).lower()


async def test_a_longer_word_that_begins_so_is_heard_again_at_once(serve: Serve) -> None:
    text = [" he", "ll", "o", " there", "", ""]
    running = await serve(EchoEngine(text=text), **rules({"words": ["hell"], "say": SORRY}))
    words, sound = await call(running, 12)
    assert sound == [True, True, False] + [True] * 9  # for the frame in which nobody could know
    assert SORRY not in words


async def test_a_word_at_the_very_end_is_found_although_nothing_follows(serve: Serve) -> None:
    running = await serve(EchoEngine(text=[" hell"]), **rules({"words": ["hell"], "say": SORRY}))
    words, sound = await call(running, 30)
    assert words == f" hell {SORRY}"
    assert sound[0]
    assert not any(sound[1:8])
    assert all(sound[12:])


async def test_the_sentence_of_a_rule_may_hold_what_it_forbids_and_the_rule_holds_on(serve: Serve) -> None:
    text = [" refund", ""] + [""] * 30 + [" refund", ""] + [""] * 30
    running = await serve(EchoEngine(text=text), **rules({"words": ["refund"], "say": SORRY}))
    words, _ = await call(running, 64)
    assert words == f" refund {SORRY} refund {SORRY}"


async def test_a_rule_may_end_the_call_after_its_sentence(serve: Serve) -> None:
    running = await serve(
        EchoEngine(text=[" 4", "0", "1", "2", " is"]), **rules({"patterns": [r"\d{4}"], "say": SORRY, "end": True})
    )
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        await caller.say(np.tile(LOUD, 5))
        while await caller.next() != Kind.ERROR:
            if caller.kinds[-1] == Kind.AUDIO:
                await caller.say(LOUD)
        assert await caller.end() == CloseCode.PLUGIN
        assert "".join(caller.words).endswith(SORRY)
    assert "must not be talked about" in caller.error


async def test_a_rule_without_a_sentence_ends_the_call_at_once(serve: Serve) -> None:
    running = await serve(EchoEngine(text=[" bye", " now"]), **rules({"name": "byes", "words": ["bye"], "end": True}))
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        await caller.say(np.tile(LOUD, 2))
        assert await caller.end() == CloseCode.PLUGIN


class Ears:
    """A plugin that hears a caller ask for a human, in the tenth frame."""

    @hookimpl
    def open_session(self, control: SessionControl) -> "Ears":
        ears = Ears()
        ears.control, ears.frames = control, 0
        return ears

    control: SessionControl
    frames: int

    async def caller_frame(self, frame: object) -> None:
        self.frames += 1
        if self.frames == 10:
            self.control.caller_said("Can I talk to a HUMAN?", 0, 700)


async def test_what_a_caller_says_is_answered_without_a_mute(serve: Serve) -> None:
    running = await serve(
        extra=(Ears(),), **rules({"side": "caller", "words": ["a human"], "say": "One moment, please."})
    )
    words, sound = await call(running, 30)
    assert "One moment, please." in words
    assert all(sound)


def found(text: str, **rule: Any) -> str:
    return CompiledRule(Rule(say="No.", **rule), 1).found_in(text)


@pytest.mark.parametrize(
    ("text", "word", "verdict"),
    [
        ("a refund for you", "refund", "surely"),
        ("a ReFuNd", "refund", "perhaps"),
        ("refunds for all", "refund", ""),
        ("a prerefund of it", "refund", ""),
        ("money  back now", "Money Back", "surely"),
        ("die STRASSE dort", "straße", "surely"),
        ("ein Kaffe\u0301e dort", "kaff\u00e9e", "surely"),
        ("ΟΔΟΣ και", "οδος", "surely"),
        ("refund, refund", "refund", "surely"),
        ("don't you", "don't", "surely"),
    ],
)
def test_words_are_found_as_people_read_them(text: str, word: str, verdict: str) -> None:
    assert found(text, words=(word,)) == verdict


@given(st.text(alphabet="ab -\u0301é", max_size=12), st.data())
def test_it_does_not_matter_in_which_pieces_a_text_comes(text: str, data: st.DataObject) -> None:
    """A rule that is broken by a beginning is broken, or suspected, by what has come when that is whole."""
    rule = CompiledRule(Rule(words=("ab", "b a"), say="No."), 1)
    whole = rule.found_in(text + " ")
    cut = data.draw(st.integers(0, len(text)))
    if rule.found_in(text[:cut]) == "surely" and not text[cut:].startswith("\u0301"):
        assert whole == "surely"


BAD = {
    "rules: [{say: No.}]": "a rule has words or patterns",
    "rules: [{words: [a]}]": "a rule has say, the sentence for its case, or end: true, or both.",
    "rules: [{words: ['!'], say: No.}]": "holds no letter",
    "rules: [{patterns: ['('], say: No.}]": "is no regular expression",
    "rules: [{patterns: ['a*'], say: No.}]": "matches no text at all",
    "rules: [{words: [a], say: No., sid: agent}]": "sid",
    "rules: [{words: [a], say: No., side: both}]": "rules[0].side",
    "rules: {words: [a]}": "rules: expected array",
    f"rules: [{{words: [a], say: {'x' * 1001}}}]": "rules[0].say",
}


@pytest.mark.parametrize("options", BAD)
def test_a_rule_that_is_wrong_stops_the_start_with_its_place(tmp_path: Path, options: str) -> None:
    problems = Folder(tmp_path).problems(f"plugins: {{options: {{guardrail: {{{options}}}}}}}")
    assert "plugins.options.guardrail" in problems
    assert BAD[options] in problems
