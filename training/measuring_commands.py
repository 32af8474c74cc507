"""`python -m training evaluate`, `recall`, `judge`, `choose` and `say`, which measure how good nano is."""

from pathlib import Path
from typing import Literal, get_args

import click
import msgspec

from core.engine.sampling import Sampling
from core.settings.sections import Device
from training.judging.strangers import Author, strangers
from training.options import device_option, flite_option, report, small_option


def write_details(path: Path, result: msgspec.Struct) -> None:
    """Keep what a stage has found as a JSON file, and say where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1))
    report(f"Details are in {path}.")


@click.command()
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


@click.command()
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


@click.command()
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


@click.command()
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


@click.command()
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
