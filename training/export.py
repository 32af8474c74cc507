"""Stage `export`: what was trained becomes a checkpoint in the hub's layout, which the engine opens like any other."""

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click
import numpy as np
import torch
from moshi.models.compression import MimiModel
from moshi.models.loaders import MOSHI_NAME, TEXT_TOKENIZER_NAME
from safetensors.torch import load_file, save_file

from core.engine.architecture import AGENT_CODEBOOKS, DELAYS, FIXED, Architecture
from core.engine.call import FRAME_SAMPLES
from core.engine.checkpoint import EXTENSION, SPOKEN
from core.engine.prompt import Voice
from core.engine.stored_weights import in_few_bits
from core.media.voices import write_voice
from training.dialogues import VOICE_FRAMES
from training.growing import grown_state
from training.network import Network
from training.shape import NANO, Shape
from training.shards import Line, read_shard, shard_paths
from training.stages import (
    SHARP,
    TRAINED,
    codec_folder,
    described_mimi,
    rounded,
    special_codes,
    tokenizer_file,
    trained_mimi,
)
from training.voices import AGENTS

NOTICE = "This is the small built-in model: it speaks, plays its persona and does not think."
SAMPLING = {"text_temperature": 0.3}
"""What the small model says at PersonaPlex's temperature is less often a word."""
CANDIDATES = 8
"""Lines among which a voice's sample is chosen."""


def export(
    folder: Path,
    target: Path,
    report: Callable[[str], None],
    shape: Shape = NANO,
    voices: Collection[str] = tuple(AGENTS),
    earlier: Collection[Path] = (),
    last: bool = False,
) -> None:
    """Write config, weights in 8 and 4 bits, tokenizer and voices into `target`, which is made anew.

    The codec is core/nano's, or the folder's, with the decoder of `sharp.pt` or `codec.pt` where there is one. The
    language model is what `lm.pt` holds, and the mean with `earlier` states of it: of each the mean of its latest steps
    or, if asked, the last alone. What tells the caller's words is left out. Where the folder has no speech, the voices
    of `target` stay. Raises ClickException without `lm.pt`, and when the sharp decoder is older than the trained one.
    """
    if not (folder / "lm.pt").exists():
        raise click.ClickException(f"{folder / 'lm.pt'} is missing: run the stage `lm` first.")
    making = target.with_name(f".{target.name}.part")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    cpu = torch.device("cpu")
    mimi = trained_mimi(folder, cpu, shape.mimi, SHARP if is_sharp(folder) else TRAINED)
    network = Network(shape.architecture)
    network.load_state_dict(mean_of([folder / "lm.pt", *earlier], "network" if last else "mean", shape.architecture))
    weights = in_few_bits(network.checkpoint(), in_4_bits)
    save_file(weights, making / MOSHI_NAME)
    save_file(codec_weights(mimi, codec_folder(folder)), making / "mimi.safetensors")
    special = special_codes(mimi)
    config = dict(FIXED) | shape.architecture.to_config() | {"dep_q": AGENT_CODEBOOKS, "delays": list(DELAYS)}
    config |= {"mimi_name": "mimi.safetensors", "mimi_config_name": "mimi.json"}
    config[EXTENSION] = {"name": "nano", "notice": NOTICE, "text": SPOKEN, **asdict(special), "sampling": SAMPLING}
    (making / "config.json").write_text(json.dumps(config, indent=1))
    (making / "mimi.json").write_text(described_mimi(mimi, shape.mimi))
    shutil.copy(tokenizer_file(folder, shape), making / TEXT_TOKENIZER_NAME)
    if not shard_paths(folder / "speech") and (target / "voices").is_dir():
        shutil.copytree(target / "voices", making / "voices")
    else:
        write_voices(making / "voices", sample_lines(folder, voices), mimi)
    card = Path(__file__).with_name("CARD.md")
    if card.exists():
        shutil.copy(card, making / "README.md")
    shutil.rmtree(target, ignore_errors=True)
    making.rename(target)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    report(f"{target}: {size / 1e6:.1f} MB")


def in_4_bits(name: str) -> bool:
    """Whether a matrix takes 4 bits: those of the transformer's feed-forward parts, which are most of all weights."""
    return name.startswith("transformer.") and ".gating." in name


def is_sharp(folder: Path) -> bool:
    """Whether the folder's decoder has been sharpened. Raises ClickException when it has learned since."""
    sharp, trained = folder / SHARP, folder / TRAINED
    if sharp.exists() and trained.exists() and sharp.stat().st_mtime < trained.stat().st_mtime:
        raise click.ClickException(f"{sharp} is older than {trained}: run the stage `sharpen` again, or delete it.")
    return sharp.exists()


def codec_weights(mimi: MimiModel, source: Path) -> dict[str, torch.Tensor]:
    """The codec's tensors: encoder and quantizer as they are in `source`, so that codes keep their meaning."""
    frozen = load_file(source / "mimi.safetensors")
    return {
        name: rounded(tensor) if name.startswith("spectral.") else frozen[name]
        for name, tensor in mimi.state_dict().items()
    }


def write_voices(folder: Path, lines: Mapping[str, Line], mimi: MimiModel) -> None:
    """Write the voice prompts that lines, by name, make."""
    for name, line in lines.items():
        sound = np.pad(line.pcm, (0, FRAME_SAMPLES))[: VOICE_FRAMES * FRAME_SAMPLES]
        with torch.inference_mode():
            codes = mimi.encode(torch.from_numpy(sound)[None, None])[0].T
        write_voice(folder / f"{name}.safetensors", Voice(name, codes=codes.numpy().astype(np.int64)))


def mean_of(
    paths: Collection[Path], kind: Literal["network", "mean"], architecture: Architecture
) -> dict[str, torch.Tensor]:
    """The mean of a language model's saved states, those from before it grew grown: points of one run that each know
    some lines by heart, and not the same (Izmailov et al., "Averaging weights leads to wider optima and better
    generalization", 2018)."""
    loaded = {path: torch.load(path, map_location=torch.device("cpu"), weights_only=True) for path in paths}
    states = [grown_state(state[kind], architecture, path) for path, state in loaded.items()]
    return {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}


def sample_lines(folder: Path, voices: Collection[str]) -> dict[str, Line]:
    """A line for each voice, long enough for a voice prompt, and hardly longer."""
    found: dict[str, list[Line]] = {name: [] for name in voices}
    for path in shard_paths(folder / "speech"):
        for line in read_shard(path):
            if line.record.speaker in found and line.record.samples >= VOICE_FRAMES * FRAME_SAMPLES:
                found[line.record.speaker].append(line)
        if all(len(lines) >= CANDIDATES for lines in found.values()):
            break
    missing = [name for name, lines in found.items() if not lines]
    if missing:
        raise click.ClickException(f"{folder / 'speech'} holds no line of two seconds by {', '.join(missing)}.")
    return {name: min(lines, key=lambda line: line.record.samples) for name, lines in found.items()}
