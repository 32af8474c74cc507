"""The stages that learn, on the files of a training folder: `speech/`, `tokenizer.model`, `codec.pt`, `lm.pt`."""

import json
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch
from moshi.models.compression import MimiModel
from moshi.models.loaders import get_mimi
from safetensors.torch import load_file, save_file

from core.boot.checkpoint_source import NANO as NANO_CHECKPOINT
from core.engine.architecture import AGENT_CODEBOOKS
from core.engine.checkpoint import Checkpoint
from core.engine.mimi.spectral import SECTION, SpectralMimi, SpectralNetwork, SpectralShape
from core.engine.mimi.voice_encoder import VoiceEncoder, measure_special_codes
from core.engine.prompt import SpecialCodes
from core.engine.weights import load_mimi, read_json
from training.ambience import SMALL_STRETCHES, STRETCHES, make_ambience
from training.bank import BankSizes, build_bank, encoded
from training.bank_folder import BankFolder
from training.codec import CodecOptions, CodecTraining
from training.coded import CodedSpeech
from training.composer import Composer
from training.encoded import Lines, encode_lines
from training.encoder import EncoderOptions, EncoderTraining, SpokenLines
from training.episodes import Episode
from training.lm import LmOptions, LmTraining
from training.mixing import write_special
from training.schedule import Schedule
from training.scripts import loose_phrases
from training.shape import NANO, Shape
from training.shards import Line, codes_of, is_of_callers, read_index, read_shard, shard_paths, teacher_of
from training.tokenizer import make_tokenizer, read_tokenizer
from training.voices import AGENTS
from training.whole_files import whole_file

OTHERS, MOST_OTHERS_H = 0.2, 5.0
"""Hours of other voices for each hour of nano's own when the decoder learns, and how many are read at most."""
TRAINED, SHARP = "codec.pt", "sharp.pt"
"""The decoder as it was trained, and what `training.sharpening` makes of it, in a training folder."""
MOST_CALLERS = 80
"""So many new shards of callers are taken in for a bank: to read one takes 0.1 s, and there may be hundreds."""
MORE_LAYERS = "_transformer.transformer.layers."
"""What the names have of the tensors that a codec may have more of than the one that it begins with."""
LOOKED_S = 2.0
"""Seconds between two looks for new speech."""
Report = Callable[[str], None]


def hours(lines: list[Line]) -> float:
    """How long they take."""
    return sum(line.record.samples for line in lines) / 24_000 / 3600


def train_codec(
    folder: Path,
    device: torch.device,
    schedule: Schedule,
    report: Report,
    options: CodecOptions | None = None,
    config: dict[str, Any] = NANO.mimi,
) -> None:
    """Train, or go on with, the decoder in `codec.pt`, on all speech that is there.

    Without one it begins with the decoder of the codec whose codes it learns, if that is of the same shape.
    """
    torch.backends.cudnn.benchmark = True  # Crops have one size.
    began = time.monotonic()
    lines = agents_first(folder, report)
    mimi = trained_mimi(folder, device, config)
    speech = CodedSpeech(mimi, lines, device)
    report(
        f"{speech.hours:.2f} hours with the silence between them, read and encoded in {time.monotonic() - began:.0f} s"
    )
    training = CodecTraining(mimi, speech, options or CodecOptions(), device)
    if (folder / "codec.pt").exists():
        training.resume(folder / "codec.pt")
    elif isinstance(mimi, SpectralMimi) and mimi.spectral.shape == training.options.shape:
        training.begin(mimi.spectral)
        report("It begins with the weights of the codec's decoder.")
    training.run(schedule, folder / "codec.pt", report)


def train_encoder(
    folder: Path,
    device: torch.device,
    schedule: Schedule,
    report: Report,
    workers: int,
    options: EncoderOptions | None = None,
    config: dict[str, Any] = NANO.mimi,
) -> None:
    """Train the codec's encoder on all speech that is there, in one piece, and write the codec to the folder.

    It goes on from the folder's codec, or core/nano's. `workers` processes read the texts. Raises ClickException when
    there are no lines of callers and agents, and where a codec has learned already or lines have codes.
    """
    began = time.monotonic()
    shards = shard_paths(folder / "speech")
    if (folder / "mimi.json").exists() or any(codes_of(shard).exists() for shard in shards):
        raise click.ClickException(
            f"{folder} holds a codec that has learned, or codes: train the encoder in a new folder, then encode."
        )
    callers: dict[str, list[Line]] = defaultdict(list)
    for shard in filter(is_of_callers, shards):
        callers[teacher_of(shard).removeprefix("callers-")] += read_shard(shard)
    if not callers:
        raise click.ClickException(f"{folder / 'speech'} holds no callers: run the stage `speech` first.")
    mimi = grown_mimi(folder, device, config)
    speech = SpokenLines(callers, agents_first(folder, report), device, workers)
    heard = ", ".join(f"{who} {hours_:.1f}" for who, hours_ in speech.hours.items())
    report(f"Hours: {heard}; read in {time.monotonic() - began:.0f} s")
    training = EncoderTraining(mimi, speech, options or EncoderOptions())
    training.run(schedule, report)
    keep_codec(folder, training.mean, config)


