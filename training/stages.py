"""The stages that learn, on the files of a training folder: `speech/`, `tokenizer.model`, `codec.pt`, `lm.pt`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from moshi.models.compression import MimiModel
from moshi.models.loaders import get_mimi

from core.engine.architecture import AGENT_CODEBOOKS
from core.engine.mimi.voice_encoder import VoiceEncoder, measure_special_codes
from core.engine.prompt import SpecialCodes
from training.bank import Bank, build_bank
from training.codec import CodecOptions, CodecTraining
from training.composer import Composer
from training.encoded import Lines, encode_lines
from training.episodes import Episode
from training.lm import LmOptions, LmTraining
from training.pool import SpeechPool
from training.schedule import Schedule
from training.scripts import loose_phrases
from training.shape import NANO, Shape
from training.shards import Line, read_index, read_shard, shard_paths
from training.tokenizer import make_tokenizer, read_tokenizer

NEW_POOL_S, NEW_BANK_S = 100.0, 15.0
"""How often speech and banks that have been made meanwhile are taken in."""
ROBOTS = 0.3
"""Hours of espeak-ng for each hour of Kokoro when the codec learns."""

Report = Callable[[str], None]


def hours(lines: list[Line]) -> float:
    """How long they take."""
    return sum(len(line.pcm) for line in lines) / 24_000 / 3600


def train_codec(
    folder: Path, device: torch.device, schedule: Schedule, report: Report, options: CodecOptions | None = None
) -> None:
    """Train, or go on with, `codec.pt`, taking in new speech as it comes."""
    torch.backends.cudnn.benchmark = True  # Crops have one size.
    last = 0.0
    seen: dict[Path, list[Line]] = {}

    def pool_of_all() -> SpeechPool:
        paths = [path for path in shard_paths(folder / "speech") if path not in seen]
        seen.update((path, read_shard(path)) for path in paths)
        if not seen:
            raise click.ClickException(f"{folder / 'speech'} is empty: run the stage `speech` first.")
        kokoro = [line for path, lines in seen.items() if path.name.startswith("kokoro") for line in lines]
        robots = [line for path, lines in seen.items() if not path.name.startswith("kokoro") for line in lines]
        share = min(1.0, ROBOTS * max(hours(kokoro), 0.3) / max(hours(robots), 1e-6))
        pool = SpeechPool([*kokoro, *robots[: max(1, int(share * len(robots)))]], device)
        report(f"{pool.hours:.2f} hours of speech, {hours(kokoro):.2f} of them Kokoro's")
        return pool

    def refresh(elapsed: float) -> SpeechPool | None:
        nonlocal last
        if elapsed - last < NEW_POOL_S or len(shard_paths(folder / "speech")) < len(seen) + 4:
            return None
        last = elapsed
        return pool_of_all()

    training = CodecTraining(pool_of_all(), options or CodecOptions(), device)
    if (folder / "codec.pt").exists():
        training.resume(folder / "codec.pt")
    training.run(schedule, report, refresh)
    training.save(folder / "codec.pt")


def trained_mimi(folder: Path, device: torch.device, config: dict[str, Any]) -> MimiModel:
    """The codec as trained so far, of the shape that `config` says."""
    if not (folder / "codec.pt").exists():
        raise click.ClickException(f"{folder / 'codec.pt'} is missing: run the stage `codec` first.")
    mimi = get_mimi(None, config, device=device, num_codebooks=AGENT_CODEBOOKS)
    mimi.load_state_dict(torch.load(folder / "codec.pt", map_location=device, weights_only=True)["mimi"])
    return mimi.eval()


def special_codes(mimi: MimiModel) -> SpecialCodes:
    """What the codec makes of silence and the sine."""
    return measure_special_codes(VoiceEncoder(mimi))


def encode_conversations(
    folder: Path,
    device: torch.device,
    numbers: range,
    positions: int,
    count: int,
    report: Report,
    shape: Shape = NANO,
) -> None:
    """Mix and encode banks of `count` conversations into `banks/`, taking in new speech as it comes."""
    if not (folder / "tokenizer.model").exists():
        make_tokenizer(folder / "tokenizer.model", shape.architecture.text_vocab_size)
    tokenizer = read_tokenizer(folder / "tokenizer.model")
    mimi = trained_mimi(folder, device, shape.mimi)
    special = special_codes(mimi)
    encoded, episodes, seen, read = Lines(), dict[str, Episode](), set[Path](), 0.0
    for number in numbers:
        path = folder / "banks" / f"{positions}-{number:04d}.pt"
        if path.exists():
            continue
        began = time.monotonic()
        for shard in (path for path in shard_paths(folder / "speech") if path not in seen):
            lines = read_shard(shard)
            encode_lines(mimi, lines, device, encoded)
            episodes |= read_index(shard).episodes
            seen.add(shard)
            read += hours(lines)
        if not episodes:
            raise click.ClickException(f"{folder / 'speech'} is empty: run the stage `speech` first.")
        composer = Composer(encoded, episodes, tokenizer, special, shape.architecture, loose_phrases())
        build_bank(composer, mimi, special, count, positions, number).save(path)
        spent = time.monotonic() - began
        report(f"bank {number}: {count} conversations out of {len(episodes)} episodes, {read:.1f} hours, {spent:.0f} s")


def train_lm(
    folder: Path, device: torch.device, schedule: Schedule, report: Report, options: LmOptions | None = None
) -> None:
    """Train, or go on with, `lm.pt` on all banks, taking in new ones as they come."""
    training = LmTraining(options or LmOptions(), device)
    if (folder / "lm.pt").exists():
        training.resume(folder / "lm.pt")
    held: dict[Path, Bank] = {}
    due = 0.0

    def banks(elapsed: float) -> list[Bank]:
        nonlocal due
        if elapsed >= due:
            due = elapsed + NEW_BANK_S
            paths = sorted((folder / "banks").glob("*.pt"))
            for path in paths:
                if path not in held:
                    held[path] = Bank.load(path, device)
            if not held:
                raise click.ClickException(f"{folder / 'banks'} is empty: run the stage `encode` first.")
        return list(held.values())

    training.run(schedule, banks, report)
    training.save(folder / "lm.pt")
