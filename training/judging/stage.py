"""Stage `judge`: hold strangers' calls through the engine, listen to them, and make the table of targets."""

import asyncio
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import click
import msgspec
import torch

from core.boot.devices import pick_device
from core.boot.local_engine import open_engine
from core.engine.call import SAMPLE_RATE
from core.engine.checkpoint import Checkpoint
from core.engine.prompt import Prompt
from core.engine.sampling import Sampling
from core.engine.scheduler import SlotEngine
from core.evaluation.calls import PlannedCall, hold_together
from core.evaluation.figures import Figure
from core.evaluation.speech import Samples
from core.evaluation.whisper import Whisper
from core.evaluation.words import WordErrors, mentions
from core.media.sound_files import read_channels, write_wav
from core.settings.sections import Device, EngineConfig
from training.codec_quality import through_codec
from training.evaluate import check, recorded_lines
from training.judge import judge as make_judge
from training.judging.records import JudgedCall, judged, sounds_of
from training.judging.scenes import Scale, Scene, SceneKind, StrangerCaller, scenes
from training.judging.strangers import Stranger
from training.judging.table import Heard, figures_of
from training.judging.voices import StrangerVoices
from training.mos import DistillMos
from training.teachers import Espeak, Kokoro
from training.voices import AGENTS

TRANSCRIPTS = 3
"""Whole calls that are printed: the first ones."""
SCORED_S = 2.0
"""Speech that is shorter gets no score."""
SCORED = 3
"""Stretches of each call that get one."""

Report = Callable[[str], None]
EVERY_KIND: tuple[SceneKind, ...] = (
    *("memory", "facts", "unpleasant", "unknown", "arithmetic", "monologue", "backchannel"),
    *("echo", "music", "typing", "office", "silence", "recording"),
)


@dataclass(frozen=True)
class Options:
    """What is judged: the checkpoint in a folder, in calls of these `kinds`, `slots` at once.

    `recording` is a WAV of a real caller; `teacher` Kokoro's folder, made where it is not, or None without Kokoro;
    `cache` keeps what the teacher has said; `flite` is the folder of its libraries where the system has none.
    """

    checkpoint: Path
    cache: Path
    teacher: Path | None = None
    scale: Scale = field(default_factory=Scale)
    kinds: Sequence[SceneKind] = EVERY_KIND
    slots: int = 16
    device: Device = "auto"
    recording: Path | None = None
    flite: Path | None = None
    listen: bool = True


class Judgement(msgspec.Struct, frozen=True):
    """The JSON file."""

    figures: tuple[Figure, ...]
    calls: tuple[JudgedCall, ...]


@dataclass(frozen=True)
class Kept:
    """The agent's sound in a call that is to be listened to, part by part."""

    place: int
    sounds: list[Samples]


def kinds_named(names: Sequence[str]) -> Sequence[SceneKind]:
    """The kinds of calls with these names; all without any. Raises ClickException for a name that is none."""
    unknown = [name for name in names if name not in EVERY_KIND]
    if unknown:
        raise click.ClickException(f"--only {unknown[0]}: the kinds of calls are {', '.join(EVERY_KIND)}.")
    return [kind for kind in EVERY_KIND if not names or kind in names]


def summary(judgement: Judgement) -> str:
    """The table and the first whole calls, as text."""
    table = [f"{'':<52} {'':>10} {'cases':>7}   should be", *(figure.row() for figure in judgement.figures)]
    whole = sorted((call for call in judgement.calls if call.turns), key=lambda call: call.kind != "facts")
    calls = [f"{call.name}, {call.voice}, called by {call.caller}\n{call.transcript}" for call in whole[:TRANSCRIPTS]]
    return "\n".join(table) + "\n\n" + "\n\n".join(calls)


def judge(options: Options, report: Report) -> Judgement:
    """Hold all calls and measure them."""
    check(options.checkpoint)
    config = EngineConfig(
        name="personaplex", checkpoint=str(options.checkpoint), device=options.device, slots=options.slots
    )
    engine = open_engine(config, report)
    try:
        calls, kept = asyncio.run(hold_calls(engine, options, report))
    finally:
        engine.close()
    heard = Heard()
    if options.listen and kept:
        calls, heard = listen(calls, kept, options, report)
    return Judgement(tuple(figures_of(calls, heard)), tuple(calls))