def grown_mimi(folder: Path, device: torch.device, config: dict[str, Any]) -> MimiModel:
    """The codec with which the encoder begins; layers that its transformer lacks of `config` are new and do little.

    Raises ClickException when it differs from `config` in anything else.
    """
    source = codec_folder(folder)
    described = read_json(source / "mimi.json") if (source / "mimi.json").exists() else config
    mimi = load_mimi(source / "mimi.safetensors", described, device)
    grown = get_mimi(None, config, device=device, num_codebooks=AGENT_CODEBOOKS)
    if isinstance(mimi, SpectralMimi):
        grown = SpectralMimi(grown, mimi.spectral)
    old, new = mimi.state_dict(), grown.state_dict()
    fits = all(name in new and new[name].shape == tensor.shape for name, tensor in old.items())
    if not fits or not all(MORE_LAYERS in name for name in new.keys() - old.keys()):
        raise click.ClickException(f"The codec in {source} is not a smaller one of the shape that is trained.")
    grown.load_state_dict(old, strict=False)
    return grown


def keep_codec(folder: Path, mimi: MimiModel, config: dict[str, Any]) -> None:
    """Write the codec whose codes the later stages take.

    Tensors keep the dtype that they had, and so those that have not learned their bits; new ones are rounded as an
    export rounds them.
    """
    frozen = load_file(codec_folder(folder) / "mimi.safetensors")
    tensors = {
        name: (tensor.to(frozen[name].dtype) if name in frozen else rounded(tensor)).cpu().contiguous()
        for name, tensor in mimi.state_dict().items()
    }
    with whole_file(folder / "mimi.safetensors") as part:
        save_file(tensors, part)
    with whole_file(folder / "mimi.json") as part:
        part.write_text(described_mimi(mimi, config))


def described_mimi(mimi: MimiModel, config: dict[str, Any]) -> str:
    """The JSON file that describes a codec: Mimi's config, and the shape of its decoder if that is one of spectra."""
    decoder = {SECTION: asdict(mimi.spectral.shape)} if isinstance(mimi, SpectralMimi) else {}
    return json.dumps(config | decoder, indent=1)


def agents_first(folder: Path, report: Report) -> list[Line]:
    """The lines of nano's voices, which alone are decoded, and some of others beside them."""
    agents: list[Line] = []
    others: list[Line] = []
    for path in shard_paths(folder / "speech"):
        if is_of_callers(path):
            continue  # Their phonemes are not known, and nobody decodes them.
        read = read_shard(path)
        agents += [line for line in read if line.record.speaker in AGENTS]
        if hours(others) < MOST_OTHERS_H:
            others += [line for line in read if line.record.speaker not in AGENTS]
    if not agents and not others:
        raise click.ClickException(f"{folder / 'speech'} is empty: run the stage `speech` first.")
    share = min(1.0, OTHERS * max(hours(agents), 0.3) / max(hours(others), 1e-6))
    others = random.Random(0).sample(others, round(share * len(others)))
    report(f"{hours(agents):.2f} hours of nano's voices, and {hours(others):.2f} of others")
    return agents + others


def codec_folder(folder: Path) -> Path:
    """Where the codec is whose codes the language model knows: the folder with a `mimi.safetensors`, or core/nano."""
    return folder if (folder / "mimi.safetensors").exists() else NANO_CHECKPOINT


def frozen_mimi(folder: Path, device: torch.device, config: dict[str, Any]) -> MimiModel:
    """The codec whose encoder and quantizer stay as they are, with the decoder that it has.

    Its shape must be what `config` says, without what that says of the decoder.
    """
    source = codec_folder(folder)
    described = read_json(source / "mimi.json") if (source / "mimi.json").exists() else {}
    own = {SECTION: described[SECTION]} if SECTION in described else {}
    return load_mimi(source / "mimi.safetensors", config | own, device)


def trained_mimi(folder: Path, device: torch.device, config: dict[str, Any], decoder: str = TRAINED) -> MimiModel:
    """What `frozen_mimi` gives, with the trained or the sharp `decoder`, a file of the folder, if there is one."""
    mimi = frozen_mimi(folder, device, config)
    return SpectralMimi(mimi, read_decoder(folder / decoder, device)) if (folder / decoder).exists() else mimi


