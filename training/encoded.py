"""Lines as codes: each line encoded once by the trained codec, ready to be laid into conversations."""

import random
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
from moshi.models.compression import MimiModel

from core.engine.architecture import AGENT_CODEBOOKS
from core.engine.call import FRAME_SAMPLES
from training.acoustics import WORLDS, around
from training.shards import Line, Recorded
from training.whole_files import whole_file

SHIFTS = 4
"""An agent's line is encoded at this many places within a frame, and so heard in as many ways."""
BEFORE, AFTER = 4, 2
"""Frames of silence around a line while it is encoded."""
BATCH_FRAMES, CALLERS_FRAMES = 8000, 3000
"""Frames that are encoded at a time, of agents' lines and of callers', whose worlds take more memory, on GPUs on which
others encode conversations."""

Codes = npt.NDArray[np.int16]


@dataclass(frozen=True)
class AgentLine:
    """A line of the agent: its words with their seconds, and int16[shifts, frames, 8]."""

    text: str
    speaker: str
    words: tuple[float, ...]
    codes: Codes


@dataclass(frozen=True)
class CallerLine:
    """A line of a caller: int16[samples] at 24 kHz, what it says with its words' seconds, and in whose voice.

    `pcm` is a view of the shard's file, which all processes share: hours of callers need no memory of their own.
    `codes`, int16[frames, 8], is how it is heard in one of WORLDS, number `world`, when it begins at the sample `place`
    of a frame; None where nobody has encoded it, and the world is not decided.
    """

    pcm: Recorded
    text: str
    words: tuple[float, ...]
    voice: str
    codes: Codes | None = None
    world: int | None = None
    place: int = 0


@dataclass
class Lines:
    """All lines, by who may say them when: the agent's by episode and text, callers' by their wish alone."""

    agents: dict[str, dict[str, AgentLine]] = field(default_factory=lambda: defaultdict(dict))
    callers: dict[str, list[CallerLine]] = field(default_factory=lambda: defaultdict(list))
    voices: dict[str, list[AgentLine]] = field(default_factory=lambda: defaultdict(list))

    def add_agents(self, lines: list[Line], codes: Codes) -> None:
        """Take in agents' lines, whose codes are one after the other."""
        for line, coded in zip(lines, split(lines, codes), strict=True):
            record = line.record
            made = AgentLine(record.text, record.speaker, record.words, coded)
            self.agents[record.key.partition("/")[0]][record.text] = made
            self.voices[record.speaker].append(made)

    def add_callers(self, lines: list[Line], codes: Codes | None = None) -> None:
        """Take in callers' lines, with their codes if they are to be laid into conversations as codes.

        Raises ClickException when these are not of one world.
        """
        if codes is not None and len(codes) != 1:
            raise click.ClickException(
                "Callers' lines have codes of an earlier version: delete `speech/callers-*.npy`."
            )
        coded = [None] * len(lines) if codes is None else [one[0] for one in split(lines, codes)]
        world = None if codes is None else world_of(lines)
        for line, one in zip(lines, coded, strict=True):
            record = line.record
            made = CallerLine(line.recorded, record.text, record.words, record.speaker, one, world, place(line))
            self.callers[record.wish].append(made)


def split(lines: list[Line], codes: Codes) -> list[Codes]:
    """The codes of each line, out of those of all."""
    ends = accumulate(map(frames_of, lines))
    return [codes[:, end - frames_of(line) : end] for line, end in zip(lines, ends, strict=True)]


def frames_of(line: Line) -> int:
    """Frames that a line takes, wherever in its first one it begins."""
    return -(-len(line.recorded) // FRAME_SAMPLES) + 1


def place(line: Line) -> int:
    """The sample of a frame at which a caller's line begins: any, as its place in its shard has it."""
    return line.record.start % FRAME_SAMPLES


def encode_lines(mimi: MimiModel, lines: list[Line], device: torch.device, kept: Path | None = None) -> Codes:
    """A shard's lines one after the other, int16[ways, frames, 8], heard in as many as `ways_of` says.

    What the file `kept` holds is not encoded again; one that does not exist is written, for other processes, too.
    """
    if kept is not None and kept.exists():
        codes: Codes = np.load(kept)
        if codes.shape[:2] == (ways_of(lines), sum(map(frames_of, lines))):
            return codes
    codes = _encoded(mimi, lines, device)
    if kept is not None:
        with whole_file(kept) as part, part.open("wb") as file:
            np.save(file, codes)
    return codes


def ways_of(lines: list[Line]) -> int:
    """In how many ways each line is heard: an agent's at every shift, a caller's in one world."""
    return 1 if _of_callers(lines) else SHIFTS


def _of_callers(lines: list[Line]) -> bool:
    """Whether a shard's lines are callers': these wish for something."""
    return bool(lines and lines[0].record.wish)


def world_of(lines: list[Line]) -> int:
    """In which of WORLDS a shard's callers are heard, drawn by their shares.

    Other lines in each are worth more than the same ones in all.
    """
    (world,) = random.Random(f"world {lines[0].record.key}").choices(range(len(WORLDS)), tuple(WORLDS.values()))
    return world


@torch.inference_mode()
def _encoded(mimi: MimiModel, lines: list[Line], device: torch.device) -> Codes:
    """All lines. Those of about one length are encoded together."""
    generator = torch.Generator(device).manual_seed(zlib.crc32(lines[0].record.key.encode()) if lines else 0)
    ways, empty = ways_of(lines), np.empty((ways_of(lines), 0, AGENT_CODEBOOKS), dtype=np.int16)
    made: list[Codes] = [empty] * len(lines)
    most = CALLERS_FRAMES if _of_callers(lines) else BATCH_FRAMES
    world = world_of(lines) if lines else 0
    waiting = sorted(range(len(lines)), key=lambda number: frames_of(lines[number]))
    while waiting:
        frames = frames_of(lines[waiting[-1]])
        count = max(1, most // (ways * (frames + BEFORE + AFTER)))
        batch, waiting = waiting[-count:], waiting[:-count]
        codes = encode_batch(mimi, [lines[number] for number in batch], frames, generator, world)
        for number, coded in zip(batch, codes, strict=True):
            made[number] = coded[:, : frames_of(lines[number])]
    return np.concatenate([empty, *made], axis=1)


def encode_batch(mimi: MimiModel, lines: list[Line], frames: int, generator: torch.Generator, world: int) -> Codes:
    """int16[lines, ways, frames, 8]: frame 0 is the one in which the line begins. Callers are heard in a `world`."""
    device, callers, ways = generator.device, _of_callers(lines), ways_of(lines)
    sound = np.zeros((len(lines), ways, (BEFORE + frames + AFTER) * FRAME_SAMPLES), dtype=np.float32)
    for row, line in enumerate(lines):
        for way in range(ways):
            start = BEFORE * FRAME_SAMPLES + (place(line) if callers else way * FRAME_SAMPLES // SHIFTS)
            sound[row, way, start : start + len(line.recorded)] = line.pcm
    heard = torch.from_numpy(sound).to(device).flatten(0, 1)
    if callers:
        kinds = torch.full((len(lines),), world, device=device)
        heard = around(heard, torch.zeros_like(heard), generator, kinds)
    codes = mimi.encode(heard[:, None])
    kept = codes[:, :, BEFORE : BEFORE + frames].transpose(1, 2).to(torch.int16)
    return kept.reshape(len(lines), ways, frames, -1).cpu().numpy()
