"""Who speaks when: greetings, questions, answers, and all that people do besides.

They ask two things in a breath, tell something first, pause, say "mhm" while the agent speaks, interrupt it, ask
again, mumble, come back after minutes, or say nothing at all.
"""

from collections.abc import Iterator, Mapping, Sequence
from random import Random

from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE
from core.engine.prompt import SpecialCodes
from training.callers import Callers, Utterance
from training.calling import ANYTHING
from training.dialogues import FRAMES_PER_SECOND, Dialogue, Pieces
from training.encoded import SHIFTS, AgentLine
from training.episodes import Episode, Exchange
from training.phrases import FEELINGS, SMALL_TALK
from training.scripts import conversation

GREETING = (2, 8)
"""Frames before the agent greets, at least and at most."""
ANSWER = (7, 10)
"""Frames between the end of the caller's words and the agent's answer: 0.56 to 0.88 s, longer than any pause."""
NEXT_ANSWER = (1, 5)
"""Frames between two answers in a row."""
CALLER = (4, 30)
"""Frames between the end of the agent's words and the caller's."""
LATER, MUCH_LATER = (30, 90), (90, 300)
"""The same for callers who think, and for those who have gone to look for something."""
YIELD = (4, 6)
"""Frames after which an interrupted agent stops: 0.3 to 0.5 s."""
BREATH = (0.1, 0.4)
"""Seconds between two questions in a breath."""
PAUSE = (0.15, 0.55)
"""Seconds between the sentences of somebody who tells something."""
WAIT = (0.2, 0.55)
"""Seconds between the word that stops the agent and what the caller has to say."""

INTERRUPTED = 0.17
STOPPED = 0.4
"""The share of interruptions that begin with a short word, where there are such words."""
TOLD, CHATTY = 0.2, 0.35
"""How often a caller tells something before a question; and who comes to the point late."""
RAMBLING = 0.6
"""How many of the sentences that are told wish for nothing, and may be anything."""
AT_LENGTH = 0.12
"""How often somebody who tells something in a long conversation does so for up to two minutes."""
STATEMENTS = (1, 1, 2, 2, 3, 4, 6, 8)
PAIRED = 0.1
GIVEN, AFTER_GIVEN = 0.05, (6, 25)
"""How often the agent is given a sentence to say after its own words, and how many frames after them."""
LAPSE, LAPSES, NOTICED = 0.07, (1, 1, 2, 3, 5, 8), (15, 75)
"""How often the agent begins to miss what it is asked, for how many turns it does, and the frames after which the
caller goes on. That it says nothing is not learned but read: whoever has once missed a turn must not be silent for
ever."""
NODDED = 0.16
"""How often a caller says "mhm" during an answer that is long enough."""
AGAIN = 0.1
"""How often the same is asked again later, in other words."""
FAITHFUL = 0.85
"""The share of conversations in which the caller keeps one voice."""
MUTE, EARLY = 0.06, 0.06
"""The share of callers who never say a word, and of those who begin before the greeting."""
LATE = 0.3
"""The share of long conversations that come to the prompt's facts in their last part only."""
LONG = 700
"""Frames of a long conversation: 56 s."""
TALK = frozenset((*SMALL_TALK, *FEELINGS, "lesson", "garbled"))
"""Kinds of exchanges that are about no fact of the prompt."""
FOLLOWING = frozenset(("yes", "no", "more", "thanks", "sorry", "goodbye", "garbled"))
"""Kinds that make sense after something else only, and by themselves."""
REFERRING = FOLLOWING - {"goodbye", "garbled"}
"""Kinds that make sense after an answer only."""


