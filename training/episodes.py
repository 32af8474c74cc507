"""A persona with all that may be said with it, and a conversation made of it."""

from dataclasses import dataclass
from typing import Literal

Side = Literal["agent", "caller"]


@dataclass(frozen=True)
class Exchange:
    """A thing that callers ask, in several wordings, and the one answer of this persona. `kind` is what it is about."""

    kind: str
    asks: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class Episode:
    """A persona and everything that may be said with it.

    `prompt` is the text prompt, as a persona's file has it. `name` and `company` stand in it word for word; they are
    empty where the prompt has none. `first` is the part of the name in the greeting. `repeats` are ways to ask
    for the last thing once more; the exchange of kind `goodbye` ends a conversation.
    """

    kind: str
    prompt: str
    name: str
    first: str
    company: str
    greeting: str
    exchanges: tuple[Exchange, ...]
    repeats: tuple[str, ...]

    def lines(self) -> tuple[str, ...]:
        """All that the agent may say, each text once, the greeting first."""
        return tuple(dict.fromkeys((self.greeting, *(exchange.answer for exchange in self.exchanges))))

    def asks(self) -> tuple[str, ...]:
        """All that the caller may say, each text once."""
        return tuple(dict.fromkeys((*(ask for exchange in self.exchanges for ask in exchange.asks), *self.repeats)))


@dataclass(frozen=True)
class Turn:
    """One side's text in a conversation. `kind` is the exchange's, or `greeting`, or `sorry` for a repetition."""

    side: Side
    text: str
    kind: str
