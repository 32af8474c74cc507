"""A rule says one form of writing; the patterns here are what several forms are made of."""

import re
from collections.abc import Callable
from dataclasses import dataclass

TO = r"[ \t]?[-\u2010-\u2015][ \t]?"
"""Between the ends of a range."""
TO_OR_WORD = rf"(?:{TO}| to | till | until | thru | through )"
NUMBER = r"\d{1,3}(?:,\d{3}){1,4}(?![\d,]\d)(?:\.\d+)?|\d+(?:\.\d+)?"
"""A number as Americans write it; `spelling` has taken away the very long ones before any rule is tried."""


@dataclass(frozen=True)
class Rule:
    """What matches `pattern` becomes `say`: a template of `re`, or what a function makes of the match.

    The rule is tried only on texts that hold one of the `marks`, if it has any, and what it `needs`, which is found
    sooner than the whole: that saves most of the time.
    """

    pattern: re.Pattern[str]
    say: str | Callable[[re.Match[str]], str]
    marks: tuple[str, ...] = ()
    needs: re.Pattern[str] | None = None

    def spell(self, text: str) -> str:
        """The text with this form of writing said."""
        if self.marks and not any(mark in text for mark in self.marks):
            return text
        if self.needs and not self.needs.search(text):
            return text
        return self.pattern.sub(self.say, text)


def rule(pattern: str, say: str | Callable[[re.Match[str]], str], marks: str = "", needs: str = "") -> Rule:
    """A rule for patterns that take capital and small letters alike; between `marks` there is a space."""
    needed = re.compile(needs, re.IGNORECASE) if needs else None
    return Rule(re.compile(pattern, re.IGNORECASE), say, tuple(marks.split(" ")) if marks else (), needed)
