"""Stage `mix`: conversations out of codes alone, so many that hardly one is learned twice.

Callers' lines are encoded once, each in one world, as the agents' lines are. Between them there is what one hears of
this world when nobody speaks, or silence; there is no noise that goes on under speech, no echo, and nobody who mumbles.
For these there are the banks of the stage `encode`; a mixed one needs neither a codec nor a GPU.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
import numpy as np

from core.engine.prompt import SpecialCodes
from training.ambience import read_ambience
from training.bank import BankSizes, build_bank
from training.bank_folder import MIXED_PREFIX
from training.composer import Composer
from training.encoded import Lines
from training.episodes import Episode
from training.scripts import loose_phrases
from training.shape import Shape
from training.shards import codes_of, is_of_callers, read_index, read_shard, shard_paths
from training.tokenizer import read_tokenizer
from training.whole_files import whole_file

KEPT = 150
"""So many mixed banks are kept, the newest ones, of 78 MB each."""


def write_special(folder: Path, special: SpecialCodes) -> None:
    """Keep the codec's codes of silence for those who have no codec."""
    with whole_file(folder / "special.json") as part:
        part.write_bytes(msgspec.json.encode(special))


def read_special(folder: Path) -> SpecialCodes:
    """What `write_special` has kept. Raises ClickException where nobody has."""
    try:
        return msgspec.json.decode((folder / "special.json").read_bytes(), type=SpecialCodes)
    except FileNotFoundError:
        raise click.ClickException(f"No lines in {folder} have codes: run the stage `encode --lines` first.") from None


def mix_conversations(
    folder: Path,
    tokenizer: Path,
    numbers: range,
    sizes: BankSizes,
    report: Callable[[str], None],
    shape: Shape,
) -> None:
    """Mix banks of such `sizes` into `banks/`, taking in lines as they get codes, and delete the oldest."""
    special, ambience, pieces = read_special(folder), read_ambience(folder), read_tokenizer(tokenizer)
    lines, episodes, seen = Lines(), dict[str, Episode](), set[Path]()
    composer: Composer | None = None
    for number in numbers:
        count, positions = sizes.of(number)
        path = folder / "banks" / f"{MIXED_PREFIX}{positions}-{number:04d}.pt"
        if path.exists():
            continue
        began = time.monotonic()
        new = [shard for shard in shard_paths(folder / "speech") if shard not in seen and codes_of(shard).exists()]
        for shard in new:
            codes = np.asarray(np.load(codes_of(shard), mmap_mode="r"))
            if is_of_callers(shard):
                lines.add_callers(read_shard(shard), codes)
            else:
                lines.add_agents(read_shard(shard), codes)
                episodes |= read_index(shard).episodes
        seen.update(new)
        if not episodes or not lines.callers:
            raise click.ClickException(f"Too few lines in {folder} have codes: run the stage `encode --lines` first.")
        if composer is None or new:
            composer = Composer(
                lines, episodes, pieces, special, shape.architecture, loose_phrases(), ambience=ambience
            )
        rng = random.Random(f"mixed {number}")
        dialogues = (composer.compose(rng, positions + 1) for _ in range(count))
        build_bank(dialogues, special, count, positions).save(path)
        delete_oldest(path.parent)
        report(
            f"bank {number}: {count} conversations of {positions} positions out of {len(episodes)} episodes, "
            f"{len(seen)} shards, {time.monotonic() - began:.0f} s"
        )


def delete_oldest(folder: Path, kept: int = KEPT) -> None:
    """Leave so many mixed banks, while others may delete some, too."""
    ages: list[tuple[float, Path]] = []
    for path in folder.glob(f"{MIXED_PREFIX}*.pt"):
        try:
            ages.append((path.stat().st_mtime, path))
        except FileNotFoundError:
            continue
    for _, path in sorted(ages)[: max(0, len(ages) - kept)]:
        path.unlink(missing_ok=True)
