"""`python -m training STAGE`: from nothing to nano, stage by stage. Each goes on where it was interrupted."""

from collections.abc import Callable
from pathlib import Path

import click

from training.bank_commands import encode, mix
from training.making.commands import make, pack, unpack, voices_option, watch
from training.measuring_commands import choose, evaluate, judge, recall, say
from training.options import device_option, flite_option, report, rhvoice_option, small_option
from training.voices import TEACHERS


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


for command in (encode, mix, make, watch, pack, unpack, evaluate, recall, judge, choose, say):
    main.add_command(command)

if __name__ == "__main__":
    main()
