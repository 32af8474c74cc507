"""Words that must not be said: when the agent begins to, it is muted at once and says a sentence of yours instead.

Off while it has no rules. In config.yaml:

    plugins:
      options:
        guardrail:
          rules:
            - words: [refund, money back]
              say: I am sorry, I can only talk about your order.
            - {name: account numbers, patterns: ['\\d{4}'], say: I must not read out numbers., end: true}
            - {side: caller, words: [human], say: 'One moment, please.'}

The log names the rule and never what was said.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from core import AgentText, CallerText, Frame, SayError, SessionControl, get_logger, hookimpl

KEPT = 500
"""Characters of the agent's latest words, in which a rule is looked for."""
SUSPECT_FRAMES = 3
"""A word goes on in the next frame if it goes on at all; after so many, 0.24 s, it is whole."""
FADE_FRAMES = 5
"""How long a word may sound after its text, 0.4 s; then the agent is heard again, and says the sentence."""
QUIET_FRAMES = 20
"""So many frames without a word of the sentence, 1.6 s, end it: its sound has ended, or it does not come at all."""
ENDED = "The call has ended: it came to what must not be talked about."


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one side must not say, and what the agent says then."""

    name: str = ""
    """For the log; the rule's number without it."""
    side: Literal["agent", "caller"] = "agent"
    words: tuple[Annotated[str, msgspec.Meta(min_length=1)], ...] = ()
    """Whole words, or several in a row, in capitals or small letters."""
    patterns: tuple[Annotated[str, msgspec.Meta(min_length=1)], ...] = ()
    """Python's regular expressions; capitals and small letters are the same."""
    say: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    end: bool = False
    """Whether the call ends when the sentence has been said."""

    def __post_init__(self) -> None:
        # Without full stops: the place is put before them, and one behind.
        if not self.words and not self.patterns:
            raise ValueError("a rule has words or patterns: add what it looks for")
        if not self.say.strip() and not self.end:
            raise ValueError("a rule has say, the sentence for its case, or end: true, or both")
        for word in self.words:
            if not re.search(r"\w", word):
                raise ValueError(f"words: {word!r} holds no letter; a sign goes to patterns")
        for pattern in self.patterns:
            try:
                matches_nothing = re.search(pattern, "") is not None
            except re.error as error:
                raise ValueError(f"patterns: {pattern!r} is no regular expression: {error}") from None
            if matches_nothing:
                raise ValueError(f"patterns: {pattern!r} matches no text at all, so it would match every text")


class Plugin:
    """Gives each session a guard."""

    class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """The plugin's block in config.yaml."""

        rules: tuple[Rule, ...] = ()

    def __init__(self, options: Options) -> None:
        self.enabled = bool(options.rules)
        self._rules = [CompiledRule(rule, number) for number, rule in enumerate(options.rules, start=1)]

    @hookimpl
    def open_session(self, control: SessionControl) -> "Guard":
        return Guard(control, self._rules)


class CompiledRule:
    """A rule as it is looked for."""

    def __init__(self, rule: Rule, number: int) -> None:
        self.name = rule.name or f"rule {number}"
        self.side, self.end = rule.side, rule.end
        self.say = " ".join(rule.say.split())
        words = [r"\s+".join(map(re.escape, _folded(word).split())) for word in rule.words]
        self._words = [re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)")] if words else []
        self._patterns = [re.compile(pattern, re.IGNORECASE) for pattern in rule.patterns]

    def found_in(self, text: str) -> Literal["", "perhaps", "surely"]:
        """Whether a text breaks it; perhaps where what breaks it is its end, which may be a part of a longer word."""
        plain, folded = unicodedata.normalize("NFKC", text), _folded(text)
        found = [match for pattern in self._words for match in pattern.finditer(folded)]
        ends = [match.end() < len(folded) for match in found]
        found = [match for pattern in self._patterns for match in pattern.finditer(plain)]
        ends += [match.end() < len(plain) for match in found if match.group()]
        return "surely" if any(ends) else "perhaps" if ends else ""


