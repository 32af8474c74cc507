"""`eval`: talk to the configured engine with callers of our own, and say how good it is."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from rich.console import Console

from core.cli.options import config_option
from core.media.sound_files import check_writable
from core.settings.config import load_config

if TYPE_CHECKING:  # what measures takes seconds to import
    from core.evaluation.callers import Callers
    from core.evaluation.whisper import Whisper

INSTALL = "Install it with: pip install 'personaplex-modal[eval]', or here: uv sync --extra eval."


@click.command(name="eval")
@config_option
@click.option("--personas", type=click.IntRange(1, 1000), default=8, show_default=True, help="How many, a call each.")
@click.option(
    "--minutes",
    type=click.FloatRange(0, 60),
    default=1.0,
    show_default=True,
    help="How long callers talk on, asking for the same facts again after 0.5, 1, 3, 5, 10 and 15 minutes.",
)
@click.option(
    "--callers",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder of recordings, such as of a public benchmark, to play beside the questions.",
)
@click.option("--recordings-only", is_flag=True, help="Play the recordings alone, and ask nothing.")
@click.option("--whisper", default="tiny.en", show_default=True, help="A model's name or folder; none: do not listen.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a report with plots.")
def evaluate(
    config: Path | None,
    personas: int,
    minutes: float,
    folder: Path | None,
    recordings_only: bool,
    whisper: str,
    as_json: bool,
    html: Path | None,
) -> None:
    """Talk to the model with callers of our own, and print how good it is; exit with 1 when it is not.

    Callers are spoken by espeak-ng, and the agent's speech is understood by Whisper: both come with the extra `eval`.
    """
    from core.boot.local_engine import open_engine
    from core.evaluation.callers import recorded_lines
    from core.evaluation.evaluate import Plan, hold_calls, measure
    from core.evaluation.report import write_report

    loaded = load_config(config, os.environ)
    if html is not None:
        check_writable(html)
    if recordings_only and folder is None:
        raise click.UsageError("--recordings-only needs --callers FOLDER.")
    console = Console(stderr=True)

    def tell(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    recordings = recorded_lines(folder) if folder is not None else []
    callers = None if recordings_only else _callers()
    listener = None if whisper == "none" else _whisper(whisper)
    engine = open_engine(loaded.engine, tell)
    try:
        calls = asyncio.run(hold_calls(engine, Plan(personas, minutes), callers, recordings, tell))
        evaluation = measure(engine, calls, listener, tell)
    finally:
        engine.close()
    if html is not None:
        write_report(html, evaluation, calls)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(evaluation)).decode())
    else:
        click.echo("\n".join(figure.row() for figure in evaluation.figures))
    if not evaluation.passed:
        raise click.exceptions.Exit(1)


def _callers() -> "Callers":
    from core.evaluation.callers import EspeakCallers

    try:
        return EspeakCallers()
    except ImportError:
        raise click.ClickException(
            f"espeak-ng, which speaks the callers, is not installed. {INSTALL} Or only play recordings: "
            "--callers FOLDER --recordings-only."
        ) from None


def _whisper(model: str) -> "Whisper":
    from core.evaluation.whisper import Whisper

    try:
        return Whisper(model)
    except ImportError:
        raise click.ClickException(
            f"Whisper, which listens to the agent, is not installed. {INSTALL} Or do without: --whisper none."
        ) from None
    except Exception as error:  # faster-whisper, its engine and the Hub raise many kinds
        raise click.ClickException(f"Whisper cannot be used with {model!r}: {error}") from None
