"""Spoken lines on the disk: a file of sound, and a JSON file that says where in it each line is.

The JSON file also holds the episodes that the agents' lines belong to, so that speech outlives changes of the scripts.
Episodes share most of what callers may ask, hundreds of wordings each, so a shard has each set of wordings once.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from core.evaluation.speech import Samples
from training.episodes import Episode
from training.teachers import SAMPLE_RATE, Spoken

NUMBERS_A_RUN = 100_000
"""So many shards of a teacher, and banks, a run of `make` may number. Their numbers decide what is in them, so a run
that goes on from another one begins where that one cannot have been, and its speech and conversations are new."""
Recorded = npt.NDArray[np.int16]
Wordings = tuple[str, ...]


class LineRecord(msgspec.Struct, frozen=True):
    """A line: who said what, and where. Times are in seconds from the line's begin; `key` names it.

    An agent's key is its episode's name and `/agent`. A caller's line has a `wish`: the plain wording, as it stands in
    an exchange's `asks`, of what `text` says in full, with all its "um" and "please".
    """

    key: str
    speaker: str
    text: str
    start: int
    samples: int
    words: tuple[float, ...]
    phones: tuple[tuple[float, str], ...]
    wish: str = ""


class ShardIndex(msgspec.Struct, frozen=True):
    """What a shard's JSON file holds: its episodes by name, and its lines in order.

    In the file the episodes have no wordings of the caller: `asked` tells for each which of `wordings` belong to its
    exchanges, one after the other, and which to its `repeats`, which is the last.
    """

    episodes: dict[str, Episode]
    lines: list[LineRecord]
    wordings: tuple[Wordings, ...] = ()
    asked: dict[str, tuple[int, ...]] = {}


@dataclass(frozen=True)
class Line:
    """A line with its sound, int16[samples] at 24 kHz: of a shard that was read, a view of its file."""

    record: LineRecord
    recorded: Recorded

    @property
    def pcm(self) -> Samples:
        """The sound as float32[samples]."""
        return self.recorded.astype(np.float32) / np.float32(32767)


@dataclass(frozen=True)
class Said:
    """A line as a teacher has said it; the names are LineRecord's."""

    key: str
    speaker: str
    text: str
    spoken: Spoken
    wish: str = ""


def hours_in(path: Path) -> float:
    """How long the sound of the shard with this JSON file takes; none where there is no sound."""
    sound = path.with_suffix(".pcm")
    return sound.stat().st_size / 2 / SAMPLE_RATE / 3600 if sound.exists() else 0.0


def write_shard(path: Path, episodes: dict[str, Episode], lines: Iterable[Said]) -> float:
    """Write lines as `path`.pcm and `path`.json, the latter last and at once. Returns the seconds of speech.

    The sound is int16 at 24 kHz without a header: hours of it are written and read in seconds.
    """
    records, place = [], 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".pcm").open("wb") as file:
        for line in lines:
            words = tuple(round(second, 3) for second in line.spoken.words)
            phones = tuple((round(second, 3), phone) for second, phone in line.spoken.phones)
            samples = len(line.spoken.pcm)
            records.append(LineRecord(line.key, line.speaker, line.text, place, samples, words, phones, line.wish))
            file.write(np.round(line.spoken.pcm * 32767).astype(np.int16).tobytes())
            place += samples
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(_index(episodes, records)))
    part.rename(path.with_suffix(".json"))
    return place / SAMPLE_RATE


def read_shard(path: Path) -> list[Line]:
    """The lines of the shard whose JSON file is `path`.

    Their sound stays in the file until it is used, in memory that all processes share which read it.
    """
    sound = np.asarray(np.memmap(path.with_suffix(".pcm"), dtype=np.int16, mode="r"))
    records = msgspec.json.decode(path.read_bytes(), type=ShardIndex).lines
    return [Line(record, sound[record.start : record.start + record.samples]) for record in records]


def read_index(path: Path) -> ShardIndex:
    """What the JSON file at `path` says, its episodes whole."""
    index = msgspec.json.decode(path.read_bytes(), type=ShardIndex)
    # Interned, one wording of thousands of exchanges in hundreds of shards is one string in memory.
    wordings = [tuple(sys.intern(wording) for wording in known) for known in index.wordings]
    episodes = {}
    for name, episode in index.episodes.items():
        *asks, repeats = (wordings[number] for number in index.asked[name])
        exchanges = tuple(replace(one, asks=known) for one, known in zip(episode.exchanges, asks, strict=True))
        episodes[name] = replace(episode, exchanges=exchanges, repeats=repeats)
    return ShardIndex(episodes, index.lines)


def shard_paths(folder: Path) -> list[Path]:
    """The shards in a folder that are whole, in order."""
    return sorted(folder.glob("*.json"))


def codes_of(shard: Path) -> Path:
    """Where the codes of a shard's lines are kept, see `training.encoded.encode_lines`."""
    return shard.with_suffix(".npy")


def is_of_callers(shard: Path) -> bool:
    """Whether a shard has callers' lines, and not agents'."""
    return shard.name.startswith("callers-")


def teacher_of(shard: Path) -> str:
    """Who has spoken a shard, which its file is named after."""
    return shard.stem.rpartition("-")[0]


def _index(episodes: dict[str, Episode], lines: list[LineRecord]) -> ShardIndex:
    numbers: dict[Wordings, int] = {}
    bare, asked = {}, {}
    for name, episode in episodes.items():
        known = (*(exchange.asks for exchange in episode.exchanges), episode.repeats)
        asked[name] = tuple(numbers.setdefault(wordings, len(numbers)) for wordings in known)
        exchanges = tuple(replace(exchange, asks=()) for exchange in episode.exchanges)
        bare[name] = replace(episode, exchanges=exchanges, repeats=())
    return ShardIndex(bare, lines, tuple(numbers), asked)