class Guard:
    """Watches one session."""

    def __init__(self, control: SessionControl, rules: Sequence[CompiledRule]) -> None:
        self._control = control
        self._agents = [rule for rule in rules if rule.side == "agent"]
        self._callers = [rule for rule in rules if rule.side == "caller"]
        self._text = ""
        """The agent's latest words."""
        self._suspected: CompiledRule | None = None
        """The rule that the agent breaks if the word it has begun ends here. The agent is muted meanwhile."""
        self._broken: CompiledRule | None = None
        """The rule whose sentence is about to be said, or being said."""
        self._fading = False
        """Whether the agent, muted and hushed, still sounds of what it must not say."""
        self._unsaid = 0
        """How many letters of the sentence are left."""
        self._frames = 0
        """Frames since the last text that counts."""
        self._log = get_logger("guardrail")

    async def agent_text(self, piece: AgentText) -> None:
        """Look for the rules in the agent's words. The rules' own sentences may hold what they forbid."""
        if self._broken is not None:
            if self._fading:
                return
            if piece.given and self._unsaid > 0:
                self._unsaid -= _letters(piece.text)
                self._frames = 0
                return
            if self._broken.end or self._unsaid == _letters(self._broken.say):
                return  # these are the agent's last words, in the call or before the sentence
            self._broken = None
        self._text = (self._text + piece.text)[-KEPT:]
        self._frames = 0
        found = [(rule.found_in(self._text), rule) for rule in self._agents]
        if broken := [rule for verdict, rule in found if verdict == "surely"]:
            self._break(broken[0])
            return
        suspected = next((rule for verdict, rule in found if verdict == "perhaps"), None)
        if (suspected is None) != (self._suspected is None):
            self._control.mute("agent", suspected is not None)
        self._suspected = suspected

    async def caller_text(self, piece: CallerText) -> None:
        """Look for the rules in what the caller said, which has been heard: nothing is muted."""
        if broken := [rule for rule in self._callers if rule.found_in(piece.text)]:
            self._break(broken[0])

    async def agent_frame(self, frame: Frame) -> None:  # noqa: ARG002 - it counts them
        """Go on with what waits for a number of frames."""
        self._frames += 1
        if self._broken is None:
            if self._suspected is not None and self._frames > SUSPECT_FRAMES:
                self._break(self._suspected)
        elif self._fading:
            if self._frames > FADE_FRAMES:
                self._speak(self._broken)
        elif self._frames > QUIET_FRAMES:
            self._finish(self._broken)

    def _break(self, rule: CompiledRule) -> None:
        """A rule is broken."""
        self._log.warning("a rule was broken", session=self._control.info.id, rule=rule.name, side=rule.side)
        self._text, self._suspected, self._broken, self._frames = "", None, rule, 0
        self._fading = self._fading or rule.side == "agent"
        if rule.side == "agent":
            self._control.mute("agent", True)
            self._control.hush()
        if not rule.say:
            self._finish(rule)
        elif not self._fading:
            self._speak(rule)

    def _speak(self, rule: CompiledRule) -> None:
        """Have the sentence of a broken rule said, and heard."""
        self._fading, self._frames, self._unsaid = False, 0, _letters(rule.say)
        try:
            self._control.say(rule.say, interrupt=True)
        except SayError as error:
            self._log.error("the sentence of a rule cannot be said", rule=rule.name, reason=str(error))
            self._finish(rule)
        self._control.mute("agent", False)

    def _finish(self, rule: CompiledRule) -> None:
        """The sentence has been said."""
        self._broken = None
        if rule.end:
            self._control.end("guardrail", ENDED)


def _letters(text: str) -> int:
    return len("".join(text.split()))


def _folded(text: str) -> str:
    """A text as it is compared: letters in one form, whether capital or small, or put together of two characters."""
    return unicodedata.normalize("NFKC", text).casefold()
