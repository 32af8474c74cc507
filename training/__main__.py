"""`python -m training STAGE`: from nothing to nano, stage by stage. Each goes on where it was interrupted."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import click
import msgspec

from core.engine.sampling import Sampling
from core.settings.sections import Device
from training.bank_commands import encode, mix
from training.judging.strangers import Author, strangers
from training.making.commands import make, pack, unpack, voices_option, watch
from training.options import device_option, flite_option, report, rhvoice_option, small_option
from training.voices import TEACHERS


def write_details(path: Path, result: msgspec.Struct) -> None:
    """Keep what a stage has found as a JSON file, and say where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1))
    report(f"Details are in {path}.")


def stage(function: Callable[..., None]) -> Callable[..., None]:
    """Options that every stage that learns has."""
    function = click.option("--minutes", default=9.0, show_default=True, help="How long this run takes.")(function)
    function = click.option("--part", nargs=2, type=float, default=(0.0, 1.0), help="Shares of the whole: from, to.")(
        function
    )
    return device_option(function)


def rate_option(highest: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The learning rate, which is `highest` unless a run is to go on gently."""
    return click.option("--rate", default=highest, show_default=True, help="The learning rate at its highest.")


@click.group(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("nano-training"), show_default=True)
@click.pass_context
def main(context: click.Context, folder: Path) -> None:
    context.obj = folder


@main.command()
@click.option(
    "--teacher",
    type=click.Choice(TEACHERS),
    required=True,
    help="Of agents' lines, or of callers'.",
)
@click.option(
    "--shards", nargs=2, type=int, default=(0, 200), show_default=True, help="The first, and the one after the last."
)
@click.option("--workers", default=2, show_default=True)
@click.option("--count", type=int, help="Episodes in a shard of agents' lines, or lines in one of callers'.")
@flite_option
@rhvoice_option
@voices_option
@click.pass_obj
def speech(
    folder: Path,
    teacher: str,
    shards: tuple[int, int],
    workers: int,
    count: int | None,
    flite: Path | None,
    rhvoice: Path | None,
    voices: Path | None,
) -> None:
    """The teachers say the agents' lines of many episodes, or lines of callers."""
    from training.speech import Libraries, make_speech

    libraries = Libraries(flite, rhvoice)
    make_speech(teacher, folder / "speech", range(*shards), workers, report, libraries, count, voices)


@main.command()
@click.option("--minutes", default=6.0, show_default=True, help="How long it takes.")
@device_option
@rate_option(6e-4)
@click.option("--workers", default=2, show_default=True, help="Processes that read what callers say.")
@small_option
@click.pass_obj
def encoder(folder: Path, minutes: float, device: str, rate: float, workers: int, small: bool) -> None:
    """The codec's encoder learns to put into codes what is said."""
    import torch

    from training.encoder import EncoderOptions
    from training.schedule import Schedule
    from training.shape import NANO, SMALL
    from training.stages import train_encoder

    options = EncoderOptions(callers=4, agents=3, rate=rate) if small else EncoderOptions(rate=rate)
    config = (SMALL if small else NANO).mimi
    train_encoder(folder, torch.device(device), Schedule(minutes * 60), report, workers, options, config)


@main.command()
@stage
@rate_option(6e-4)
@click.option("--batch", default=40, show_default=True, help="Crops of 32 frames to a step.")
@small_option
@click.pass_obj
def codec(
    folder: Path, device: str, part: tuple[float, float], minutes: float, rate: float, batch: int, small: bool
) -> None:
    """The codec's decoder learns to make speech of codes."""
    import torch

    from training.codec import CodecOptions
    from training.schedule import Schedule
    from training.shape import NANO, SMALL, SMALL_DECODER
    from training.stages import train_codec

    options = CodecOptions(batch=batch, rate=rate)
    if small:
        options = CodecOptions(batch=2, frames=12, heard=8, judged=5, shape=SMALL_DECODER)
    config = (SMALL if small else NANO).mimi
    train_codec(folder, torch.device(device), Schedule(minutes * 60, *part), report, options, config)


@main.command()
@click.pass_obj
def sharpen(folder: Path) -> None:
    """The decoder's spectra get sharper, and its speech as bright as the teacher's."""
    from training.sharpening import sharpen_codec

    sharpen_codec(folder, report)


@main.command()
@stage
@rate_option(1.2e-3)
@click.option("--batch", default=96, show_default=True, help="Conversations of 512 positions to a step.")
@click.option("--text", type=float, help="The weight of the agent's text in the loss.")
@click.option("--heard", type=float, help="The weight of the caller's words in the loss.")
@click.option(
    "--begin",
    type=click.Path(exists=True, path_type=Path),
    default=Path("core/nano"),
    show_default=True,
    help="The checkpoint to begin with, where there is no lm.pt; it is grown.",
)
@click.option("--afresh", is_flag=True, help="Begin with random weights instead.")
@small_option
@click.pass_obj
def lm(
    folder: Path,
    device: str,
    part: tuple[float, float],
    minutes: float,
    rate: float,
    batch: int,
    text: float | None,
    heard: float | None,
    begin: Path,
    afresh: bool,
    small: bool,
) -> None:
    """The language model learns to converse."""
    from training.lm import HEARD_WEIGHT, TEXT_WEIGHT, LmOptions
    from training.schedule import Schedule
    from training.shape import SMALL
    from training.stages import train_lm
    from training.together import own_device

    options = LmOptions(
        batch=batch,
        rate=rate,
        text=TEXT_WEIGHT if text is None else text,
        heard=HEARD_WEIGHT if heard is None else heard,
        begin=None if afresh else begin,
    )
    if small:
        options = LmOptions(batch=1, architecture=SMALL.architecture, begin=None)
    train_lm(folder, own_device(device), Schedule(minutes * 60, *part), report, options)


@main.command()
@click.option("--target", type=click.Path(path_type=Path), default=Path("core/nano"), show_default=True)
@click.option(
    "--earlier",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="A kept lm.pt, to take the mean with.",
)
@click.option("--last", is_flag=True, help="The weights of the last step, in place of the mean of the latest.")
@click.pass_obj
def export(folder: Path, target: Path, earlier: tuple[Path, ...], last: bool) -> None:
    """Codec, language model, tokenizer and voices become a checkpoint."""
    from training.export import export as write_checkpoint

    write_checkpoint(folder, target, report, earlier=earlier, last=last)


@main.command()
@click.option("--checkpoint", type=click.Path(path_type=Path), default=Path("core/nano"), show_default=True)
@click.option("--personas", default=100, show_default=True, help="How many unseen ones are called.")
@click.option(
    "--codec",
    is_flag=True,
    help="Measure the codec alone instead, on new lines of Kokoro: the checkpoint's, and codec.pt's.",
)
@click.option("--lines", default=60, show_default=True, help="How many lines, with --codec.")
@click.option("--recording", type=click.Path(exists=True, path_type=Path), help="A WAV that some callers play.")
@click.option("--keep", type=click.Path(path_type=Path), help="A folder for the calls' sound.")
@click.option("--temperature", type=float, help="Instead of the checkpoint's own.")
@click.option("--text-temperature", type=float, help="Instead of the checkpoint's own.")
@click.option(
    "--kv-cache", type=click.Choice(["auto", "bfloat16", "int8"]), default="auto", help="As engine.kv_cache does."
)
@device_option
@click.pass_obj
def evaluate(
    folder: Path,
    checkpoint: Path,
    personas: int,
    codec: bool,
    lines: int,
    recording: Path | None,
    keep: Path | None,
    temperature: float | None,
    text_temperature: float | None,
    kv_cache: Literal["auto", "bfloat16", "int8"],
    device: Device,
) -> None:
    """Unseen personas are called, and it is measured how they do."""
    import training.evaluate as stage_of_calls

    sampling = Sampling(temperature=temperature, text_temperature=text_temperature)
    options = stage_of_calls.Options(checkpoint, personas, device, sampling, recording, keep, kv_cache)
    if codec:
        from training.codec_quality import evaluate_codec

        figures = evaluate_codec(checkpoint, folder, lines, device, keep, report)
        evaluation = stage_of_calls.Evaluation(tuple(figures))
    else:
        evaluation = stage_of_calls.evaluate(options, report)
    path = folder / ("evaluation-codec.json" if codec else "evaluation.json")
    report(f"{'':<52} {'':>7} {'cases':>7}   should be")
    for figure in evaluation.figures:
        report(figure.row())
    write_details(path, evaluation)


@main.command()
@click.option("--checkpoint", type=click.Path(path_type=Path), default=Path("core/nano"), show_default=True)
@click.option("--personas", default=40, show_default=True, help="How many unseen ones are called.")
@click.option("--voice", "voices", multiple=True, help="In which voices; all of the checkpoint's when left out.")
@click.option("--minute", "minutes", multiple=True, type=float, default=(0.5, 3, 5, 10, 15), show_default=True)
@click.option("--slots", default=16, show_default=True, help="How many calls are held at once.")
@click.option("--listen/--no-listen", default=True, help="Whether Whisper listens too.")
@device_option
@click.pass_obj
def recall(
    folder: Path,
    checkpoint: Path,
    personas: int,
    voices: tuple[str, ...],
    minutes: tuple[float, ...],
    slots: int,
    listen: bool,
    device: Device,
) -> None:
    """Unseen personas are asked who they are after minutes of talk, with their prompts pinned and without."""
    import training.recall as stage_of_recall

    options = stage_of_recall.Options(checkpoint, personas, voices, minutes, slots, device, listen)
    result = stage_of_recall.recall(options, report)
    for figure in result.figures:
        report(figure.row())
    write_details(folder / "recall.json", result)


@main.command()
@click.option("--checkpoint", type=click.Path(path_type=Path), default=Path("core/nano"), show_default=True)
@click.option("--personas", type=int, help="How many strangers; all, or 6 with --quick.")
@click.option(
    "--author",
    type=click.Choice(get_args(Author)),
    default="first",
    show_default=True,
    help="Whose personas: 24 by the first, 32 by each of the others.",
)
@click.option("--quick", is_flag=True, help="Fewer and shorter calls: about three minutes on two cores.")
@click.option("--only", "kinds", multiple=True, help="Kinds of calls, such as facts; all when left out.")
@click.option("--slots", type=int, help="How many calls are held at once; 32 on a CPU, 96 on a GPU.")
@click.option("--recording", type=click.Path(exists=True, path_type=Path), help="A WAV of a real caller.")
@flite_option
@click.option("--listen/--no-listen", default=True, help="Whether Whisper and DistillMOS listen too.")
@click.option("--to", "target", type=click.Path(path_type=Path), help="The JSON file; in the folder when left out.")
@device_option
@click.pass_obj
def judge(
    folder: Path,
    checkpoint: Path,
    personas: int | None,
    author: Author,
    quick: bool,
    kinds: tuple[str, ...],
    slots: int | None,
    recording: Path | None,
    flite: Path | None,
    listen: bool,
    target: Path | None,
    device: Device,
) -> None:
    """Strangers call, whose prompts, wordings and voices nano has never heard, and are judges of all it does."""
    import training.judging.stage as stage_of_judge
    from training.judging.scenes import Scale

    options = stage_of_judge.Options(
        checkpoint=checkpoint,
        cache=folder / "judge",
        teacher=folder / "speech" / "kokoro",
        scale=Scale(personas or (6 if quick else len(strangers(author))), quick, author),
        kinds=stage_of_judge.kinds_named(kinds),
        slots=slots or (32 if device == "cpu" else 96),
        device=device,
        recording=recording,
        flite=flite,
        listen=listen,
    )
    judgement = stage_of_judge.judge(options, report)
    report(stage_of_judge.summary(judgement))
    write_details(target or folder / "judgement.json", judgement)


@main.command()
@click.option("--checkpoint", type=click.Path(path_type=Path), default=Path("core/nano"), show_default=True)
@click.option("--questions", default=100, show_default=True, help="How many are asked, each about another prompt.")
@click.option("--unseen", is_flag=True, help="About portraits and in wordings that are held out of training.")
@click.option("--strange", is_flag=True, help="In voices that are held out, on telephones, in rooms and in noise.")
@device_option
@small_option
@click.pass_obj
def choose(
    folder: Path, checkpoint: Path, questions: int, unseen: bool, strange: bool, device: str, small: bool
) -> None:
    """Of the answers in a prompt, the right one should be the likeliest: a quick measure of understanding alone."""
    import torch

    import training.choosing as stage_of_choices
    from training.shape import NANO, SMALL

    options = stage_of_choices.Options(questions, unseen, strange, SMALL if small else NANO)
    result = stage_of_choices.choose(folder, checkpoint, torch.device(device), options, report)
    for figure in result.figures:
        report(figure.row())
    write_details(folder / "choices.json", result)


@main.command()
@click.option("--checkpoint", type=click.Path(path_type=Path), default=Path("core/nano"), show_default=True)
@device_option
@click.pass_obj
def say(folder: Path, checkpoint: Path, device: Device) -> None:
    """Agents are given sentences to say, and it is measured how well they are heard."""
    from training.saying import evaluate_saying

    evaluation = evaluate_saying(checkpoint, device, report)
    for figure in evaluation.figures:
        report(figure.row())
    write_details(folder / "evaluation-say.json", evaluation)


for command in (encode, mix, make, watch, pack, unpack):
    main.add_command(command)

if __name__ == "__main__":
    main()
