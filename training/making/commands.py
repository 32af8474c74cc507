"""`python -m training make` and `watch`, and `pack` and `unpack`, which take what it has packed from place to place."""

import time
from pathlib import Path

import click

from training.options import given_folder

A_DAY_S = 86_400.0

voices_option = click.option(
    "--voices", type=given_folder, help="Kokoro's voices for callers: package/voices of the npm package kokoro-js."
)


@click.command()
@click.option("--minutes", default=20.0, show_default=True, help="How long it may take in all.")
@click.option("--into", type=click.Path(path_type=Path), help="What is packed goes here; into packed/ when left out.")
@click.option("--resume", type=given_folder, help="A folder with what an earlier run has packed, to go on from.")
@click.option(
    "--codec",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A codec.pt or decoder.pt, for the decoder to go on from.",
)
@click.option("--decoder/--no-decoder", default=True, help="Whether the codec's decoder learns, too.")
@click.option("--kokoro/--no-kokoro", default=True, help="Whether Kokoro speaks.")
@click.option("--flite", type=given_folder, help="Where flite's libraries are; without, flite does not speak.")
@click.option("--rhvoice", type=given_folder, help="RHVoice's libraries and data; without, it does not speak.")
@click.option("--pico/--no-pico", default=True, help="Whether Pico speaks.")
@voices_option
@click.option("--first-speech", default=80.0, show_default=True, help="Seconds in which all GPUs speak.")
@click.option("--small", is_flag=True, help="A rehearsal on the CPU: small networks, few lines, no Kokoro.")
@click.option("--detach", is_flag=True, help="Return at once; `watch` shows how it goes.")
@click.pass_obj
def make(
    folder: Path,
    minutes: float,
    into: Path | None,
    resume: Path | None,
    codec: Path | None,
    decoder: bool,
    kokoro: bool,
    flite: Path | None,
    rhvoice: Path | None,
    pico: bool,
    voices: Path | None,
    first_speech: float,
    small: bool,
    detach: bool,
) -> None:
    """All stages at once, on all the GPUs that there are, in a given time."""
    from training.making.plan import Request
    from training.making.starting import Given, start

    began, folder = time.monotonic(), folder.resolve()
    request = Request(
        seconds=minutes * 60,
        began=began,
        into=str((into or folder / "packed").resolve()),
        first_speech=first_speech,
        flite=None if flite is None else str(flite),
        rhvoice=None if rhvoice is None else str(rhvoice),
        voices=None if voices is None else str(voices),
        pico=pico,
        kokoro=kokoro,
        decoder=decoder,
    )
    if small:
        request = request.rehearsed()
    start(folder, request, Given(resume, codec, flite, rhvoice, voices), detach)
    if not detach:
        from training.making.watching import watch as watch_run

        raise SystemExit(watch_run(folder, A_DAY_S, None, click.echo))


@click.command()
@click.option("--seconds", default=300.0, show_default=True, help="How long at most.")
@click.option("--into", type=click.Path(path_type=Path), help="Where what was last packed is copied at the end.")
@click.pass_obj
def watch(folder: Path, seconds: float, into: Path | None) -> None:
    """Show how `make --detach` goes: exit code 0 if it is done, 1 if it has failed, 3 if it goes on."""
    from training.making.watching import watch as watch_run

    raise SystemExit(watch_run(folder.resolve(), seconds, into, click.echo))


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.pass_obj
def pack(folder: Path, target: Path) -> None:
    """Write lm.pt into the folder TARGET in pieces of 15 MB, to be sent elsewhere."""
    import training.packing as stage_of_packing

    click.echo(f"{len(stage_of_packing.pack(folder / 'lm.pt', target))} pieces in {target}")


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.pass_obj
def unpack(folder: Path, source: Path) -> None:
    """Make lm.pt of the pieces in the folder SOURCE."""
    import training.packing as stage_of_packing

    stage_of_packing.unpack(source, folder / "lm.pt")
