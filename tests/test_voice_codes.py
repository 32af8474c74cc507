"""Recordings: encoded once, ahead of their first call, and never at the expense of a call."""

import asyncio
import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from core.engine.call import Frame
from core.engine.prompt import Prompt, Tokens, Voice
from core.engine.sampling import Sampling
from core.engine.scheduler import SlotEngine
from core.errors import EngineError
from tests.engines import converse, speech, tiny_engine

CHUNKS = 4
PATIENCE_S = 30
HELLO = "5 6 7"


class Encoder:
    """Takes as its codes what a recording's samples are, in some chunks."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        """The first sample of each recording whose encoding began."""
        self.ended: list[int] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.chunk = threading.Event()
        """Set when a chunk has begun."""
        self._busy = False

    def __call__(self, pcm: Frame) -> Generator[None, None, Tokens]:
        assert not self._busy, "it encodes one recording at a time"
        self._busy = True
        try:
            self.begun.append(int(pcm[0]))
            for _ in range(CHUNKS):
                self.chunk.set()
                assert self.may_go_on.wait(PATIENCE_S)
                yield
            if pcm[0] == 0:
                raise RuntimeError("not a sound")
            self.ended.append(int(pcm[0]))
            return np.full((3, 8), int(pcm[0]), np.int64)
        finally:
            self._busy = False


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


@pytest.fixture
def engine(tmp_path: Path, encoder: Encoder) -> Generator[SlotEngine]:
    engine = tiny_engine(tmp_path, encode_voice=encoder)
    yield engine
    engine.close()


def recording(number: int) -> Voice:
    return Voice(f"r{number}", pcm=np.full(10, number, np.float32))


async def until(encoder: Encoder, ended: list[int]) -> None:
    """Return when these have been encoded."""
    async with asyncio.timeout(PATIENCE_S):
        while encoder.ended != ended:  # noqa: ASYNC110 - the engine's thread does it
            await asyncio.sleep(0.01)


async def test_a_recording_is_encoded_once_and_ahead_of_its_call(engine: SlotEngine, encoder: Encoder) -> None:
    for number in (0, 7, 7, 8):  # the first cannot be encoded, which keeps nobody waiting
        engine.prepare(recording(number))
    engine.prepare(Voice("codes", codes=np.zeros((3, 8), np.int64)))
    await until(encoder, [7, 8])
    as_codes = Voice("codes", codes=np.full((3, 8), 7, np.int64))
    answers = []
    for voice, text in ((recording(7), HELLO), (recording(7), "9"), (as_codes, HELLO)):
        call = engine.open(Prompt(text, voice), Sampling(seed=1))
        answers.append(await converse(call, speech(1)))
        await call.close()
    assert encoder.begun == [0, 7, 8]
    assert np.array_equal(answers[0], answers[2])
    with pytest.raises(EngineError):
        await engine.open(Prompt(HELLO, recording(0)), Sampling()).ready()


async def test_nothing_is_encoded_ahead_while_there_is_a_call(engine: SlotEngine, encoder: Encoder) -> None:
    call = engine.open(Prompt(HELLO), Sampling())
    engine.prepare(recording(7))
    await converse(call, speech(1))
    assert encoder.begun == []
    await call.close()
    await until(encoder, [7])


async def test_a_call_takes_over_what_was_begun_for_it_and_puts_off_what_was_not(
    engine: SlotEngine, encoder: Encoder
) -> None:
    for wanted, begun in ((7, [7]), (9, [7, 8, 9, 8])):
        encoder.chunk.clear()
        encoder.may_go_on.clear()
        engine.prepare(recording(7 if wanted == 7 else 8))
        assert await asyncio.to_thread(encoder.chunk.wait, PATIENCE_S)
        call = engine.open(Prompt(HELLO, recording(wanted)), Sampling())
        encoder.may_go_on.set()
        await converse(call, speech(1))
        await call.close()
        await until(encoder, [7] if wanted == 7 else [7, 9, 8])
        assert encoder.begun == begun
