"""Options that several stages have, and how they tell of what they do."""

from pathlib import Path

import click
import torch

given_folder = click.Path(exists=True, file_okay=False, path_type=Path)
device_option = click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
flite_option = click.option("--flite", type=given_folder, help="Where flite's libraries are, if not installed.")
rhvoice_option = click.option("--rhvoice", type=given_folder, help="Where RHVoice's libraries and data are.")
small_option = click.option("--small", is_flag=True, help="A small network, for rehearsals on a CPU.")


def report(line: str) -> None:
    """Tell how it goes, at once."""
    click.echo(line)
