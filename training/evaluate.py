"""Stage `evaluate`: unseen personas answer scripted callers through the engine, and it is measured how well."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

import click
import msgspec
import numpy as np
import sphn

from core.boot.local_engine import open_engine
from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE, Engine
from core.engine.sampling import Sampling
from core.evaluation.callers import Line
from core.evaluation.figures import Figure
from core.evaluation.speech import activity, stretches
from core.media.voice_clips import read_voice_clip
from core.settings.sections import Device, EngineConfig
from training.calls import CallRecord, ScriptedCaller, record_call
from training.figures import Heard, figures_of, hear
from training.judge import judge as make_judge
from training.scripts import conversation, episode
from training.teachers import Espeak
from training.voices import caller

ASKS = 3
"""How many things each caller asks."""
RECORDED = 10
"""One in so many callers also plays the recording."""
PAUSE_S = 0.8
"""Pauses of this length part the recording into turns."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What is evaluated: so many unseen `personas`, on the checkpoint in a folder.

    `recording` is a WAV of a real caller; `keep` a folder for the calls' sound, the agent on the left. `kv_cache` is
    as in the settings of the engine.
    """

    checkpoint: Path
    personas: int = 100
    device: Device = "auto"
    sampling: Sampling = field(default_factory=Sampling)
    recording: Path | None = None
    keep: Path | None = None
    kv_cache: Literal["auto", "bfloat16", "int8"] = "auto"


class Call(msgspec.Struct, frozen=True):
    """A call in the JSON file: what the agent should greet with, what its text says and what is heard, part by part."""

    voice: str
    greeting: str
    asks: tuple[str, ...]
    said: tuple[str, ...]
    heard: tuple[str, ...]


class Evaluation(msgspec.Struct, frozen=True):
    """The JSON file."""

    figures: tuple[Figure, ...]
    calls: tuple[Call, ...] = ()


def evaluate(options: Options, report: Report) -> Evaluation:
    """Hold all calls, and measure them."""
    check(options.checkpoint)
    judge = make_judge()
    config = EngineConfig(
        name="personaplex", checkpoint=str(options.checkpoint), device=options.device, kv_cache=options.kv_cache
    )
    engine = open_engine(config, report)
    try:
        records = asyncio.run(hold_calls(engine, options, report))
    finally:
        engine.close()
    if options.keep is not None:
        keep_calls(records, options.keep)
    report("Whisper listens")
    heard = [hear(record, judge) for record in records]
    calls = tuple(summary(record, parts) for record, parts in zip(records, heard, strict=True))
    return Evaluation(tuple(figures_of(records, heard)), calls)


def check(checkpoint: Path) -> None:
    """Raise ClickException where there is no checkpoint."""
    if not (checkpoint / "config.json").exists():
        raise click.ClickException(f"{checkpoint} holds no checkpoint: run the stage `export` first.")


async def hold_calls(engine: Engine, options: Options, report: Report) -> list[CallRecord]:
    """One call for each persona, over all voices in turn, as many at once as there are slots."""
    voices = engine.voices()
    if not voices:
        raise click.ClickException(f"{options.checkpoint} has no voices.")
    espeak, recorded = Espeak(), recorded_lines(options.recording)
    free = asyncio.Semaphore(engine.info.slots)

    async def hold(number: int, voice: str) -> CallRecord:
        rng = random.Random(f"evaluate {number}")
        persona, speaker = episode(rng, held_out=True), caller(rng, "espeak")
        asks = [turn for turn in conversation(rng, persona) if turn.side == "caller"][:ASKS]
        lines = [Line(turn.kind, turn.text, espeak.say(turn.text, speaker).pcm) for turn in asks]
        lines += recorded if number % RECORDED == 0 else []
        async with free:
            scripted = ScriptedCaller(lines, rng)
            record = await record_call(engine, persona, voice, scripted, replace(options.sampling, seed=number))
        report(f"call {number}, {voice}: {record.said(record.parts()[0]).strip()}")
        return record

    chosen = islice(cycle(voices), options.personas)
    return await asyncio.gather(*(hold(number, voice) for number, voice in enumerate(chosen)))


def recorded_lines(path: Path | None) -> list[Line]:
    """What is said in a recording, each stretch between pauses by itself."""
    if path is None:
        return []
    pcm = read_voice_clip(path)
    return [
        Line("recording", "", pcm[begin * FRAME_SAMPLES : end * FRAME_SAMPLES])
        for begin, end in stretches(activity(pcm), PAUSE_S)
    ]


def summary(record: CallRecord, heard: Heard) -> Call:
    """A call for the JSON file."""
    asks = tuple(turn.line.text for turn in record.turns)
    return Call(record.voice, record.episode.greeting, asks, heard.said, heard.heard)


def keep_calls(records: Sequence[CallRecord], folder: Path) -> None:
    """Write each call as a WAV, the agent on the left and the caller on the right."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, record in enumerate(records):
        path = folder / f"{number:03d}-{record.voice}.wav"
        sphn.write_wav(str(path), np.stack([record.agent, record.caller]), SAMPLE_RATE)
