"""Stage `say`: agents of unseen personas are given sentences to say, and it is measured how well these are heard."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np

from core.boot.local_engine import open_engine
from core.engine.call import FRAME_S, FRAME_SAMPLES, Call, Engine, Frame, OutputFrame
from core.engine.prompt import Prompt
from core.engine.sampling import Sampling
from core.evaluation.figures import Figure
from core.evaluation.script import BEGINS_S, LONGEST_S, QUIET_S
from core.evaluation.speech import LOUD, Samples
from core.evaluation.words import WordErrors
from core.settings.sections import Device, EngineConfig
from training.dialogues import LEAD
from training.judge import judge as make_judge
from training.scripts import episode

SENTENCES = (
    "Your table for two is ready now, and so are we.",
    "I am sorry, I can only talk about the hotel.",
    "One question, please, and then I will ask my manager.",
    "The green umbrella is behind the old piano.",
    "We open at nine tomorrow because of the wedding.",
    "Please hold on while I look for your ticket.",
    "The letter left the station this morning.",
    "I cannot tell you that, but my manager can.",
    "The next train to the airport leaves in ten minutes.",
    "Would you like me to send you a message?",
    "The old computer was broken three weeks before.",
    "The doctor is busy, and you are first in the row.",
    "There are four rooms left with a view of the lake.",
    "I will send the letter to your company today.",
    "Please come back with your ticket and your letter.",
    "That sounds like a problem with the network.",
    "The price of the cake is two hundred and fifty dollars.",
    "The blue jackets are small, and the red shoes are free.",
    "We can send it to your house on Monday morning.",
    "Thank you for calling, here is what I know.",
    "The museum is free every Sunday until the evening.",
    "I will call you back as soon as I know more.",
    "Your dog can stay with us for the weekend.",
    "The tomato soup has no cheese in it.",
    "Please tell me your name again, and very slowly.",
    "I hope you like music, and good coffee too.",
    "The bus to the city leaves from our corner.",
    "Your appointment with the doctor is on Tuesday afternoon.",
    "I think the train is free for children at night.",
    "The computer is old and wants a little more care.",
    "We do not sell batteries, but the next shop may have them.",
    "Your question was very good, and I have an idea.",
    "It may be cold tomorrow, so take a coat.",
    "The golden lamp is under the wooden stage.",
    "You can have it with a card or in cash.",
    "My friend will talk to you now, and I thank you.",
    "The cake must be ordered a day before.",
    "Everything is fine, there is nothing to worry about.",
    "The lesson starts at half eight in the library.",
    "Have a safe trip, and goodbye.",
)
"""Of which none is in the scripts that nano was trained with, though their words are: of others it knows no sound."""
SLOTS = 20
"""Calls at once."""
SENTENCE_S = 20.0
"""How long a sentence may take, which it does not unless something is wrong."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Speech:
    """What an agent says, as text and as sound, float32[samples]."""

    text: str
    pcm: Samples


class Said(msgspec.Struct, frozen=True):
    """A call in the JSON file: what the agent says of itself and what it is given, and what is heard of either."""

    voice: str
    own: str
    own_heard: str
    sentence: str
    said: str
    heard: str
    seconds: float


class SayEvaluation(msgspec.Struct, frozen=True):
    """The JSON file."""

    figures: tuple[Figure, ...]
    calls: tuple[Said, ...]


def evaluate_saying(checkpoint: Path, device: Device, report: Report) -> SayEvaluation:
    """Have every sentence said once, in all voices in turn, each after the agent's own greeting."""
    engine = open_engine(
        EngineConfig(name="personaplex", checkpoint=str(checkpoint), device=device, slots=SLOTS), report
    )
    try:
        spoken = asyncio.run(speak_all(engine))
    finally:
        engine.close()
    report("Whisper listens")
    judge, own_errors, errors, calls = make_judge(), WordErrors(), WordErrors(), []
    for sentence, (voice, own, said) in zip(SENTENCES, spoken, strict=True):
        own_heard, heard = judge.hear(own.pcm), judge.hear(said.pcm)
        own_errors.add(own.text, own_heard)
        errors.add(sentence, heard)
        seconds = len(said.pcm) / FRAME_SAMPLES * FRAME_S
        calls.append(Said(voice, own.text, own_heard, sentence, said.text, heard, seconds))
        report(f"{voice}: {said.text!r} is heard as {heard!r}")
    equal = sum(call.said == call.sentence for call in calls) / len(calls)
    most = None if own_errors.rate is None else own_errors.rate + 0.1
    return SayEvaluation(
        (
            Figure("Sentences that the text stream holds word for word", equal, len(calls), least=1.0),
            Figure("Word error rate of the agents' own greetings", own_errors.rate, own_errors.words),
            Figure("Word error rate of the sentences", errors.rate, errors.words, most=most),
        ),
        tuple(calls),
    )


async def speak_all(engine: Engine, sentences: Sequence[str] = SENTENCES) -> list[tuple[str, Speech, Speech]]:
    """Each sentence's voice, and what the agent said of itself and because it was given it."""
    voices, free = engine.voices(), asyncio.Semaphore(engine.info.slots)

    async def one(number: int, sentence: str) -> tuple[str, Speech, Speech]:
        voice = voices[number % len(voices)]
        persona = episode(random.Random(f"say {number}"), held_out=True)
        async with free:
            call = engine.open(Prompt(persona.prompt, engine.voice(voice)), Sampling(seed=number))
            try:
                await call.ready()
                return voice, *await greet_and_say(call, sentence)
            finally:
                await call.close()

    return await asyncio.gather(*(one(number, sentence) for number, sentence in enumerate(sentences)))


async def greet_and_say(call: Call, sentence: str) -> tuple[Speech, Speech]:
    """Be silent, until the agent has greeted and is quiet; then have it say a sentence, and listen to its end.

    Where the agent goes on with words of its own, their sound is left out.
    """
    answers = call.frames()

    async def hear_one() -> OutputFrame:
        call.push(np.zeros(FRAME_SAMPLES, np.float32))
        return await anext(answers)

    greeting: list[OutputFrame] = []
    quiet, begun = 0.0, False
    while len(greeting) * FRAME_S < LONGEST_S and (
        quiet < QUIET_S or not (begun or len(greeting) * FRAME_S > BEGINS_S)
    ):
        greeting.append(await hear_one())
        loud = is_loud(greeting[-1].pcm)
        quiet, begun = 0.0 if loud else quiet + FRAME_S, begun or loud

    call.say(sentence)
    said: list[OutputFrame] = []
    ended, quiet = False, 0.0
    while (not ended or quiet < QUIET_S) and len(greeting + said) * FRAME_S < LONGEST_S + SENTENCE_S:
        frame = await hear_one()
        (said if said or frame.said else greeting).append(frame)
        ended = ended or frame.sentence_ended
        quiet = quiet + FRAME_S if ended and not is_loud(frame.pcm) else 0.0
        if ended and not frame.said and frame.text:
            said += [await hear_one() for _ in range(round(LEAD / FRAME_S) - 1)]
            break
    return speech_of(greeting), Speech("".join(frame.text for frame in said if frame.said).strip(), sound_of(said))


def is_loud(pcm: Frame) -> bool:
    """Whether somebody speaks in a frame."""
    return bool(np.sqrt((pcm**2).mean()) > LOUD)


def speech_of(frames: list[OutputFrame]) -> Speech:
    return Speech("".join(frame.text for frame in frames).strip(), sound_of(frames))


def sound_of(frames: list[OutputFrame]) -> Samples:
    return np.array(list(chain(*(frame.pcm for frame in frames))), np.float32)