def read_decoder(path: Path, device: torch.device) -> SpectralNetwork:
    """The mean decoder in a file, its weights rounded as an export rounds them."""
    state = torch.load(path, map_location=device, weights_only=True)
    decoder = SpectralNetwork(SpectralShape(**state["shape"])).to(device)
    decoder.load_state_dict({name: rounded(tensor).float() for name, tensor in state["mean"].items()})
    return decoder.eval()


def rounded(tensor: torch.Tensor) -> torch.Tensor:
    """A weight as an export stores it: matrices and filters in bfloat16."""
    return tensor.bfloat16() if tensor.dim() > 1 else tensor


def special_codes(mimi: MimiModel) -> SpecialCodes:
    """What the codec makes of silence and the sine."""
    return measure_special_codes(VoiceEncoder(mimi))


def tokenizer_file(folder: Path, shape: Shape) -> Path:
    """The folder's tokenizer, which is made where there is none: nano's is the one that its weights know so far."""
    path = folder / "tokenizer.model"
    if not path.exists() and shape.architecture.text_vocab_size == NANO.architecture.text_vocab_size:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            shutil.copy(Checkpoint.read(NANO_CHECKPOINT).tokenizer, part)
    elif not path.exists():
        make_tokenizer(path, shape.architecture.text_vocab_size)
    return path


def encode_all_lines(
    folder: Path, device: torch.device, report: Report, shape: Shape = NANO, follow: bool = False
) -> None:
    """Encode all lines, callers' too, beside their shards, for the stage `mix`.

    With `follow` it goes on as new shards come, until the process is ended. Others may do the same beside it.
    """
    mimi = trained_mimi(folder, device, shape.mimi)
    write_special(folder, special_codes(mimi))
    stretches = STRETCHES if shape is NANO else SMALL_STRETCHES
    while True:
        make_ambience(folder, mimi, device, *stretches)  # Whoever began it may have been ended.
        waiting = [shard for shard in shard_paths(folder / "speech") if not codes_of(shard).exists()]
        if waiting:
            began, shard = time.monotonic(), random.choice(waiting)
            lines = read_shard(shard)
            encode_lines(mimi, lines, device, codes_of(shard))
            report(f"{shard.stem}: {hours(lines):.2f} hours, {time.monotonic() - began:.0f} s")
        elif follow:
            time.sleep(LOOKED_S)
        else:
            return


def encode_conversations(
    folder: Path,
    device: torch.device,
    numbers: range,
    sizes: BankSizes,
    report: Report,
    shape: Shape = NANO,
) -> None:
    """Mix and encode banks of such `sizes` into `banks/`, taking in new speech as it comes."""
    tokenizer = read_tokenizer(tokenizer_file(folder, shape))
    mimi = trained_mimi(folder, device, shape.mimi)
    special = special_codes(mimi)
    known, episodes, seen, read = Lines(), dict[str, Episode](), set[Path](), 0.0
    for number in numbers:
        count, positions = sizes.of(number)
        path = folder / "banks" / f"{positions}-{number:04d}.pt"
        if path.exists():
            continue
        began = time.monotonic()
        new = [path for path in shard_paths(folder / "speech") if path not in seen]
        # In another order in each process, so that most are encoded by one of them, and read by the others.
        new = random.Random(number).sample(new, len(new))
        agents, callers = (
            [shard for shard in new if is_of_callers(shard) == of_callers] for of_callers in (False, True)
        )
        for shard in (*agents, *callers[:MOST_CALLERS]):
            lines = read_shard(shard)
            if is_of_callers(shard):
                known.add_callers(lines)  # As sound, to be mixed with noise first.
            else:
                known.add_agents(lines, encode_lines(mimi, lines, device, codes_of(shard)))
                episodes |= read_index(shard).episodes
            seen.add(shard)
            read += hours(lines)
        if not episodes:
            raise click.ClickException(f"{folder / 'speech'} is empty: run the stage `speech` first.")
        composer = Composer(known, episodes, tokenizer, special, shape.architecture, loose_phrases())
        build_bank(encoded(composer, mimi, count, positions, number), special, count, positions).save(path)
        spent = time.monotonic() - began
        report(
            f"bank {number}: {count} conversations of {positions} positions out of {len(episodes)} episodes, "
            f"{read:.1f} hours, {spent:.0f} s"
        )


def train_lm(
    folder: Path, device: torch.device, schedule: Schedule, report: Report, options: LmOptions | None = None
) -> None:
    """Train, or go on with, `lm.pt` on all banks, taking in new ones as they come and leaving out deleted ones."""
    options = options or LmOptions()
    training = LmTraining(options, device)
    if (folder / "lm.pt").exists():
        training.resume(folder / "lm.pt")
    elif options.begin is not None:
        training.grow(options.begin)
        report(f"It begins with the weights of {options.begin}.")
    banks = BankFolder(folder / "banks", device, options.rows)
    training.run(schedule, banks.draw, folder / "lm.pt", report)
    report(banks.seen())
