"""Options that several commands share, and how errors are shown."""

from pathlib import Path
from typing import Any

import click

from core.cli.standard_streams import open_standard_streams
from core.errors import PersonaplexError

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="PERSONAPLEX_CONFIG",
    help="The configuration; without it config.yaml in this folder, or else the one that is shipped.",
)
sound_in = click.argument("source", metavar="IN.wav", type=click.Path(path_type=Path, dir_okay=False))
sound_out = click.argument("target", metavar="OUT.wav", type=click.Path(path_type=Path, dir_okay=False))
stereo_option = click.option("--stereo", is_flag=True, help="Write both sides: the caller left, the agent right.")
password_option = click.option(
    "--password",
    envvar="PERSONAPLEX_PASSWORD",
    callback=lambda _context, _option, text: text and text.rstrip("\r\n"),  # which a variable made from a file has
    help="Better given as PERSONAPLEX_PASSWORD.",
)
seed_option = click.option("--seed", type=click.IntRange(0), help="The same seed and sound give the same answer.")
silence_option = click.option(
    "--silence",
    type=click.FloatRange(0, 600),
    default=0.0,
    metavar="SECONDS",
    help="Stay on the line in silence after the recording, for a longer answer.",
)


class Commands(click.Group):
    """A group whose commands show our errors as one message, without a traceback, and exit with code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        open_standard_streams()
        try:
            return super().invoke(ctx)
        except PersonaplexError as error:
            raise click.ClickException(str(error)) from None
