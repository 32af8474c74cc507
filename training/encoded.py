"""Lines as codes: the agent's lines, encoded once by the trained codec, ready to be laid into conversations."""

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from moshi.models.compression import MimiModel
from torch import Tensor

from core.engine.architecture import AGENT_CODEBOOKS
from core.engine.call import FRAME_SAMPLES
from training.shards import Line, Recorded

SHIFTS = 4
"""A line is encoded at this many places within a frame, and so heard in as many ways."""
BEFORE, AFTER = 4, 2
"""Frames of silence around a line while it is encoded."""
BATCH_FRAMES = 8000

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
    """

    pcm: Recorded
    text: str
    words: tuple[float, ...]
    voice: str


@dataclass
class Lines:
    """All lines, by who may say them when: the agent's by episode and text, callers' by their wish alone."""

    agents: dict[str, dict[str, AgentLine]] = field(default_factory=lambda: defaultdict(dict))
    callers: dict[str, list[CallerLine]] = field(default_factory=lambda: defaultdict(list))
    voices: dict[str, list[AgentLine]] = field(default_factory=lambda: defaultdict(list))


def encode_lines(
    mimi: MimiModel, lines: Iterable[Line], device: torch.device, found: Lines, kept: Path | None = None
) -> None:
    """Encode the agents' lines, at every shift, into `found`; callers' stay sound, to be mixed with noise first.

    What the file `kept` holds is not encoded again; one that does not exist is written, for other processes, too.
    """
    agents: list[Line] = []
    for line in lines:
        record = line.record
        if record.wish:
            caller = CallerLine(line.recorded, record.text, record.words, record.speaker)
            found.callers[record.wish].append(caller)
        else:
            agents.append(line)
    ends = list(accumulate(map(frames_of, agents)))
    codes = np.load(kept) if kept is not None and kept.exists() else None
    if codes is None or codes.shape[:2] != (SHIFTS, ends[-1] if ends else 0):
        codes = encode_agents(mimi, agents, device)
        if kept is not None and agents:
            write_atomically(kept, codes)
    for line, end in zip(agents, ends, strict=True):
        record = line.record
        coded = codes[:, end - frames_of(line) : end]
        made = AgentLine(record.text, record.speaker, record.words, coded)
        found.agents[record.key.partition("/")[0]][record.text] = made
        found.voices[record.speaker].append(made)


def frames_of(line: Line) -> int:
    """Frames that a line takes, wherever in its first one it begins."""
    return -(-len(line.recorded) // FRAME_SAMPLES) + 1


@torch.inference_mode()
def encode_agents(mimi: MimiModel, lines: list[Line], device: torch.device) -> Codes:
    """int16[shifts, frames, 8]: the lines one after the other. Those of about one length are encoded together."""
    made: list[Codes] = [np.empty((SHIFTS, 0, AGENT_CODEBOOKS), dtype=np.int16)] * len(lines)
    waiting = sorted(range(len(lines)), key=lambda number: frames_of(lines[number]))
    while waiting:
        frames = frames_of(lines[waiting[-1]])
        count = max(1, BATCH_FRAMES // (SHIFTS * (frames + BEFORE + AFTER)))
        batch, waiting = waiting[-count:], waiting[:-count]
        codes = encode_batch(mimi, [lines[number] for number in batch], frames, device)
        for number, coded in zip(batch, codes, strict=True):
            made[number] = coded[:, : frames_of(lines[number])]
    return np.concatenate(made, axis=1) if made else np.empty((SHIFTS, 0, AGENT_CODEBOOKS), dtype=np.int16)


def write_atomically(path: Path, codes: Codes) -> None:
    """Write codes whole or not at all, while others may do the same."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    with part.open("wb") as file:
        np.save(file, codes)
    part.replace(path)


def encode_batch(mimi: MimiModel, lines: list[Line], frames: int, device: torch.device) -> Codes:
    """int16[lines, shifts, frames, 8]: frame 0 is the one in which the line begins."""
    sound = np.zeros((len(lines), SHIFTS, (BEFORE + frames + AFTER) * FRAME_SAMPLES), dtype=np.float32)
    for row, line in enumerate(lines):
        for shift in range(SHIFTS):
            start = BEFORE * FRAME_SAMPLES + shift * FRAME_SAMPLES // SHIFTS
            sound[row, shift, start : start + len(line.recorded)] = line.pcm
    codes: Tensor = mimi.encode(torch.from_numpy(sound).to(device).flatten(0, 1)[:, None])
    kept = codes[:, :, BEFORE : BEFORE + frames].transpose(1, 2).to(torch.int16)
    return kept.reshape(len(lines), SHIFTS, frames, -1).cpu().numpy()
