"""Spoken lines on the disk: an Ogg/Opus file of many lines, and a JSON file that says where each is.

The JSON file also holds the episodes that the lines belong to, so that speech outlives changes of the scripts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from core.evaluation.speech import Samples
from training.episodes import Episode
from training.teachers import Spoken


class LineRecord(msgspec.Struct, frozen=True):
    """A line: who said what, and where. Times are in seconds from the line's begin; `key` names it in its episode."""

    key: str
    speaker: str
    text: str
    start: int
    samples: int
    words: tuple[float, ...]
    phones: tuple[tuple[float, str], ...]


class ShardIndex(msgspec.Struct, frozen=True):
    """What a shard's JSON file holds: its episodes by name, and its lines in order."""

    episodes: dict[str, Episode]
    lines: list[LineRecord]


@dataclass(frozen=True)
class Line:
    """A line with its sound, float32[samples] at 24 kHz."""

    record: LineRecord
    pcm: Samples


def write_shard(path: Path, episodes: dict[str, Episode], lines: Iterable[tuple[str, str, str, Spoken]]) -> None:
    """Write (key, speaker, text, spoken) lines as `path`.pcm and `path`.json, the latter last and at once.

    The sound is int16 at 24 kHz without a header: hours of it are written and read in seconds.
    """
    records, pieces, place = [], [], 0
    for key, speaker, text, spoken in lines:
        words = tuple(round(second, 3) for second in spoken.words)
        phones = tuple((round(second, 3), phone) for second, phone in spoken.phones)
        records.append(LineRecord(key, speaker, text, place, len(spoken.pcm), words, phones))
        pieces.append(np.round(spoken.pcm * 32767).astype(np.int16))
        place += len(spoken.pcm)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.concatenate(pieces).tofile(path.with_suffix(".pcm"))
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(ShardIndex(episodes, records)))
    part.rename(path.with_suffix(".json"))


def read_shard(path: Path) -> list[Line]:
    """The lines of the shard whose JSON file is `path`."""
    records = read_index(path).lines
    sound = np.fromfile(path.with_suffix(".pcm"), dtype=np.int16).astype(np.float32) / np.float32(32767)
    return [Line(record, sound[record.start : record.start + record.samples]) for record in records]


def read_index(path: Path) -> ShardIndex:
    """What the JSON file at `path` says."""
    return msgspec.json.decode(path.read_bytes(), type=ShardIndex)


def shard_paths(folder: Path) -> list[Path]:
    """The shards in a folder that are whole, in order."""
    return sorted(folder.glob("*.json"))