async def hold_calls(engine: SlotEngine, options: Options, report: Report) -> tuple[list[JudgedCall], list[Kept]]:
    """All calls, judged, in the order in which they were planned; and what is to be listened to."""
    voices, agents = StrangerVoices(options.flite), engine.voices()
    if not agents:
        raise click.ClickException(f"{options.checkpoint} has no voices.")
    if voices.missing:
        report(voices.missing)
    recorded = recorded_lines(options.recording)
    everybody = options.scale.everybody()
    planned = list(scenes(options.scale, options.kinds, bool(recorded)))
    callers: list[StrangerCaller] = []

    def plan(scene: Scene) -> PlannedCall:
        caller = StrangerCaller(scene, options.scale, voices, recorded)
        callers.append(caller)
        prompt = Prompt(scene.stranger.prompt, engine.voice(voice_of(scene.stranger, everybody, agents)))
        return PlannedCall(prompt, caller.frames(), Sampling(seed=scene.seed), scene.echo)

    calls: dict[int, JudgedCall] = {}
    kept = []
    async for place, recording in hold_together(engine, map(plan, planned), options.slots):
        scene, caller = planned[place], callers[place]
        calls[place] = judged(scene, voice_of(scene.stranger, everybody, agents), caller, recording)
        if scene.kind == "facts" and scene.wording == 0:
            kept.append(Kept(place, sounds_of(recording, caller.turns)))
        report(f"{len(calls)} of {len(planned)} calls, {scene.kind} {scene.number}: {calls[place].greeting}")
    kept.sort(key=lambda each: each.place)
    return [calls[place] for place in range(len(planned))], kept


def voice_of(stranger: Stranger, everybody: Sequence[Stranger], voices: Sequence[str]) -> str:
    """The voice in which one of all strangers speaks: all voices are taken in turn."""
    return voices[everybody.index(stranger) % len(voices)]


def listen(
    calls: Sequence[JudgedCall], kept: Sequence[Kept], options: Options, report: Report
) -> tuple[list[JudgedCall], Heard]:
    """The calls with what Whisper hears in those that were kept, and how their speech, and the teacher's, sounds."""
    report("Whisper listens")
    whisper, device, heard_calls, errors = make_judge(), pick_device(options.device), list(calls), WordErrors()
    for each in kept:
        heard_calls[each.place] = _heard(calls[each.place], each.sounds, whisper, errors)
    homophones = Espeak()
    names = [
        hears_name(call.greeting_heard or "", call.name, homophones)
        for call in (heard_calls[each.place] for each in kept)
        if call.greeted
    ]
    lines = teacher_lines([calls[each.place] for each in kept], options, device, report)
    teacher_names = [hears_name(whisper.hear(pcm), name, homophones) for name, pcm in lines]
    heard = Heard(names=names, teacher_names=teacher_names, errors=errors)
    try:
        scorer = DistillMos(device.type)
    except ImportError:
        report("DistillMOS is not installed, so that nobody says how natural the speech is.")
        return heard_calls, heard
    report("DistillMOS listens")
    coded = through_codec(Checkpoint.read(options.checkpoint), device)
    scored = replace(
        heard,
        teacher_mos=scorer.scores([pcm for _, pcm in lines]),
        codec_mos=scorer.scores([coded(pcm) for _, pcm in lines]),
        agent_mos=scorer.scores(list(chain.from_iterable(_long(each.sounds)[:SCORED] for each in kept))),
    )
    return heard_calls, scored


def _heard(call: JudgedCall, sounds: Sequence[Samples], whisper: Whisper, errors: WordErrors) -> JudgedCall:
    """A call with what Whisper hears of each part; words are counted in `errors`."""
    heard = [whisper.hear(sound) if len(sound) else "" for sound in sounds]
    for said, understood in zip((call.greeting, *(turn.said for turn in call.turns)), heard, strict=True):
        errors.add(said, understood)
    turns = [msgspec.structs.replace(turn, heard=text) for turn, text in zip(call.turns, heard[1:], strict=True)]
    return msgspec.structs.replace(call, greeting_heard=heard[0], turns=tuple(turns))


def hears_name(heard: str, name: str, reader: Espeak) -> bool:
    """Whether a name was heard, in its own spelling or in another that sounds the same."""
    sound = _phonemes(name, reader)
    return mentions(heard, name) or sound in _phonemes(heard, reader)


def _phonemes(text: str, reader: Espeak) -> str:
    return "".join(symbol for symbol in reader.read(text).phonemes if symbol.isalpha()) if text else ""


def _long(sounds: Sequence[Samples]) -> list[Samples]:
    return [sound for sound in sounds if len(sound) >= SCORED_S * SAMPLE_RATE]


def teacher_lines(
    calls: Sequence[JudgedCall], options: Options, device: torch.device, report: Report
) -> list[tuple[str, Samples]]:
    """Names, and the greetings that the teacher says with them in the same voices; none without the teacher."""
    if options.teacher is None:
        return []
    options.cache.mkdir(parents=True, exist_ok=True)
    kokoro, reader, lines = None, Espeak(), []
    for call in calls:
        speaker = AGENTS.get(call.voice)
        if speaker is None:
            continue
        text = next(each.greeting for each in options.scale.everybody() if each.name == call.name)
        key = zlib.crc32(json.dumps([text, msgspec.to_builtins(speaker)]).encode())
        path = options.cache / f"{call.name}-{key:08x}.wav"
        if not path.exists():
            if kokoro is None:
                report("The teacher speaks")
                Kokoro.unpack(options.teacher)
                kokoro = Kokoro(options.teacher, device)
            write_wav(path, kokoro.say([reader.read(text)], speaker)[0].pcm[None])
        lines.append((call.name, read_channels(path)[0]))
    return lines