class Conversation:
    """Fills one dialogue.

    `said` is what the agent can say, and `given` what it may be given to say; `loose` callers' speech that belongs to
    no exchange.
    """

    def __init__(
        self,
        rng: Random,
        dialogue: Dialogue,
        episode: Episode,
        said: Mapping[str, AgentLine],
        given: Sequence[AgentLine],
        callers: Callers,
        loose: Mapping[str, tuple[str, ...]],
        pieces: Pieces,
        special: SpecialCodes,
    ) -> None:
        self._rng, self._dialogue, self._episode, self._said = rng, dialogue, episode, said
        self._given, self._callers, self._loose = given, callers, loose
        self._pieces, self._special = pieces, special
        self._voice = callers.voice(rng) if rng.random() < FAITHFUL else ""
        self._frames = len(dialogue.text)
        self._late = self._frames > LONG and rng.random() < LATE
        self._now = 0  # The frame at which the caller may speak next.
        self._answer: tuple[int, int] | None = None  # The frames of the agent's last words, which may be interrupted.
        self._stories: list[str] = []
        self._lapses = 0  # So many turns more remain without an answer.
        self._missed_from: int | None = None  # The frame since which the agent should have answered.

    def hold(self) -> None:
        """From the greeting on until the dialogue is full, or nobody has more to say."""
        self._converse()
        self._leave_unlearned(self._frames)

    def _converse(self) -> None:
        self._begin()
        if self._rng.random() < MUTE:
            return
        before: list[Exchange] = []
        for exchange in self._planned():
            if exchange.kind in REFERRING and self._missed_from is not None:
                continue
            if exchange.kind in FOLLOWING:
                self._exchange(before)
                before = []
            elif not before and self._rng.random() < PAIRED:
                before = [exchange]
                continue
            self._exchange([*before, exchange])
            before = []
            if self._now >= self._frames:
                return
        self._exchange(before)

    def _begin(self) -> None:
        """The agent greets; some callers have begun to speak by then."""
        rng, begin, after = self._rng, self._rng.randint(*GREETING), []
        exchanges = [one for one in self._episode.exchanges if one.kind not in FOLLOWING and one.answer in self._said]
        if exchanges and rng.random() < EARLY:
            hello = [one for one in exchanges if one.kind == "hello"]
            first = rng.choice(hello if hello and rng.random() < 0.5 else exchanges)
            if (said := self._callers.say(rng, first.asks, self._voice)) is not None:
                end = self._dialogue.say(said, rng.randrange(4 * FRAME_SAMPLES), self._pieces)
                begin = end // FRAME_SAMPLES + 1 + rng.randint(*ANSWER)
                after = [first.answer] if first.kind != "hello" else []
        self._answered([self._episode.greeting, *after], begin)

    def _planned(self) -> Iterator[Exchange]:
        """What is asked: who calls long comes back to things, and some come to the prompt's facts late."""
        rng = self._rng
        if self._late:
            yield from self._chat()
        again: list[Exchange] = []
        while self._now < self._frames:
            before = self._now
            for exchange in self._script():
                yield exchange
                if again and rng.random() < 0.4:
                    yield again.pop()
                if exchange.kind not in TALK | FOLLOWING and rng.random() < AGAIN:
                    again.append(exchange)
            if self._now == before or rng.random() < 0.3:
                return

    def _chat(self) -> Iterator[Exchange]:
        """What is about no fact, for more than half of the time, and then perhaps the agent's name."""
        rng = self._rng
        while self._now < 0.6 * self._frames:
            for exchange in self._script():
                if exchange.kind in TALK and self._now < 0.6 * self._frames:
                    yield exchange
            self._now += rng.randint(*MUCH_LATER)
        if rng.random() < 0.5:
            yield from (exchange for exchange in self._episode.exchanges if exchange.kind == "name")

    def _script(self) -> Iterator[Exchange]:
        """A conversation of the episode's, as exchanges."""
        whole = {(exchange.kind, exchange.answer): exchange for exchange in self._episode.exchanges}
        turns = conversation(self._rng, self._episode)[1:]
        for ask, answer in zip(turns[::2], turns[1::2], strict=True):
            yield whole.get((ask.kind, answer.text)) or Exchange(ask.kind, self._episode.repeats, answer.text)

    def _exchange(self, exchanges: list[Exchange]) -> None:
        """The caller asks one thing or more in a breath, and is answered."""
        rng = self._rng
        asked = [(one, said) for one in exchanges if one.answer in self._said and (said := self._asks(one))]
        if not asked:
            return
        stories = self._told()
        sample = self._turn(short=not stories)
        self._leave_unlearned(sample // FRAME_SAMPLES)
        for said in stories:
            sample = self._dialogue.say(said, sample, self._pieces) + seconds(rng, PAUSE)
        for _, said in asked:
            end = self._dialogue.say(said, sample, self._pieces)
            sample = end + seconds(rng, BREATH)
        if self._lapses or rng.random() < LAPSE:
            self._missed(end // FRAME_SAMPLES + 1)
            return
        self._answered([one.answer for one, _ in asked], end // FRAME_SAMPLES + 1 + rng.randint(*ANSWER))

    def _asks(self, exchange: Exchange) -> Utterance | None:
        rng = self._rng
        said = self._callers.say(rng, exchange.asks, self._voice)
        if exchange.kind != "garbled":
            return said
        # Nobody understands what was said, so it may have been anything.
        other = rng.choice(self._episode.exchanges)
        said = said if said and rng.random() < 0.5 else self._callers.say(rng, other.asks, self._voice) or said
        return said and self._callers.garble(rng, said)

    def _told(self) -> list[Utterance]:
        """What a caller tells before a question: mostly nothing."""
        rng = self._rng
        if not self._loose.get("statement") or rng.random() >= (CHATTY if self._late else TOLD):
            return []
        count, longest = rng.choice(STATEMENTS), 60.0
        if self._frames > LONG and rng.random() < AT_LENGTH:
            count, longest = 100, rng.uniform(20, 120)
        longest = min(longest, 0.7 * (self._frames - self._now) / FRAMES_PER_SECOND)
        told: list[Utterance] = []
        length = 0.0
        while len(told) < count and length < longest:
            story = self._callers.say(rng, self._story(), self._voice)
            if story is None:
                break
            told.append(story)
            length += len(story.sound) / SAMPLE_RATE
        return told

    def _story(self) -> list[str]:
        """Wishes, of which somebody tells one."""
        rng = self._rng
        if rng.random() < RAMBLING and self._callers.has(ANYTHING):
            return [ANYTHING]
        if not self._stories:
            self._stories = rng.sample(self._loose["statement"], len(self._loose["statement"]))
        return [self._stories.pop() for _ in range(min(4, len(self._stories)))]

    def _turn(self, short: bool) -> int:
        """The sample at which the caller begins to speak: now and then early, and the agent stops."""
        rng, dialogue = self._rng, self._dialogue
        if self._answer is None or rng.random() >= INTERRUPTED:
            return self._now * FRAME_SAMPLES + rng.randrange(FRAME_SAMPLES)
        begin, end = self._answer
        early = rng.randint(begin + 8, end - 4)
        dialogue.stop(min(end, early + rng.randint(*YIELD)), end, self._special)
        sample = early * FRAME_SAMPLES + rng.randrange(FRAME_SAMPLES // 2)
        if short and self._loose.get("interruption") and rng.random() < STOPPED:
            word = self._callers.say(rng, self._loose["interruption"], self._voice)
            if word is not None:
                sample = dialogue.say(word, sample, self._pieces) + seconds(rng, WAIT)
        return sample

    def _missed(self, begin: int) -> None:
        """The agent says nothing to what ended at frame `begin`, and the caller goes on after a while."""
        self._lapses = (self._lapses or self._rng.choice(LAPSES)) - 1
        self._answer, self._missed_from = None, begin
        self._now = begin + self._rng.randint(*NOTICED)

    def _leave_unlearned(self, end: int) -> None:
        """What the agent has not said since the turn that it missed, until frame `end`, is not learned."""
        if self._missed_from is not None:
            self._dialogue.given[self._missed_from : end] = True
            self._missed_from = None

    def _answered(self, texts: list[str], begin: int) -> None:
        """The agent says these lines one after the other from frame `begin` on, and the caller may speak after that."""
        rng, end = self._rng, begin
        for number, text in enumerate(texts):
            begin = end if number == 0 else end + rng.randint(*NEXT_ANSWER)
            end = self._dialogue.speak(self._said[text], begin, rng.randrange(SHIFTS), self._pieces)
        self._answer = (begin, end) if end - begin > 15 else None
        if end - begin > 25 and rng.random() < NODDED and self._loose.get("backchannel"):
            nod = self._callers.say(rng, self._loose["backchannel"], self._voice)
            if nod is not None and (room := end - 4 - len(nod.sound) // FRAME_SAMPLES) > begin + 6:
                start = rng.randint(begin + 6, room) * FRAME_SAMPLES + rng.randrange(FRAME_SAMPLES)
                self._dialogue.say(nod, start, self._pieces)
                self._answer = None
        if rng.random() < GIVEN:
            end, self._answer = self._say_given(end + rng.randint(*AFTER_GIVEN)), None
        chance = rng.random()
        wait = CALLER if chance < 0.88 else LATER if chance < 0.96 else MUCH_LATER
        self._now = end + rng.randint(*wait)

    def _say_given(self, begin: int) -> int:
        """The agent says something out of the blue from frame `begin` on; returns the frame after it."""
        end = self._dialogue.speak(self._rng.choice(self._given), begin, self._rng.randrange(SHIFTS), self._pieces)
        self._dialogue.given[max(0, begin - 3) : end] = True  # Its text begins before its sound.
        return end


def seconds(rng: Random, span: tuple[float, float]) -> int:
    """A random time in samples."""
    return int(rng.uniform(*span) * SAMPLE_RATE)
